"""The scorer's process: `python -I child.py SPEC` reads what a job wrote, calls the user's scorer and prints one line.

SPEC is a JSON object with the fields of `Order`. The line is the order's `nonce`, a space and a JSON object: `result` (a number or
a mapping), `fingerprint` and `is_constant`; or `fault` ("predictions", "scorer", "changed"), `problem` and `details`. What the user's
scorer prints comes before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar, cast

if __name__ == "__main__":  # parts of llmhpo are found by their place; its __init__, which is heavier, is passed over
    _package = types.ModuleType("llmhpo")
    _package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["llmhpo"] = _package

import numpy as np

from llmhpo.job import plain
from llmhpo.scoring.arrays import (
    Array,
    UnreadableError,
    check,
    check_finite,
    check_whole,
    is_constant,
    parse,
    read_file,
    widened,
)
from llmhpo.scoring.base import MAX_LINE, Order
from llmhpo.scoring.fingerprint import fingerprint

_DETAILS = 4000
_REMEDY = "; call llmhpo.job.predictions(array), or write the file whose path is in LLMHPO_PREDICTIONS"
_Found = TypeVar("_Found")
_READ_LABELS = (".npy", ".npz", ".safetensors")


class FaultError(Exception):
    """Why there is no score: `fault` says whose fault it is, `details` is a traceback for the user."""

    def __init__(self, fault: str, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.fault, self.details = fault, details


def score(order: Order) -> dict[str, object]:
    """The line's object for an order that can be carried out. Raises: FaultError."""
    function = _load(order)
    labels = _labels(order)
    path = Path(order.predictions)
    try:
        found = parse(read_file(path, order.max_bytes), path.suffix, order.max_bytes)
        arrays = found if isinstance(found, dict) else {"": found}
        _check(arrays, order.shape, labels)
    except UnreadableError as error:
        remedy = _REMEDY if str(error) == "is missing" else ""
        raise FaultError("predictions", f"{path.name} {error}{remedy}") from None
    about: dict[str, object] = {
        "fingerprint": fingerprint(arrays),
        "is_constant": not isinstance(found, dict) and is_constant(found),
    }
    try:
        return {"result": plain(function(_plain_numbers(found), _plain_numbers(labels))), **about}
    except ValueError as error:
        raise FaultError("predictions", f"{Path(order.script).name} refuses them: {error}", _trace()) from None
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise FaultError("scorer", f"{type(error).__name__}: {error}", _trace()) from None


def _check(arrays: dict[str, Array], shape: list[int | None] | None, labels: object) -> None:
    """Check shape and numbers; several arrays by name (weights) have no declared shape, and some of them may be empty."""
    known = labels if isinstance(labels, np.ndarray) and labels.ndim else None
    for name, array in arrays.items():
        try:
            if name:
                check_finite(array)
            else:
                check(array, shape, None if known is None else known.shape)
                check_whole(array, known)
        except UnreadableError as error:
            raise UnreadableError(f"{error} in {name!r}" if name else str(error)) from None
    if not any(array.size for array in arrays.values()):
        raise UnreadableError("holds no number")


def _load(order: Order) -> Callable[[object, object], object]:
    try:
        source = Path(order.script).read_bytes()
    except OSError as error:
        raise FaultError("changed", f"it cannot be read any more ({error.strerror})") from None
    if hashlib.sha256(source).hexdigest() != order.digest:
        raise FaultError("changed", "it was changed while the study ran")
    module = types.ModuleType("score")
    module.__file__ = order.script
    sys.modules["score"] = module
    try:
        exec(compile(source, order.script, "exec"), module.__dict__)
        return cast("Callable[[object, object], object]", module.__dict__[order.function])
    except ModuleNotFoundError as error:
        hint = "; the scorer may import installed packages, and no file beside it"
        raise FaultError("scorer", f"{error}{hint}", _trace()) from None
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise FaultError("scorer", f"{type(error).__name__}: {error}", _trace()) from None


def _labels(order: Order) -> Array | dict[str, Array] | str | None:
    path = Path(order.labels)
    if not order.labels or path.suffix not in _READ_LABELS:
        return order.labels or None
    try:
        data = bytearray(path.read_bytes())
        return parse(data, path.suffix, max(order.max_bytes, 100 * len(data)))
    except (OSError, UnreadableError) as error:
        raise FaultError("scorer", f"the labels {str(path)!r} cannot be read: {error}") from None


def _plain_numbers(found: _Found) -> _Found:
    """One array in a width that no job has chosen; several (weights), and what is no array, as they are."""
    return cast("_Found", widened(found)) if isinstance(found, np.ndarray) else found


def _line(answer: dict[str, object]) -> str:
    try:
        line = json.dumps(answer)
    except ValueError as error:  # an integer of thousands of digits
        raise FaultError("scorer", f"it returns what cannot be written down: {error}") from None
    if len(line) > MAX_LINE:
        raise FaultError("scorer", f"it returns more than fits into {MAX_LINE} characters; return a few numbers")
    return line


def _trace() -> str:
    return traceback.format_exc()[-_DETAILS:]


def main(spec: str) -> NoReturn:
    """Carry out an order, print the line, and end before anything else can be printed."""
    order = Order(**json.loads(spec))
    try:
        line = _line(score(order))
    except FaultError as error:
        line = json.dumps({"fault": error.fault, "problem": str(error)[:1000], "details": error.details})
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(1, f"\n{order.nonce} {line}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])

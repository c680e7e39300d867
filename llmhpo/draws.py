"""Hyperparameters drawn where they are used, inside the training code:

    norm = llmhpo.choose("norm", ["layer", "batch"])
    lr = llmhpo.loguniform("lr", 1e-4, 1e-1, default=1e-3)

In a trial a draw returns the value that the trial's configuration holds; outside llmhpo it returns its default, so that the
script runs alone. `discovery` finds the draws by running the script once. Imports nothing heavy.

One name is one hyperparameter: drawn again, in a loop or in a worker process, it has the same value.

Source: the idea of a program that draws its own choices is PyGlove's (Peng et al., NeurIPS 2020).
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import NoReturn, TypeVar, cast

from llmhpo import job
from llmhpo.errors import SpaceError

__all__ = ["boolean", "choose", "integer", "loguniform", "uniform"]

FILE_VARIABLE = "LLMHPO_DRAWS"  # names the file that a run which looks for draws appends them to
T = TypeVar("T")
Table = dict[str, object]
_collected: ContextVar[list[tuple[str, Table]] | None] = ContextVar("llmhpo_draws", default=None)
_told: set[tuple[str, str]] = set()


def choose(
    name: str,
    choices: Sequence[T] | Mapping[str, T],
    *,
    default: object = ...,
    ordered: bool = False,
    doc: str = "",
) -> T:
    """One of `choices`: strings, numbers, booleans or None; or the value of a mapping's chosen key, whatever that is.

    `default` (of a mapping: a key) is the first choice where none is given. `ordered` says that they stand in their
    natural order, as [16, 32, 64] do.

    Raises: SpaceError where a choice or the default does not fit, or this trial's value is none of them.
    """
    keys = list(choices)
    if isinstance(choices, str) or not keys:
        _refuse(name, f"choices = {choices!r} is not a list of at least one value; write [{choices!r}]")
    for key in keys:
        if not (key is None or isinstance(key, str | int | float)):
            _refuse(
                name, f"choice {key!r} is no string, number, bool or None; give a mapping such as {{'relu': nn.ReLU}}"
            )
    table: Table = {"type": "ordinal" if ordered else "categorical", "choices": keys}
    index = _position(keys, _draw(name, table, keys[0] if default is ... else default, doc))
    return choices[cast("str", keys[index])] if isinstance(choices, Mapping) else choices[index]


def uniform(
    name: str, low: float, high: float, *, default: float | None = None, step: float | None = None, doc: str = ""
) -> float:
    """A number from `low` to `high`, both included; in steps of `step` from `low` on. Default: the middle.

    Raises: SpaceError where the range or the default does not fit, or this trial's value does not.
    """
    low, high = _range(name, low, high)
    table: Table = {"type": "float", "low": low, "high": high}
    if step is None:
        middle = low + (high - low) / 2
    else:
        table["step"] = float(step)
        middle = low + step * ((high - low) / step // 2) if step > 0 else low
    return float(cast("float", _draw(name, table, _tidy(middle) if default is None else default, doc)))


def loguniform(name: str, low: float, high: float, *, default: float | None = None, doc: str = "") -> float:
    """A number from `low` to `high`, both included and positive, searched on a logarithmic scale. Default: the middle there.

    Raises: SpaceError where the range or the default does not fit, or this trial's value does not.
    """
    low, high = _range(name, low, high)
    if low <= 0:
        _refuse(name, f"low = {low!r} is not positive; a logarithmic range needs low > 0, else take uniform")
    table: Table = {"type": "float", "low": low, "high": high, "log": True}
    middle = _tidy(math.sqrt(low) * math.sqrt(high))
    return float(cast("float", _draw(name, table, middle if default is None else default, doc)))


def integer(
    name: str,
    low: int,
    high: int,
    *,
    default: int | None = None,
    step: int = 1,
    log: bool = False,
    doc: str = "",
) -> int:
    """A whole number from `low` to `high`, both included; in steps of `step` from `low` on. Default: the middle.

    `log` searches on a logarithmic scale, and takes no step.

    Raises: SpaceError where the range or the default does not fit, or this trial's value does not.
    """
    try:
        low, high, step = operator.index(low), operator.index(high), operator.index(step)
    except TypeError:
        _refuse(name, f"low = {low!r}, high = {high!r}, step = {step!r} are not all whole numbers; round them")
    _range(name, low, high)
    if log and low < 1:
        _refuse(name, f"low = {low!r} is below 1; a logarithmic range of whole numbers starts at 1 or above")
    table: Table = {"type": "int", "low": low, "high": high}
    if log:
        table["log"] = True
        middle = round(math.sqrt(low * high))
    else:
        table |= {"step": step} if step != 1 else {}
        middle = low + step * ((high - low) // step // 2) if step > 0 else low
    return int(cast("int", _draw(name, table, middle if default is None else default, doc)))


def boolean(name: str, default: bool = False, *, doc: str = "") -> bool:
    """True or False. Raises: SpaceError where the default or this trial's value is neither."""
    return bool(_draw(name, {"type": "categorical", "choices": [False, True]}, default, doc))


@contextmanager
def collecting() -> Iterator[list[tuple[str, Table]]]:
    """Draws made within are noted as (name, table as in study.toml), and return their defaults."""
    found: list[tuple[str, Table]] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


# --- pieces -----------------------------------------------------------------------------------------------------------


def _draw(name: str, table: Table, default: object, doc: str) -> object:
    """The value of this draw. Called by the public functions alone: their callers' line is two frames up."""
    if not isinstance(name, str) or not name:
        _refuse(name, "is no name; give a non-empty string")
    if (problem := _misfit(table, default)) is not None:
        _refuse(name, f"default = {default!r} {problem}")
    table |= {"default": default} | ({"doc": doc} if doc else {})
    if (found := _collected.get()) is not None:
        found.append((name, table))
        return default
    if path := os.environ.get(FILE_VARIABLE):
        _note(path, name, table)
    if job.current.get() is None and "LLMHPO_PARAMS" not in os.environ:
        return default
    values = _values()
    if name not in values:
        if not path:
            _tell_once(name, default)
        return default
    value = values[name]
    if (problem := _misfit(table, value)) is not None:
        raise SpaceError(
            f"{_place()}: {name!r} = {value!r} of this trial {problem}; let this line and the [space] of study.toml agree"
        )
    return value


def _misfit(table: Table, value: object) -> str | None:
    """Why `value` is not one that `table` describes; None where it is."""
    if "choices" in table:
        choices = cast("list[object]", table["choices"])
        return None if _position(choices, value) >= 0 else f"is none of {', '.join(map(repr, choices))}"
    kind = int if table["type"] == "int" else int | float
    if isinstance(value, bool) or not isinstance(value, kind):
        return "is not a whole number" if table["type"] == "int" else "is not a number"
    low, high = cast("float", table["low"]), cast("float", table["high"])
    return None if low <= value <= high else f"is not between {low!r} and {high!r}"


def _position(choices: Sequence[object], value: object) -> int:
    """Where `value` stands among `choices`, -1 for nowhere; Python holds True and 1 for equal, a space does not."""
    same = (i for i, c in enumerate(choices) if c == value and isinstance(c, bool) == isinstance(value, bool))
    return next(same, -1)


def _range(name: str, low: float, high: float) -> tuple[float, float]:
    try:
        bounds = float(low), float(high)
    except (TypeError, ValueError):
        _refuse(name, f"low = {low!r} and high = {high!r} are not both numbers; give two numbers")
    if not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] <= bounds[1]):
        _refuse(name, f"low = {low!r} and high = {high!r} are not finite and in this order; correct them")
    return bounds


def _tidy(value: float) -> float:
    """0.3 for 0.30000000000000004."""
    return float(f"{value:.12g}")


def _values() -> Mapping[str, object]:
    if job.current.get() is not None:
        return job.params()
    return _from_file(os.environ["LLMHPO_PARAMS"])


@lru_cache(maxsize=1)
def _from_file(path: str) -> Mapping[str, object]:  # noqa: ARG001 - a data loader may draw for every sample
    return job.params()


def _note(path: str, name: str, table: Table) -> None:
    line = json.dumps({"name": name, "table": table, "place": _place()})
    if (path, line) in _told:
        return
    _told.add((path, line))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, (line + "\n").encode())  # one write a line: processes do not tear each other's
    finally:
        os.close(fd)


def _tell_once(name: str, default: object) -> None:
    if ("", name) not in _told:
        _told.add(("", name))
        sys.stderr.write(f"llmhpo: {name!r} is drawn but not tuned in this trial; it is its default, {default!r}\n")


def _place() -> str:
    """The file and line that called this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _refuse(name: object, problem: str) -> NoReturn:
    raise SpaceError(f"{_place()}: draw {name!r}: {problem}")

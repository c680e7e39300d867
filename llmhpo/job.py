"""For training scripts: read the parameters, report on the way, hand in the result. A convenience; plain files do as well.

    from llmhpo import job

    params = job.params()
    for step in range(10):
        job.report(step, loss)
    job.result(loss)

Where the study has a scorer, `job.predictions(...)` for `job.inputs()` takes the place of the result. Started by hand, outside
llmhpo, `report`, `result`, `predictions` and `prune` print. Imports nothing heavy.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, SupportsFloat, SupportsIndex

Number = SupportsFloat | SupportsIndex


@dataclass(slots=True)
class Notes:
    """What a callable in this very process is given and hands in; the executor puts it into `current`."""

    params: dict[str, object]
    seed: int = 0
    reports: list[dict[str, object]] = field(default_factory=list)
    result: object = None
    pruned: str | None = None


current: ContextVar[Notes | None] = ContextVar("llmhpo_job", default=None)


def params() -> dict[str, object]:
    """The active parameters of this trial; empty outside llmhpo. Threads started by an in-process callable see none."""
    if (notes := current.get()) is not None:
        return dict(notes.params)
    path = os.environ.get("LLMHPO_PARAMS")
    if path is None:
        return {}
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    assert isinstance(values, dict), path
    return values


def seed() -> int:
    """The seed of this run, from 0 to 2**31 - 1; 0 outside llmhpo. Seed your generators with it.

    It is the study's own in every trial, unless the study is `noisy`: then each trial has its own, also one that repeats
    a configuration. A confirmation has seeds that the search never used. Commands find it as `{seed}` and LLMHPO_SEED.
    """
    if (notes := current.get()) is not None:
        return notes.seed
    return int(os.environ.get("LLMHPO_SEED", "0"))


def report(step: int, value: Number) -> None:
    """Note the metric at `step`, a count from 0 on. Of equal steps the last one counts.

    Never raises for a bad value: the controller ignores and counts what is not a finite number.
    """
    line: dict[str, object] = {"step": plain(step), "value": plain(value)}
    if isinstance(step, SupportsIndex) and not isinstance(step, bool):
        line["step"] = int(step)
    if (notes := current.get()) is not None:
        notes.reports.append(line)
    elif path := os.environ.get("LLMHPO_REPORT"):
        _write_report(path, (json.dumps(line) + "\n").encode())
    else:
        print(f"step {line['step']}: {line['value']}")


def _write_report(path: str, line: bytes) -> None:
    left = memoryview(line)

    def append() -> None:
        nonlocal left
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while left:  # one write a line: ranks do not tear each other's; where the disk is full, it may stop short
                left = left[os.write(fd, left) :]
        finally:
            os.close(fd)

    _despite_full_disk(append, path)


def _despite_full_disk(write: Callable[[], object], path: str) -> None:
    try:
        write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        from llmhpo.disk import when_there_is_space  # only now: what it imports would delay every job

        when_there_is_space(write, path)


def _write_through(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def result(value: Number | Mapping[str, Number]) -> None:
    """Hand in the metric, or a mapping of metrics by name that holds it. A later call replaces an earlier one. What was handed in
    survives a power cut when this returns.

    Never raises for a bad value: the controller records the trial as invalid and says why.
    """
    ready = plain(value)
    if (notes := current.get()) is not None:
        notes.result = ready
    elif name := os.environ.get("LLMHPO_RESULT"):
        path = Path(name)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        _despite_full_disk(lambda: _write_through(draft, json.dumps(ready) + "\n"), name)
        draft.replace(path)
        if os.name == "posix":
            _sync(path.parent)
    else:
        print(f"result: {ready}")


def split() -> str:
    """The part of the data that this run is scored on: "search", "promotion" or "test"."""
    return os.environ.get("LLMHPO_SPLIT", "search")


def inputs() -> Path | None:
    """The file with the unlabelled inputs that are to be predicted; None outside llmhpo, and where the study names none."""
    path = os.environ.get("LLMHPO_INPUTS")
    return None if path is None else Path(path)


def predictions(values: object) -> None:
    """Hand in the predictions for `inputs()`, an array of shape (n, ...), which the study's scorer compares with the labels.

    Where the study asks for weights, by a `.npz` or `.safetensors` file, a mapping of arrays by name. Tensors of PyTorch will
    do. A later call replaces an earlier one. Needs NumPy; other languages write the file LLMHPO_PREDICTIONS.

    Raises: TypeError for what holds no numbers, and for a mapping where one array is asked for, or the other way round.
    """
    import numpy as np

    several = isinstance(values, Mapping)
    arrays = {str(n): _array(a) for n, a in values.items()} if isinstance(values, Mapping) else {"": _array(values)}
    name = os.environ.get("LLMHPO_PREDICTIONS")
    if name is None or current.get() is not None:
        print("predictions:", ", ".join(f"{n} {a.shape} {a.dtype}".strip() for n, a in arrays.items()))
        return
    path = Path(name)
    if several == (path.suffix == ".npy"):
        wanted = "one array" if several else "a mapping of arrays by name"
        raise TypeError(f"the study asks for {path.name!r}; give job.predictions {wanted}")
    draft = path.with_name(f"{os.getpid()}.{path.name}")
    if path.suffix == ".npy":
        np.save(draft, arrays[""], allow_pickle=False)
    elif path.suffix == ".npz":
        np.savez(draft, **arrays)
    else:
        from safetensors.numpy import save_file

        save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, draft)
    draft.replace(path)


def _array(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"predictions of {array.dtype} are no numbers; give booleans, integers or floats")
    return array


def prune(reason: str = "") -> NoReturn:
    """End this trial here, by `SystemExit`: it is not worth finishing. Recorded as "pruned", its reports are kept.

    A script in another language writes the reason, or nothing, to the file LLMHPO_PRUNED and exits with 0.
    """
    if (notes := current.get()) is not None:
        notes.pruned = reason
    elif name := os.environ.get("LLMHPO_PRUNED"):
        path = Path(name)
        _despite_full_disk(lambda: path.write_text(reason + "\n", encoding="utf-8", errors="replace"), name)
    else:
        print(f"pruned: {reason}")
    raise SystemExit(0)


def is_pruned(error: BaseException) -> bool:
    """Whether an exception is `optuna.TrialPruned`, told without importing Optuna."""
    kinds = type(error).__mro__
    return any(kind.__name__ == "TrialPruned" and kind.__module__.partition(".")[0] == "optuna" for kind in kinds)


def gpu_share() -> float:
    """The share of its GPU that this job may use, 1.0 for all: `torch.cuda.set_per_process_memory_fraction(job.gpu_share())`."""
    return float(os.environ.get("LLMHPO_GPU_SHARE", "1"))


def plain(value: object) -> object:
    """Scalars of NumPy, PyTorch and the like as int or float, also in a mapping; what is no number, as JSON can show it."""
    if isinstance(value, Mapping):
        return {str(name): _scalar(number) for name, number in value.items()}
    return _scalar(value)


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's, which would pass for a number
        return bool(value)
    if isinstance(value, SupportsFloat) and not getattr(value, "ndim", 0):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return repr(value)
    return repr(value)

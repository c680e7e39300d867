"""Reading what a job left behind: its result, its reports, its end. Trusted code; nothing in a job's files is believed.

A result file holds one JSON value: an object with the metric, whose other finite numbers become further metrics, or a
bare number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from llmhpo.errors import ConfigError
from llmhpo.executors.log import clean, read_bounded
from llmhpo.trial import Bounds, Status, Task

MAX_RESULT_BYTES = 1 << 20
MAX_REPORT_BYTES = 8 << 20
MAX_METRICS = 64
MAX_POINTS = 1000
_MAX_NAME = 100
_OUT_OF_MEMORY = re.compile(
    r"^(?:\w+\.)*(?:MemoryError|OutOfMemoryError|\w*_ArrayMemoryError)\b|CUDA(?: error:)? out of memory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory|MPS backend out of memory|std::bad_alloc|RESOURCE_EXHAUSTED: Out of memory"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory|is killed by signal: Killed|^Out of memory",
    re.MULTILINE,
)


class Reading(NamedTuple):
    """A metric and its companions; or, where `value` is None, the problem in one line."""

    value: float | None
    metrics: dict[str, float]
    problem: str = ""


class Verdict(NamedTuple):
    """What is read from what an ended job left: status, the reason in one line, the metric and its companions.

    `fingerprint` and `flags` are as in `Outcome`; `details` is what the user is shown instead of the end of the job's output.
    """

    status: Status
    problem: str = ""
    value: float | None = None
    metrics: Mapping[str, float] = MappingProxyType({})
    fingerprint: str = ""
    flags: tuple[str, ...] = ()
    details: str = ""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a metric pattern; `^` and `$` match at lines. Raises: ConfigError unless it is valid with exactly one group."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"metric_pattern={pattern!r} is not a valid regular expression: {error}") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"metric_pattern={pattern!r} has {compiled.groups} groups; it needs exactly one, around the number, "
            "such as r'val_loss: (\\S+)'; use (?:...) for the others"
        )
    return compiled


def judge_result(path: Path, task: Task, log_path: Path, pattern: re.Pattern[str] | None) -> Verdict:
    """The verdict on a job that ended well and handed in its result itself; see `read_result`."""
    value, metrics, problem = read_result(path, task.metric, log_path, pattern, task.bounds)
    return Verdict("invalid" if value is None else "ok", problem, value, metrics)


def read_companions(path: Path, metric: str) -> dict[str, float]:
    """The finite numbers besides the metric that a result file holds; none where it cannot be read."""
    data, problem = read_bounded(path, MAX_RESULT_BYTES)
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates) if not problem else None
    except (ValueError, RecursionError):
        return {}
    return _companions(raw, metric) if isinstance(raw, Mapping) else {}


def read_result(
    path: Path,
    metric: str,
    log_path: Path | None = None,
    pattern: re.Pattern[str] | None = None,
    bounds: Bounds | None = None,
) -> Reading:
    """Read the metric from the result file; with a `pattern`, from its last match in the log and from nowhere else."""
    if pattern is not None:
        assert log_path is not None
        return _search_log(log_path, metric, pattern, bounds)
    data, problem = read_bounded(path, MAX_RESULT_BYTES)
    where = f"result file {path.name!r}"
    if problem == "is missing":
        remedy = f'write {{"{metric}": number}} to the path in LLMHPO_RESULT, call llmhpo.job.result(number), or set metric_pattern to read what it prints'
        return Reading(None, {}, f"the job ended well but left no result: {remedy}")
    if problem:
        return Reading(None, {}, f"{where} {problem}; write one small JSON object to a plain file")
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        return Reading(None, {}, f'{where} is not JSON ({_short(str(error))}); write {{"{metric}": number}}')
    return check_result(raw, metric, where, bounds)


def check_result(raw: object, metric: str, where: str, bounds: Bounds | None = None) -> Reading:
    """Check a number, or a mapping that holds the metric; `where` names its place in messages."""
    if not isinstance(raw, Mapping):
        return check_result({metric: raw}, metric, where, bounds)
    if metric not in raw:
        found = ", ".join(repr(_short(str(k), 40)) for k in list(raw)[:10]) or "nothing"
        return Reading(None, {}, f"{where} has no metric {metric!r}; it holds {found}: rename one of the two")
    number = _number(raw[metric])
    if number is None:
        return _refuse(raw[metric], metric, where)
    low, high = bounds or (None, None)
    if (low is not None and number < low) or (high is not None and number > high):
        shown = " to ".join("any" if end is None else f"{end:g}" for end in (low, high))
        return Reading(None, {}, f"{where}: {metric} = {number:g} is outside its metric_bounds, {shown}")
    return Reading(number, _companions(raw, metric))


def _companions(raw: Mapping[str, object], metric: str) -> dict[str, float]:
    others = ((k, _number(v)) for k, v in raw.items() if k != metric)
    kept = [
        (k, v) for k, v in others if v is not None and isinstance(k, str) and k.isprintable() and len(k) <= _MAX_NAME
    ]
    return dict(kept[:MAX_METRICS])


def _refuse(value: object, metric: str, where: str) -> Reading:
    kind = (
        "not finite" if isinstance(value, int | float) and not isinstance(value, bool) else f"a {type(value).__name__}"
    )
    return Reading(None, {}, f"{where}: {metric} = {_short(repr(value))} is {kind}; give a finite number")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if any(k == other for other, _ in pairs[:i]))
        raise ValueError(f"key {_short(twice, 40)!r} stands there twice")
    return keys


def _search_log(path: Path, metric: str, pattern: re.Pattern[str], bounds: Bounds | None) -> Reading:
    data, problem = read_bounded(path, 64 << 20)
    if problem:
        return Reading(None, {}, f"the log {path.name!r} {problem}; metric_pattern={pattern.pattern!r} finds nothing")
    last = None
    for last in pattern.finditer(clean(data)):  # noqa: B007 - the last match counts
        pass
    if last is None or last[1] is None:
        cut = " (the middle of a long output is not kept)" if b" bytes left out ...]\n" in data else ""
        return Reading(None, {}, f"metric_pattern={pattern.pattern!r} matches nothing in the output{cut}")
    try:
        number = float(last[1])
    except ValueError:
        return Reading(None, {}, f"metric_pattern={pattern.pattern!r} found {_short(last[1])!r}, which is not a number")
    return check_result(number, metric, "the output", bounds)


def read_reports(path: Path, metric: str) -> tuple[list[tuple[int, float]], str]:
    """Read the learning curve: JSON lines `{"step": int, "value": number}`, or with the metric's name for "value".

    Returns what `read_points` does. A missing file is an empty curve.
    """
    data, problem = read_bounded(path, MAX_REPORT_BYTES)
    if not data:
        return [], "" if problem in ("", "is missing") else f"report file {problem}"
    lines = data.split(b"\n")
    points, note = read_points((_decode(line) for line in lines[: -1 if problem else None] if line.strip()), metric)
    return points, "; ".join(part for part in (note, f"report file {problem}" if problem else "") if part)


def read_points(reports: Iterable[object], metric: str) -> tuple[list[tuple[int, float]], str]:
    """(step, value) pairs by step, of equal steps the later one, at most `MAX_POINTS` of them, evenly thinned.

    The second part is a note on reports that were ignored ("" where none was).
    """
    points: dict[int, float] = {}
    bad = 0
    for raw in reports:
        point = _point(raw, metric)
        if point is None:
            bad += 1
        else:
            points[point[0]] = point[1]
    note = f"{bad} bad reports ignored (a report has an integer step and a finite value)" if bad else ""
    return _thin(sorted(points.items())), note


def _decode(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _point(raw: object, metric: str) -> tuple[int, float] | None:
    if not isinstance(raw, dict):
        return None
    step, value = raw.get("step"), _number(raw.get("value", raw.get(metric)))
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**53 or value is None:
        return None
    return step, value


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= MAX_POINTS:
        return list(points)
    stride = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * stride)] for i in range(MAX_POINTS)]


def ran_out_of_memory(text: str) -> bool:
    """Whether the end of a failed job's output says that memory, the computer's or the device's, ran out."""
    return _OUT_OF_MEMORY.search(text) is not None


def last_line(text: str) -> str:
    """The last line of an output that says something, cut to fit a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(lines[-1], 200) if lines else "it printed nothing"


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."

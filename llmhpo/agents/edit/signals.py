"""What running a revision has shown, in words that help to edit it: traceback, last lines, curve, time, and what they mean.

Everything here was printed or reported by code that the model may have written: it is capped, and it is data. Source: execution
feedback as in Trace, Cheng, Nie and Swaminathan, NeurIPS 2024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from llmhpo.history import one_line, show_number
from llmhpo.prompts import as_data, as_line
from llmhpo.trial import Outcome, Task, Trial

_FRAMES = 4  # of a traceback that lie in the code that may change
_TAIL_LINES = 8
_CHARS = 1600  # of all feedback on one trial
_CURVE_POINTS = 8
_OVERFITTING = 0.25  # of the validation loss, by which the training loss lies below it
_FLAT = 0.01  # of a curve's range, that its last third changes
_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line \d+(?:, in .*)?$')


def feedback(trial: Trial, task: Task, paths: Sequence[str]) -> str:
    """What is worth knowing of a trial that has ended, a few lines, at most 1,600 characters; `paths` are what may change."""
    outcome = trial.outcome
    assert outcome is not None
    parts = [_head(trial, task), *signals(outcome, task)]
    if outcome.curve:
        parts.append(f"reported {as_line(task.metric, 40)}: {_curve(outcome.curve)}")
    if outcome.metrics:
        parts.append(f"metrics: {_numbers(outcome.metrics)}")
    if (trace := traceback(outcome.log_tail, paths)) and outcome.status != "ok":
        parts.append(trace)
    elif outcome.log_tail:
        parts.append("last lines:\n" + "\n".join(outcome.log_tail.splitlines()[-_TAIL_LINES:]))
    return as_data("\n".join(parts), _CHARS)


def _head(trial: Trial, task: Task) -> str:
    assert trial.outcome is not None
    value = "" if trial.value is None else f", {as_line(task.metric, 40)} {show_number(trial.value)}"
    reason = f": {as_line(trial.outcome.message, 300)}" if trial.outcome.message else ""
    took = f"{trial.outcome.status} after {trial.outcome.seconds:.1f} s"
    return f"{took}{value}{reason}\nwith {as_line(one_line(trial.params), 300)}"


def signals(outcome: Outcome, task: Task) -> list[str]:
    """What curve, metrics and time say, each in one line: divergence, plateau, overfitting, a trial near its limit."""
    found = []
    values = np.array([task.loss(value) for _, value in outcome.curve])
    if len(values) >= 4:
        if diverges(values):
            found.append("signal: the training diverges, its metric gets worse towards the end")
        elif plateaus(values):
            found.append("signal: a plateau, the last third of the training changes nothing")
        elif values.argmin() < 0.6 * len(values):
            found.append("signal: the best step comes early, what follows makes it worse")
        elif values[-1] < values[: 2 * len(values) // 3].min():
            found.append("signal: still improving at its end")
    found += _overfitting(outcome, task)
    if task.timeout_s is not None and outcome.seconds > 0.7 * task.timeout_s:
        found.append(f"signal: slow, {outcome.seconds:.0f} of {task.timeout_s:g} s were used")
    if outcome.status == "oom":
        found.append("signal: it needs more memory than there is")
    return found


def diverges(losses: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Whether a curve of losses (n,) ends far above its best, by more than it had gained, or in what is no number."""
    if not math.isfinite(float(losses[-1])):
        return True
    known = losses[np.isfinite(losses)]
    return bool(known[-1] > known[0] and known[-1] - known.min() > known[0] - known.min())


def plateaus(losses: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Whether the last third of a curve of losses (n,) stays within a hundredth of the whole curve's range."""
    last = losses[-max(2, len(losses) // 3) :]
    return bool(np.ptp(last) <= _FLAT * np.ptp(losses))


def _overfitting(outcome: Outcome, task: Task) -> list[str]:
    """The metric on training data, where the job reports it under a name such as train_loss, against the value."""
    if outcome.value is None:
        return []
    stem = re.sub(r"^(validation|valid|val|test|dev|eval)[_/.-]?", "", task.metric)
    names = [f"{word}{sep}{stem}" for word in ("train", "training") for sep in ("_", "/", ".", "-", "")]
    for name in names:
        if (train := outcome.metrics.get(name)) is not None:
            gap = task.loss(outcome.value) - task.loss(train)
            if gap > _OVERFITTING * max(abs(outcome.value), 1e-12):
                return [f"signal: overfitting, {as_line(name, 40)} is {show_number(train)}"]
    return []


def _curve(curve: Sequence[tuple[int, float]]) -> str:
    step = max(1, -(-len(curve) // _CURVE_POINTS))
    points = [*curve[:-1:step], curve[-1]]
    return ", ".join(f"{number}: {show_number(value, 3)}" for number, value in points)


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{as_line(name, 40)} {show_number(value)}" for name, value in list(metrics.items())[:8])


def traceback(log: str, paths: Sequence[str]) -> str:
    """The last traceback of a log: its error, and the last frames that lie in `paths`, or its last frames at all; "" without."""
    start = log.rfind("Traceback (most recent call last)")
    if start < 0:
        return ""
    frames: list[list[str]] = []
    error: list[str] = []
    for line in log[start:].splitlines()[1:]:
        if _FRAME.match(line):
            frames.append([line])
        elif frames and not error and line.startswith("    "):
            frames[-1].append(line)
        elif line.strip() and (not line.startswith(" ") or error):
            error.append(line)
    if not error:
        return ""
    mine = [f for f in frames if any(f[0].partition('", line')[0].endswith(("/" + p, '"' + p)) for p in paths)]
    shown = [line for frame in (mine or frames)[-_FRAMES:] for line in frame]
    return "\n".join(["traceback:", *shown, *error[:6]])

"""What makes the result of edited code suspicious, and what becomes of one that is: pure functions of outcomes.

A suspicious result has no value yet. It is run once more on a fresh seed; the worse of the two values counts, and the flag stays. So
luck and what lives off one seed gain nothing, and an honest edit whose results scatter is not lost. Where the second run gives
no value, the trial is invalid. A protected file that was changed is never forgiven.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmhpo.trial import Context, Outcome, Task

CHANGED = "a protected file was changed"
CONSTANT = "constant predictions"
JUMP = "metric jump"
FAST = "too fast"

_FEW = 4  # values below which nothing is known of their spread
_JUMP_SPREADS = 4.0  # of the known values, beyond the best of them
_FEW_JUMP = 0.5  # with few values: of the magnitude of the best
_FAST_SHARE = 0.2  # of the quickest known trial
_FAST_FLOOR_S = 0.5  # quicker trials than this differ by what the computer does besides
_SEED_MASK = 0x2A5A5A5A  # below 2**30: search seeds stay below it, confirmation seeds above


@dataclass(frozen=True, slots=True)
class Expectations:
    """What is known before a trial runs: values, in the user's units, and seconds of trials that ended well.

    They should be trials of the same split and budget, or as good as those.
    """

    values: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()

    @classmethod
    def of(cls, context: Context) -> Expectations:
        """From the trials of a study that ended well."""
        ended = [(t.value, t.outcome.seconds) for t in context.own if t.value is not None and t.outcome is not None]
        return cls(tuple(value for value, _ in ended), tuple(seconds for _, seconds in ended))


def suspicions(outcome: Outcome, task: Task, known: Expectations) -> tuple[str, ...]:
    """The tripwires that an outcome touches, its own flags among them; none where it has no value and no flag."""
    flags = list(outcome.flags)
    if outcome.value is not None:
        if _jumps(task.loss(outcome.value), [task.loss(value) for value in known.values]):
            flags.append(JUMP)
        if known.seconds and min(known.seconds) > _FAST_FLOOR_S and outcome.seconds < _FAST_SHARE * min(known.seconds):
            flags.append(FAST)
    return tuple(dict.fromkeys(flags))


def needs_rerun(outcome: Outcome, flags: Sequence[str]) -> bool:
    """Whether the outcome is quarantined until the trial has run once more."""
    return outcome.value is not None and bool(flags) and CHANGED not in flags


def condemned(outcome: Outcome, flags: Sequence[str]) -> Outcome:
    """The outcome with its flags; without a value where a protected file was changed."""
    if CHANGED not in flags or outcome.status == "invalid":
        return replace(outcome, flags=tuple(flags))
    reason = "; ".join(part for part in (CHANGED, outcome.message) if part)
    return replace(outcome, status="invalid", value=None, metrics={}, message=reason, flags=tuple(flags))


def settle(first: Outcome, second: Outcome, task: Task, flags: Sequence[str]) -> Outcome:
    """The outcome of a trial that ran twice: the worse of the two, invalid where the second gave no value. Flags stay.

    The fingerprint is the first run's, whose seed other trials may share.
    """
    assert first.value is not None, first
    flags = tuple(dict.fromkeys([*flags, *second.flags]))
    what = f"suspicious ({', '.join(flags)})"
    if second.value is None or CHANGED in flags:
        message = f"{what} and, run once more on another seed, {second.status}: {second.message}"
        return replace(first, status="invalid", value=None, metrics={}, message=message, flags=flags)
    worse = first if task.loss(first.value) >= task.loss(second.value) else second
    note = f"{what}; run once more on another seed: {first.value:g} and {second.value:g}, the worse counts"
    message = "; ".join(part for part in (worse.message, note) if part)
    return replace(worse, message=message, flags=flags, fingerprint=first.fingerprint)


def rerun_seed(seed: int) -> int:
    """Another seed for the same trial, in the same half of the seeds: the search's stay apart from a confirmation's."""
    return seed ^ _SEED_MASK


def _jumps(loss: float, known: list[float]) -> bool:
    """Whether a loss is better than the best known one by far more than the known ones differ."""
    if not known:
        return False
    best = min(known)
    if len(known) < _FEW:
        return best - loss > _FEW_JUMP * abs(best)
    return best - loss > _JUMP_SPREADS * _spread(known, best)


def _spread(known: list[float], best: float) -> float:
    """How far the better half of the known losses lies from the best: failures of training at the other end do not count."""
    half = sorted(known)[: math.ceil(len(known) / 2)]
    return max(statistics.median(half) - best, 1e-3 * abs(best), 1e-12)

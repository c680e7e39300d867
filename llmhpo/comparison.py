"""What running the winner and the default again has shown: means with their intervals, and a verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llmhpo.space import Params
from llmhpo.trial import Task

Verdict = Literal["better", "not distinguishable", "worse"]
LEVEL = 0.95  # of the intervals
SEEDLESS = "all runs of each gave the same value: the job does not use the seed, so that this says nothing of chance"
LEAST_FOR_EDITS = 3  # rounds that an edit is confirmed in


class Interval(NamedTuple):
    """A mean and its two-sided 95 % t-interval; the ends are None for fewer than two values."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Reruns:
    """One configuration run again: `values` by round, None where it failed or has not ended; `failed` counts failures."""

    params: Params
    values: tuple[float | None, ...]
    failed: int

    @property
    def is_alike(self) -> bool:
        """Whether two or more runs ended well, all with the same value."""
        ended = [v for v in self.values if v is not None]
        return len(ended) > 1 and len(set(ended)) == 1

    @property
    def interval(self) -> Interval | None:
        """Mean and interval of the runs that ended well; None without any."""
        return interval([v for v in self.values if v is not None])


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What came of running winner and default again, on the same `seeds`. Values are in the metric's own units.

    `trial` is the number of the trial that the winner is, `code` its revision of the code ("": as the user wrote it). Where that
    was edited, `default` is the unedited code in its best configuration. `default` is None where there is nothing to compare
    with, and `note` says why. `split` is what they were scored on. `self_reported`: the edited code computed the values itself.
    """

    task: Task
    seeds: tuple[int, ...]
    trial: int
    best: Reruns
    default: Reruns | None = None
    note: str = ""
    code: str = ""
    split: str = "search"
    self_reported: bool = False

    @property
    def difference(self) -> Interval | None:
        """Winner minus default, over the rounds in which both ended well; None without any."""
        if self.default is None:
            return None
        pairs = zip(self.best.values, self.default.values, strict=True)
        return interval([a - b for a, b in pairs if a is not None and b is not None])

    @property
    def verdict(self) -> Verdict | None:
        """What the interval of `difference` says of the winner; None where there is no default to compare with.

        Failed runs are in no pair: look at `Reruns.failed` beside it.
        """
        if self.default is None:
            return None
        gap = self.difference
        if gap is None or gap.low is None or gap.high is None:
            return "not distinguishable"
        ends = (self.task.loss(gap.low), self.task.loss(gap.high))
        return "better" if max(ends) < 0 else "worse" if min(ends) > 0 else "not distinguishable"

    @property
    def confirmed(self) -> bool:
        """Whether all runs have ended, and trusted ones show that the winner is better."""
        return not self.objection

    @property
    def objection(self) -> str:
        """Why the winner is not confirmed; "" where it is. A winner that fails on some seeds is not, nor one that measures itself."""
        other = "the code as it stood" if self.code else "the default"
        pairs = 0 if self.default is None else _pairs(self.best.values, self.default.values)
        if self.default is None:
            return self.note
        if not self.complete:
            return "not all runs have ended"
        if self.best.failed:
            return f"{self.best.failed} of its {len(self.seeds)} runs failed"
        if self.verdict == "worse":
            return f"on {self.where} it is worse than {other}"
        if self.verdict != "better":
            return f"on {self.where} it is not distinguishable from {other}"
        if self.code and pairs < LEAST_FOR_EDITS:
            return f"only {pairs} runs of {other} ended well"
        if self.self_reported:
            return "it computed its values itself; have a scorer do that (scorer = ...)"
        if self.code and self.is_seedless:
            return f"{pairs} runs that do not use the seed are one, which chance decides: pass {{seed}} in the command, or read LLMHPO_SEED"
        if self.code and self.best.is_alike:
            return "the edit no longer uses the seed, which the code as it stood does, and may hold a lucky one: let it read LLMHPO_SEED"
        return ""

    @property
    def is_seedless(self) -> bool:
        """Whether every run of each that ended well gave one value: such a job does not depend on the seed, and more runs tell no more."""
        arms = [self.best] if self.default is None else [self.best, self.default]
        return all(arm.is_alike for arm in arms)

    @property
    def where(self) -> str:
        """What the two were compared on, in words."""
        return f"{len(self.seeds)} new seeds" + (f" and the {self.split} split" if self.split != "search" else "")

    @property
    def complete(self) -> bool:
        """Whether all runs have ended."""
        arms = [self.best] if self.default is None else [self.best, self.default]
        return all(sum(v is not None for v in arm.values) + arm.failed == len(self.seeds) for arm in arms)


def _pairs(one: Sequence[float | None], other: Sequence[float | None]) -> int:
    return sum(a is not None and b is not None for a, b in zip(one, other, strict=True))


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % t-interval of independent values; None without any. Of values near the largest of floats its ends may be infinite."""
    from scipy.special import stdtrit

    n = len(values)
    if n == 0:
        return None
    bounded = [max(-sys.float_info.max, min(sys.float_info.max, v)) for v in values]
    if n == 1:
        return Interval(bounded[0], None, None)
    exponent = max(
        math.frexp(v)[1] for v in bounded
    )  # the square of a large value, of a training that diverged, has no float
    scaled = [math.ldexp(v, -exponent) for v in bounded]
    mean = math.fsum(scaled) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in scaled) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * spread / math.sqrt(n)
    return Interval(*(_scaled_up(v, exponent) for v in (mean, mean - half, mean + half)))


def _scaled_up(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)

"""Is the winner better than the default? Both are run again on seeds that the search never used, and compared in pairs.

The runs are recorded in a study of their own, `NAME:confirm` in the storage of the study NAME, and never count as trials
of the search. A confirmation that was killed goes on where it stopped; asked for more rounds, it runs what is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from llmhpo.errors import ConfigError
from llmhpo.events import Confirmed
from llmhpo.executors.base import Executor, Job
from llmhpo.space import Params
from llmhpo.store import Store
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial, confirm_seed

Verdict = Literal["better", "not distinguishable", "worse"]
LEVEL = 0.95
_JOB_NUMBERS = 1_000_000  # numbers of confirming jobs start here: what a job names by {trial} is not overwritten


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
    def interval(self) -> Interval | None:
        """Mean and interval of the runs that ended well; None without any."""
        return interval([v for v in self.values if v is not None])


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What came of running winner and default again, on the same `seeds`. Values are in the metric's own units.

    `trial` is the number of the trial that the winner is. `default` is None where there is nothing to compare with, and
    `note` says why.
    """

    task: Task
    seeds: tuple[int, ...]
    trial: int
    best: Reruns
    default: Reruns | None = None
    note: str = ""

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
    def complete(self) -> bool:
        """Whether all runs have ended."""
        arms = [self.best] if self.default is None else [self.best, self.default]
        return all(sum(v is not None for v in arm.values) + arm.failed == len(self.seeds) for arm in arms)


@dataclass(frozen=True, slots=True)
class Rerun:
    """One run that a confirmation needs: `which` configuration on which seed. `number` is its own, not a trial's."""

    number: int
    which: Literal["best", "default"]
    params: Params
    seed: int
    round: int


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % t-interval of independent values; None without any."""
    from scipy.special import stdtrit

    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def check_rounds(k: object) -> None:
    """Raises: ConfigError where `k` is no whole number from 1 on."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"confirm={k!r} is not a whole number of runs from 1 on; 5 or more tell something")


class Plan:
    """The runs that confirm the winner of `context`, `k` of each configuration, and the study that records them.

    Which of them is a configuration's first, second, ... run follows from their order in `store`, and so does the seed.

    Raises: ConfigError where `k` is no whole number from 1 on, and where no trial has ended well.
    """

    def __init__(self, store: Store, context: Context, k: int) -> None:
        check_rounds(k)
        winner = incumbent(context)
        if winner is None:
            raise ConfigError("there is nothing to confirm: no trial has ended well yet; run the study first")
        self.store, self.k = store, k
        self._context, self._trial = context, winner.number
        self._arms: dict[Literal["best", "default"], Params] = {"best": winner.params}
        self._note = ""
        if not context.space.has_default:
            self._note = "the space declares no default to compare with"
        elif context.space.key(context.space.default()) == context.space.key(winner.params):
            self._note = "the default configuration is the winner"
        else:
            self._arms["default"] = context.space.default()

    @property
    def total(self) -> int:
        """How many runs it takes in all."""
        return self.k * len(self._arms)

    @property
    def done(self) -> int:
        """How many of them have ended."""
        return sum(t.outcome is not None for params in self._arms.values() for t in self._runs(params))

    def _runs(self, params: Params) -> list[Trial]:
        key = self.store.space.key(params)
        return [t for t in self.store.trials if self.store.space.key(t.params) == key][: self.k]

    def next(self, busy: Sequence[int] = ()) -> Rerun | None:
        """The next run that has not ended and is not among the numbers `busy`, committed as begun; None where all are."""
        for round_, (which, params) in itertools.product(range(self.k), self._arms.items()):
            runs = self._runs(params)
            if len(runs) <= round_:
                runs.append(self.store.begin(Proposal(params, which)))
            trial = runs[round_]
            if trial.outcome is None and trial.number not in busy:
                return Rerun(trial.number, which, params, confirm_seed(self._context.seed, round_), round_)
        return None

    def confirmation(self) -> Confirmation:
        """What the runs that have ended say."""
        arms = [self._reruns(params) for params in self._arms.values()]
        seeds = tuple(confirm_seed(self._context.seed, round_) for round_ in range(self.k))
        default = arms[1] if len(arms) > 1 else None
        return Confirmation(self._context.task, seeds, self._trial, arms[0], default, self._note)

    def _reruns(self, params: Params) -> Reruns:
        runs = self._runs(params)
        values = [t.value for t in runs] + [None] * (self.k - len(runs))
        return Reruns(params, tuple(values), sum(t.outcome is not None and t.value is None for t in runs))


def open_plan(storage: str | None, study_name: str, context: Context, k: int) -> Plan:
    """The plan for the study `study_name` as it stands in `context`; close its `store` afterwards.

    Raises: as `Plan` and `Store`.
    """
    store = Store(storage, f"{study_name}:confirm", context.space, context.task, seed=context.seed)
    try:
        return Plan(store, context, k)
    except BaseException:
        store.close()
        raise


def run_plan(plan: Plan, executor: Executor, directory: Path) -> Generator[Confirmed, None, None]:
    """Run what has not ended yet, each in a folder of its own below `directory`.

    KeyboardInterrupt (or closing the generator) ends the running jobs; they are run again by the next session.
    """
    running: dict[Future[Outcome], Rerun] = {}
    clean = False
    try:
        while True:
            while len(running) < executor.workers and (rerun := plan.next([r.number for r in running.values()])):
                running[executor.submit(_job(plan, rerun, directory))] = rerun
            if not running:
                break
            wait(running, return_when=FIRST_COMPLETED)
            yield from _collect(plan, running)
        clean = True
    finally:
        executor.shutdown(kill=not clean)
        _collect(plan, running)  # what had ended when it was interrupted is not run again


def _collect(plan: Plan, running: dict[Future[Outcome], Rerun]) -> list[Confirmed]:
    events = []
    for future in sorted((f for f in running if f.done()), key=lambda f: running[f].number):
        rerun = running.pop(future)
        if not future.cancelled():
            trial = plan.store.finish(rerun.number, future.result())
            events.append(Confirmed(rerun.which, trial, rerun.seed, plan.done, plan.total))
    return events


def _job(plan: Plan, rerun: Rerun, directory: Path) -> Job:
    folder = next(
        path
        for attempt in itertools.count(1)
        if not (path := directory / (f"{rerun.number:05d}" + (f".{attempt}" if attempt > 1 else ""))).exists()
    )
    return Job(_JOB_NUMBERS + rerun.number, rerun.params, plan.store.task, folder, seed=rerun.seed)

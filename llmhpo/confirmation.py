"""Is the winner better than the default? Both are run again on seeds that the search never used, and compared in pairs.

A winner whose code was edited is compared with the code as it stood, in its own best configuration. The runs are recorded in a
study of their own, `NAME:confirm` in the storage of the study NAME, and never count as trials of the search; those on the sealed
test split in `NAME:test`, on seeds of their own. A confirmation that was killed goes on where it stopped; asked for more rounds,
it runs what is missing.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from llmhpo import attempts
from llmhpo.attempts import RETRIES
from llmhpo.errors import ConfigError, StoreError
from llmhpo.events import Confirmed
from llmhpo.executors.base import Executor
from llmhpo.space import Params
from llmhpo.store import Store, load_study
from llmhpo.store.journal import journal_path
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial, confirm_seed

Verdict = Literal["better", "not distinguishable", "worse"]
Which = Literal["best", "default", "baseline"]
Held = Literal["promotion", "test"]  # the splits that the search never sees
LEVEL = 0.95
SEEDLESS = "all runs of each gave the same value: the job does not use the seed, so that this says nothing of chance"
LEAST_FOR_EDITS = 3  # rounds that an edit is confirmed in
FOLDERS: Mapping[Held, str] = {"promotion": "confirm", "test": "test"}  # of the runs, in that of the study
_TEST_ROUNDS = 1 << 20  # the rounds on the test split count from here, which gives them seeds that no promotion had
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
        return ""

    @property
    def is_seedless(self) -> bool:
        """Whether every run of each gave one and the same value: such a job does not depend on the seed, and more runs tell no more."""
        arms = [self.best] if self.default is None else [self.best, self.default]
        return all(len(arm.values) > 1 and None not in arm.values and len(set(arm.values)) == 1 for arm in arms)

    @property
    def where(self) -> str:
        """What the two were compared on, in words."""
        return f"{len(self.seeds)} new seeds" + (f" and the {self.split} split" if self.split != "search" else "")

    @property
    def complete(self) -> bool:
        """Whether all runs have ended."""
        arms = [self.best] if self.default is None else [self.best, self.default]
        return all(sum(v is not None for v in arm.values) + arm.failed == len(self.seeds) for arm in arms)


@dataclass(frozen=True, slots=True)
class Rerun:
    """One run that a confirmation needs: `which` configuration on which seed. `number` is its own, not a trial's."""

    number: int
    which: Which
    params: Params
    seed: int
    round: int
    code: str = ""


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


def check_rounds(k: object) -> None:
    """Raises: ConfigError where `k` is no whole number from 1 on."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"confirm={k!r} is not a whole number of runs from 1 on; 5 or more tell something")


class Arm(NamedTuple):
    """One of the two that are compared: a configuration of a revision of the code."""

    params: Params
    code: str = ""


class Match(NamedTuple):
    """What is compared: the winner, the configuration of each of the two, and why there is nothing to compare with."""

    winner: Trial
    arms: dict[Which, Arm]
    note: str = ""

    def runs(self, which: Which, trials: Sequence[Trial], context: Context) -> list[Trial]:
        """Those of the recorded `trials` that ran an arm, in their order."""
        arm = self.arms[which]
        whole = context.space_of(arm.code).complete  # of an earlier run that lacks what was added since
        return [t for t in trials if t.proposal.code == arm.code and whole(t.params) == arm.params]


def match_of(context: Context) -> Match:
    """The winner of a study and what it is compared with. Raises: ConfigError where no trial has ended well."""
    winner = incumbent(context)
    if winner is None:
        raise ConfigError("there is nothing to confirm: no trial has ended well yet; run the study first")
    best = Arm(context.space_of(winner.proposal.code).complete(winner.params), winner.proposal.code)
    if winner.proposal.code:
        unedited = incumbent(context.within(""))
        if unedited is None:
            return Match(winner, {"best": best}, "no trial of the unedited code has ended well")
        return Match(winner, {"best": best, "baseline": Arm(context.space.complete(unedited.params))})
    if not context.space.has_default:
        return Match(winner, {"best": best}, "the space declares no default to compare with")
    default = Arm(context.space.default())
    if context.space.key(default.params) == context.space.key(best.params):
        return Match(winner, {"best": best}, "the default configuration is the winner")
    return Match(winner, {"best": best, "default": default})


class Plan:
    """The runs that confirm the winner of `context`, `k` of each arm, and the study that records them.

    Which of them is an arm's first, second, ... run follows from their order in `store`, and so does the seed, which is another
    one on the `held` out split "test" than on "promotion".

    Raises: ConfigError where `k` is no whole number from 1 on (from 3 on for edited code), and where no trial has ended well.
    """

    def __init__(self, store: Store, context: Context, k: int, held: Held = "promotion") -> None:
        check_rounds(k)
        self.store, self.k, self.match = store, k, match_of(context)
        self._held, self._context = held, context
        if self.match.winner.proposal.code:
            self._begin_edits(self.match.winner.proposal.code)

    def _begin_edits(self, code: str) -> None:
        """Let the store know the revisions of the winner, and so its space."""
        if self.k < LEAST_FOR_EDITS:
            raise ConfigError(f"confirm={self.k}: an edit of the code is confirmed in {LEAST_FOR_EDITS} runs at least")
        known = {r.id for r in self.store.context().revisions}
        line = tuple(r for r in self._context.lineage(code) if r.id not in known)
        if self._context.baseline is not None:
            self.store.begin_edits(self._context.baseline)
        if line:
            self.store.record(Batch("edit", 0, 0, revisions=line))

    @property
    def total(self) -> int:
        """How many runs it takes in all."""
        return self.k * len(self.match.arms)

    @property
    def done(self) -> int:
        """How many of them have ended."""
        return sum(t.outcome is not None for which in self.match.arms for t in self._runs(which))

    @property
    def open(self) -> list[Trial]:
        """The runs that have begun and not ended."""
        return [t for which in self.match.arms for t in self._runs(which) if t.outcome is None]

    @property
    def earlier(self) -> list[Trial]:
        """Runs of what led when the same was asked before."""
        mine = {t.number for which in self.match.arms for t in self._runs(which)}
        return [t for t in self.store.trials if t.number not in mine]

    def _runs(self, which: Which) -> list[Trial]:
        return self.match.runs(which, self.store.trials, self._context)[: self.k]

    def next(self, busy: Sequence[int] = ()) -> Rerun | None:
        """The next run that has not ended and is not among the numbers `busy`, committed as begun; None where all are."""
        for round_, (which, arm) in itertools.product(range(self.k), self.match.arms.items()):
            runs = self._runs(which)
            if len(runs) <= round_:
                runs.append(self.store.begin(Proposal(arm.params, which, code=arm.code)))
            if runs[round_].outcome is None and runs[round_].number not in busy:
                return self.rerun(runs[round_])
        return None

    def rerun(self, trial: Trial) -> Rerun:
        """The run that a trial of `store` is."""
        which = next(w for w in self.match.arms if trial.number in [t.number for t in self._runs(w)])
        round_ = [t.number for t in self._runs(which)].index(trial.number)
        arm = self.match.arms[which]
        return Rerun(trial.number, which, arm.params, _seed(self._context, self._held, round_), round_, arm.code)

    def confirmation(self, split: str = "search") -> Confirmation:
        """What the runs that have ended, on `split`, say."""
        return _summary(self.match, self.store.trials, self._context, self.k, self._held, split)


def _seed(context: Context, held: Held, round_: int) -> int:
    return confirm_seed(context.seed, (_TEST_ROUNDS if held == "test" else 0) + round_)


def _summary(match: Match, trials: Sequence[Trial], context: Context, k: int, held: Held, split: str) -> Confirmation:
    runs = {which: match.runs(which, trials, context)[:k] for which in match.arms}
    arms = [_reruns(match.arms[which].params, of, k) for which, of in runs.items()]
    return Confirmation(
        context.task,
        tuple(_seed(context, held, round_) for round_ in range(k)),
        match.winner.number,
        arms[0],
        arms[1] if len(arms) > 1 else None,
        match.note,
        match.winner.proposal.code,
        split,
        any(t.outcome is not None and t.outcome.self_reported for t in runs["best"]),
    )


def _reruns(params: Params, runs: Sequence[Trial], k: int) -> Reruns:
    values = [t.value for t in runs] + [None] * (k - len(runs))
    return Reruns(params, tuple(values), sum(t.outcome is not None and t.value is None for t in runs))


def kept_confirmation(
    storage: str, study_name: str, context: Context, held: Held = "promotion", split: str = "search"
) -> Confirmation | None:
    """What the recorded runs say of what leads in `context` now; None where it was not run again. Reads only."""
    try:
        trials = load_study(storage, f"{study_name}:{FOLDERS[held]}").trials
        match = match_of(context)
    except (StoreError, ConfigError):
        return None
    k = max(len(match.runs(which, trials, context)) for which in match.arms)
    return _summary(match, trials, context, k, held, split) if k else None


def open_plan(
    storage: str | None,
    study_name: str,
    context: Context,
    k: int,
    folder: Path | None = None,
    held: Held = "promotion",
) -> Plan:
    """The plan for the study `study_name` as it stands in `context`; close its `store` afterwards.

    `folder` is the confirmation's own, where it has one: its event log lies there.

    Raises: as `Plan` and `Store`.
    """
    name = f"{study_name}:{FOLDERS[held]}"
    log = None if folder is None else journal_path(storage, name, folder)
    grown = tuple(context.steering.params)
    store = Store(storage, name, context.space, context.task, seed=context.seed, log=log, grown=grown)
    try:
        return Plan(store, context, k, held)
    except BaseException:
        store.close()
        raise


def run_plan(
    plan: Plan, executor: Executor, directory: Path, *, retries: int = RETRIES, command: str = "", split: str = "search"
) -> Generator[Confirmed, None, None]:
    """Run what has not ended yet, each in a folder of its own in `directory`/trials; see `Attempts`. `split` is scored on.

    KeyboardInterrupt (or closing the generator) ends the running jobs; they are run again by the next session.
    """
    how = attempts.Reruns(lambda trial: plan.rerun(trial).seed, split, _JOB_NUMBERS)
    launches = attempts.Attempts(
        plan.store, executor, directory / "trials", retries=retries, command=command, reruns=how
    )
    running: dict[Future[Outcome], Trial] = {}
    clean = False
    try:
        recovery = launches.recover(plan.open)
        for trial in recovery.ended:
            yield _confirmed(plan, trial)
        for trial in recovery.again:
            running[launches.launch(trial)] = trial
        while True:
            while len(running) < executor.workers and (rerun := plan.next([t.number for t in running.values()])):
                trial = plan.store.trials[rerun.number]
                running[launches.launch(trial)] = trial
            if not running:
                break
            wait(running, return_when=FIRST_COMPLETED)
            yield from _collect(plan, launches, running)
        clean = True
    finally:
        executor.shutdown(kill=not clean)
        _collect(plan, launches, running, cancelled=True)  # what had ended when it was interrupted is not run again


def _collect(
    plan: Plan, launches: attempts.Attempts, running: dict[Future[Outcome], Trial], *, cancelled: bool = False
) -> list[Confirmed]:
    """Commit what has ended. A run that was `cancelled` stays open; one whose attempt was lost is launched again."""
    events = []
    for future in sorted((f for f in running if f.done()), key=lambda f: running[f].number):
        trial = running.pop(future)
        if future.cancelled():
            plan.store.cancel(trial.number)
            continue
        outcome = launches.final(trial.number, future.result())
        if outcome is not None:
            ended = plan.store.finish(trial.number, outcome)
            launches.clear(trial.number)
            events.append(_confirmed(plan, ended))
        elif not cancelled:
            running[launches.launch(trial)] = trial
    return events


def _confirmed(plan: Plan, trial: Trial) -> Confirmed:
    rerun = plan.rerun(trial)
    return Confirmed(rerun.which, trial, rerun.seed, plan.done, plan.total)

"""Is the winner better than the default? Both are run again on seeds that the search never used, and compared in pairs.

A winner whose code was edited is compared with the code as it stood, in its own best configuration. The runs are recorded in a
study of their own, `NAME:confirm` in the storage of the study NAME, and never count as trials of the search; those on the sealed
test split in `NAME:test`, on seeds of their own. A confirmation that was killed goes on where it stopped; asked for more rounds,
it runs what is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from llmhpo import attempts
from llmhpo.attempts import RETRIES
from llmhpo.comparison import LEAST_FOR_EDITS, Confirmation, Reruns
from llmhpo.errors import ConfigError, StoreError
from llmhpo.events import Confirmed
from llmhpo.executors.base import Executor
from llmhpo.space import Params
from llmhpo.store import Store, load_study
from llmhpo.store.journal import journal_path
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Batch, Context, Outcome, Proposal, Trial, confirm_seed

Which = Literal["best", "default", "baseline"]
Held = Literal["promotion", "test"]  # the splits that the search never sees
FOLDERS: Mapping[Held, str] = {"promotion": "confirm", "test": "test"}  # of the runs, in that of the study
_TEST_ROUNDS = 1 << 20  # the rounds on the test split count from here, which gives them seeds that no promotion had
_JOB_NUMBERS = 1_000_000  # numbers of confirming jobs start here: what a job names by {trial} is not overwritten


@dataclass(frozen=True, slots=True)
class Rerun:
    """One run that a confirmation needs: `which` configuration on which seed. `number` is its own, not a trial's."""

    number: int
    which: Which
    params: Params
    seed: int
    round: int
    code: str = ""


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

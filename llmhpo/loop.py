"""The orchestrator: propose, record, run, record. It yields an event for everything that happens.

Jobs run in the executor, the model is consulted in a thread while they do, and everything else, all writing to the
store included, happens in the thread that drives the generator.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmhpo.agents.base import Search, asked
from llmhpo.aside import Aside
from llmhpo.attempts import RETRIES, Attempts
from llmhpo.events import Consulted, Consulting, Event, Finished, Launched, Opened, Stopped
from llmhpo.executors.base import Executor
from llmhpo.llm.health import health_of, patience_s
from llmhpo.rules import Stop, StopRules, Stopwatch, check
from llmhpo.store import MOST_TOGETHER, Store
from llmhpo.store.wishes import Wishes, take_in
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Batch, Context, Outcome, Trial
from llmhpo.usage import Caps, Usage

_PATIENCE_SHARE = 0.1  # of a trial's usual time: how long a free worker may wait for the model
_PATIENCE_S = (2.0, 60.0)  # but at least and at most so long
_STRANGER_S = 0.5  # at least, for a service that has not answered yet: it may hang, and none that thinks is faster
_UNKNOWN_TRIAL_S = 100.0
_LAST_WORDS_S = 2.0
_LOOK_S = 0.1  # how often a worker that waits for the model looks whether that is still worth while
_LISTEN_S = 0.5  # how often a loop whose workers are all busy looks whether the person wants something
_MANY_FREE = 8  # free workers beyond which trials are begun in groups
_HOPELESS = 5  # so many first trials that fail alike end a session
_HOPELESS_STOP = Stop(
    "hopeless", "the first trials all failed for the same reason; mend it, and run the same command again"
)
_PAUSED = Stop("paused", "as asked; what has ended is kept, and the same command goes on")
_STEERED = Stop("steered", "what was asked for takes a session of its own, which begins now")
_SET_UP = re.compile(
    r"ModuleNotFoundError|ImportError|SyntaxError|IndentationError|No such file or directory|Permission denied"
    r"|unrecognized arguments|arguments are required|left no result|has no metric|matches nothing in the output"
    r"|^the scorer |^predictions: \S+ is missing"
)


class Loop:
    """Runs a study up to `n_trials` trials in all, those of earlier sessions included.

    A session whose first trials all fail with the same message ends early: a missing package is no matter of tuning.

    `directory`, `retries` and `command` (a note on what is run): see `Attempts`. `wishes` is where the person asks for changes
    while it runs.
    """

    def __init__(
        self,
        store: Store,
        portfolio: Search,
        executor: Executor,
        *,
        n_trials: int,
        directory: Path,
        retries: int = RETRIES,
        command: str = "",
        rules: StopRules | None = None,
        wishes: Wishes | None = None,
    ) -> None:
        self.store, self.portfolio, self.executor = store, portfolio, executor
        self._asked_trials, self._wishes = n_trials, wishes
        self._attempts = Attempts(store, executor, directory, retries=retries, command=command)
        self._running: dict[Future[Outcome], Trial] = {}
        self._aside = Aside(portfolio)
        self._consultation: Future[Batch] | None = None
        self._declined: dict[str, Any] | None = None  # that the model is not asked now, and what that hangs on
        self._question = store.open_question()  # asked by a session that was stopped before the answer came
        self._rules = rules or StopRules()
        self._watch = Stopwatch(self._rules.max_wall_s, store.wall_s, store.keep_wall)
        self._names = store.space.names  # that the executor was made for
        self._caps = store.steering.budget.over(Caps())  # as the person had said when the model was last asked
        self._stop: Stop | None = None  # why no more trials are begun, as far as is known now
        self._ended: list[str | None] = []  # of each trial that ended in this session: None if well, else why not
        self._best: Trial | None = None
        self._leaving: Stop | None = None  # no more trials are begun, because the person wants so
        self._leaves_now = False  # and running ones are ended
        self._patience_from: float | None = None  # since when a free worker waits for this consultation
        self._patience_end = float("inf")

    def run(self) -> Generator[Event, None, None]:
        """Run until the budget is spent, or a rule says that the study is over: running jobs then go on to their end.

        KeyboardInterrupt, closing the generator and the end of the wall-clock time end the running jobs; their trials stay open
        in the store and are run again, under the same numbers, by the next session.
        """
        done = sum(t.outcome is not None for t in self.store.trials) - self.store.imported
        ended, orphans = self._attempts.recover([t for t in self.store.trials if t.outcome is None])
        self._take_in()
        start = self._context()
        self._log_session()
        self._best = incumbent(start)
        yield Opened(
            self.store.study_name,
            done,
            len(orphans),
            self.n_trials,
            self._best,
            start.usage,
            start.transfers,
        )
        clean, hopeless = False, False
        try:
            for trial in ended:
                yield Finished(trial, is_best=trial is self._best, best=self._best)
            for trial in orphans if self._watch.stop is None else ():
                self._launch(trial)
                yield Launched(trial)
            if self._running:
                yield from self._maybe_consult()
            while not hopeless and self._watch.stop is None:
                yield from self._fill()
                over = self._stop is not None or self._leaving is not None or self._begun >= self.n_trials
                if clean := not self._running and over:
                    break
                if self._leaving is not None and self._leaves_now:
                    break
                yield from self._collect()
                hopeless = self._is_hopeless()
        finally:
            self._aside.close()
            self.executor.shutdown(kill=not clean)
            self._record_outcomes(cancelled=True)  # what had ended when the run was interrupted is not run again
            if self._consultation is not None and self._consultation.done():
                self.store.record(self._consultation.result())  # paid for
                self._consultation = None
            self._watch.save()
        yield from self._last_words()
        stop = _HOPELESS_STOP if hopeless else self._why(clean=clean)
        self.store.log(
            "stop", {"reason": stop.reason, "trials": self._begun, "budget_left": self._context().budget_left}
        )
        yield Stopped(stop.reason, self._best, self._context().usage, stop.message)

    def _why(self, *, clean: bool) -> Stop:
        """Why a session that was not hopeless is over; it is not `clean` where its time was up."""
        spent = f"all {self.n_trials} trials of n_trials have been run; a larger n_trials goes on"
        late = None if clean else self._watch.stop
        return late or self._leaving or check(self._rules, self._context()) or Stop("budget", spent)

    # --- the person -----------------------------------------------------------------------------------------------------

    @property
    def n_trials(self) -> int:
        """How many trials there are to be in all."""
        return self.store.steering.budget.n_trials or self._asked_trials

    def _take_in(self) -> None:
        """Commit what the person has asked for since we last looked."""
        if self._wishes is None:
            return
        if self._wishes.changed:
            take_in(self.store, self._wishes, consulting=self._consultation is not None)
            self._watch.limit_s = self.store.steering.budget.max_wall_s or self._rules.max_wall_s
        if how := self._wishes.pause(self.store.epoch):
            self._leaving, self._leaves_now = _PAUSED, how == "now"
        elif self.store.space.names != self._names or self._may_ask_again():
            self._leaving = _STEERED

    def _may_ask_again(self) -> bool:
        """Whether the person has given more to spend to a model that is not asked any more in this session."""
        batches, caps = self.store.batches, self.store.steering.budget.over(Caps())
        return caps != self._caps and bool(batches) and batches[-1].fatal

    def _log_session(self) -> None:
        """What a replay must know of this session besides the store."""
        model = self.portfolio.model
        about = None if model is None else {"name": model.name, "compact": model.compact}
        workers, rules = self.executor.workers, asdict(self._rules)
        session = {"n_trials": self.n_trials, "workers": workers, "model": about, "rules": rules}
        edits = self.portfolio.about
        self.store.log("session", session if edits is None else session | {"edits": edits})

    def _is_hopeless(self) -> bool:
        """Whether the trials of this session have all failed for one reason that lies in the set-up, in no configuration."""
        enough = len(self._ended) >= max(_HOPELESS, 2 * self.executor.workers)
        return enough and len(set(self._ended)) == 1 and bool(_SET_UP.search(self._ended[0] or ""))

    # --- launching ----------------------------------------------------------------------------------------------------

    @property
    def _begun(self) -> int:
        return len(self.store.trials) - self.store.imported

    def _context(self) -> Context:
        return self.store.context(max(0, self.n_trials - self._begun))

    def _fill(self) -> Generator[Event, None, None]:
        """Give every free worker a job."""
        self._take_in()
        while len(self._running) < self.executor.workers and self._begun < self.n_trials and not self._leaving:
            context = self._context()
            self._stop = check(self._rules, context)
            if self._stop is not None:
                return
            self._declined = None
            if not self.portfolio.is_default_next(context):
                yield from self._maybe_consult()
                if self._patience_left() > 0:
                    return
            proposals = self.portfolio.suggest(context, self._group(context))
            trials = self._attempts.begin(proposals, context.budget_left, self._declined)
            for trial in trials:
                self._launch(trial)
            for trial in trials:
                yield Launched(trial)
            yield from self._maybe_consult()

    def _group(self, context: Context) -> int:
        """How many trials are begun by one commit: one, unless many workers are free at the same time."""
        free = self.executor.workers - len(self._running)
        if free <= _MANY_FREE or context.baseline is not None or self.portfolio.is_default_next(context):
            return 1
        return min(free, MOST_TOGETHER, self.n_trials - self._begun)

    def _launch(self, trial: Trial) -> None:
        self._running[self._attempts.launch(trial)] = trial

    def _collect(self) -> Generator[Event, None, None]:
        """Wait until a job or the model is done, and record what ended, in the order of trial numbers."""
        pending: set[Future[Any]] = set(self._running)
        if self._consultation is not None:
            pending.add(self._consultation)
        free = len(self._running) < self.executor.workers and self._begun < self.n_trials and self._stop is None
        free = free and self._leaving is None
        self._wait(pending, free=free)
        if self._consultation is not None and self._consultation.done():
            batch = self._consultation.result()
            self._consultation = self._patience_from = None
            self.store.record(batch)
            yield Consulted(batch)
        yield from self._record_outcomes()

    def _wait(self, pending: set[Future[Any]], *, free: bool) -> None:
        """Until something is done, the clock is to be kept, or a `free` worker has waited long enough for the model."""
        end = time.monotonic() + self._watch.save_if_due()
        while (left := end - time.monotonic()) > 0 and not (free and self._patience_left() <= 0):
            look_s = min(_LOOK_S, self._patience_left()) if free else _LISTEN_S
            if wait(pending, timeout=min(left, look_s), return_when=FIRST_COMPLETED).done or self._is_called:
                return

    @property
    def _is_called(self) -> bool:
        """Whether the person has asked for something that was not looked at yet."""
        if self._wishes is None or self._leaves_now:
            return False
        how = self._wishes.pause(self.store.epoch)
        return self._wishes.changed or (how != "" and self._leaving is None) or how == "now"

    def _record_outcomes(self, *, cancelled: bool = False) -> list[Finished]:
        """Commit every outcome there is, in the order of trial numbers, before anybody is told of one.

        A `cancelled` job was ended by us: its trial stays open and is run again. One that was lost is launched again here.
        """
        before, outcomes = self._best, dict[int, Outcome]()
        try:
            for future in sorted((f for f in self._running if f.done()), key=lambda f: self._running[f].number):
                self._sort(future, outcomes, cancelled=cancelled)
        finally:  # a job that could not be launched takes no outcome of another one along
            done = self.store.finish_all(outcomes)
        for trial in done:
            self._attempts.clear(trial.number)
            self._ended.append(None if trial.outcome is None or trial.value is not None else trial.outcome.message)
        if done:
            self._best = incumbent(self._context())
        return [Finished(t, self._is_new_best(t, before), self._best) for t in done]

    def _sort(self, future: Future[Outcome], outcomes: dict[int, Outcome], *, cancelled: bool) -> None:
        """Add the outcome of a job that is done; or launch it again where it was lost."""
        trial = self._running.pop(future)
        if future.cancelled():
            if cancelled:
                self.store.cancel(trial.number)
            return
        outcome = self._attempts.final(trial.number, future.result())
        if outcome is not None:
            outcomes[trial.number] = outcome
        elif not cancelled:
            self._launch(trial)

    def _is_new_best(self, trial: Trial, before: Trial | None) -> bool:
        return self._best is not None and self._best is not before and _is_same(self._best, trial)

    # --- the model ----------------------------------------------------------------------------------------------------

    def _maybe_consult(self) -> Generator[Event, None, None]:
        """Ask the model, in a thread, where it is due and not being asked already."""
        self._declined = None
        if self._consultation is not None:
            return
        resumed, self._question = self._question, None
        context = resumed or self._context()
        n, service = asked(self.portfolio, context)
        if not n and resumed is None:
            self._declined = {"declined": {"service": service}}
        if n:
            self.store.ask(context, n, service)
            self._caps = context.steering.budget.over(Caps())
            self._consultation = self._aside.consult(context)
            yield Consulting(n)

    def _last_words(self) -> Generator[Event, None, None]:
        """The study is over and the model still writes: its bill is waited for, but not for long."""
        if self._consultation is None:
            return
        wait([self._consultation], timeout=self._last_words_s())
        if self._consultation.done():
            batch = self._consultation.result()
        else:
            batch = Batch(
                "unused",
                len(self.store.trials),
                0,
                usage=Usage(calls=1),
                error="the study ended before the model answered",
            )
        self._consultation = None
        self.store.record(batch)
        yield Consulted(batch)

    def _last_words_s(self) -> float:
        """A model that never answered, and that a worker has waited for in vain, hangs for all we know: no second wait."""
        in_vain = self._patience_from is not None and self._patience_left() <= 0
        if in_vain and all(b.error for b in self.store.batches):
            return 0.0
        return min(_LAST_WORDS_S, patience_s(self.portfolio.model))

    def _patience_left(self) -> float:
        """Seconds that a free worker still waits for the model's answer; the first one to be free starts the clock."""
        if self._consultation is None:
            return 0.0
        now = time.monotonic()
        if self._patience_from is None:
            self._patience_from, self._patience_end = now, float("inf")
        end = self._patience_from + _STRANGER_S
        if self._running or self._trial_times or not self._is_stranger:  # else a first trial tells how long they take
            if now < self._patience_end:  # a trial that ends meanwhile may tell that trials are short
                self._patience_end = self._patience_from + self._patience_s()
            end = self._patience_end
        return max(0.0, min(end - now, patience_s(self.portfolio.model)))

    @property
    def _trial_times(self) -> list[float]:
        """Seconds that the study's own trials took."""
        return [t.outcome.seconds for t in self.store.context().own if t.outcome is not None]

    def _patience_s(self) -> float:
        seconds = self._trial_times
        limit = self.store.task.timeout_s
        usual = statistics.median(seconds) if seconds else (_UNKNOWN_TRIAL_S if limit is None else limit / 2)
        answers = [b.seconds for b in self.store.batches if b.proposals]
        low, high = _PATIENCE_S
        if self._is_stranger:
            low = min(low, _STRANGER_S)
        patience = min(high, max(low, _PATIENCE_SHARE * usual))
        # What will most likely not come in time is not waited for: the workers would be idle for nothing.
        return patience if not answers or statistics.median(answers) <= patience else 0.0

    @property
    def _is_stranger(self) -> bool:
        """Whether the model is a service that has never answered: nobody knows yet that it will."""
        return health_of(self.portfolio.model) is not None and not any(b.proposals for b in self.store.batches)


def _is_same(one: Trial, other: Trial) -> bool:
    """Whether both run one configuration of one revision of the code."""
    return one.params == other.params and one.proposal.code == other.proposal.code

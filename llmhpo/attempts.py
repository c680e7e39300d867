"""Attempts at trials: each is committed before it is launched, and what it came to is on the disk before anybody hears of it.

A study's folder gets `trials/00012`, then `trials/00012.2`, one for each attempt, with parameters, result and logs: what an
attempt that was cut off still writes is never taken for another's. `checkpoints/00012` belongs to the trial (LLMHPO_CHECKPOINT_DIR) and
survives attempts. `outcomes/00012.json` holds an outcome until it is committed: trusted code wrote it, the job did not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from llmhpo.disk import when_there_is_space
from llmhpo.errors import ExecutorError
from llmhpo.executors.base import RETRIES as RETRIES
from llmhpo.executors.base import Executor, Job, check_retries
from llmhpo.executors.leftover import TOKEN, end_leftovers
from llmhpo.llm.redact import Redactor
from llmhpo.store import Launch, Store
from llmhpo.store.attributes import without_secrets
from llmhpo.store.ledger import outcome_from_dict
from llmhpo.store.storage import write_durably
from llmhpo.trial import Attempt, Outcome, Proposal, Trial

_log = logging.getLogger("llmhpo")


class Recovery(NamedTuple):
    """What was done with trials that had no outcome: some are `ended` now, the others run `again`."""

    ended: list[Trial]
    again: list[Trial]


class Reruns(NamedTuple):
    """How trials are run that are no search's own: on which seeds and which split, and under numbers from which on."""

    seed_of: Callable[[Trial], int]
    split: str = "search"
    first_number: int = 0


class Attempts:
    """Launches trials of `store` on `executor`, in folders below `directory`'s own.

    A trial whose attempts were cut off, by the death of the controller, of the machine or of the process that watched over the
    job, is launched again `retries` times at most; attempts that we ended ourselves do not count.

    `reruns` says what is another way than in a search.

    Raises: ConfigError where `retries` is no whole number from 0 on.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        directory: Path,
        *,
        retries: int = RETRIES,
        command: str = "",
        reruns: Reruns | None = None,
    ) -> None:
        check_retries(retries)
        self.store, self.executor, self.directory = store, executor, directory
        self._retries, self._command = retries, command
        self._planned = set[int]()  # numbers of trials whose first attempt is committed and not launched yet
        self._reruns = reruns or Reruns(self._seed_of)
        self._redact = Redactor.from_environment()

    def begin(
        self, proposals: Sequence[Proposal], budget_left: int | None, note: Mapping[str, Any] | None = None
    ) -> list[Trial]:
        """Commit trials as running and as about to be launched, together: see `Store.begin_all`."""
        trials = self.store.begin_all(proposals, budget_left, self._plan, note)
        self._planned |= {t.number for t in trials}
        return trials

    def _plan(self, trial: Trial) -> Launch:
        folder = self._free_folder(trial.number).name
        return Launch(folder, self._reruns.seed_of(trial), self._command, self._code_of(trial))

    def launch(self, trial: Trial) -> Future[Outcome]:
        """Launch a trial that has no outcome. The future ends as the executor's does, when its outcome is on the disk."""
        if trial.number in self._planned:
            self._planned.remove(trial.number)
            attempt = self.store.attempts(trial.number)[-1]
        else:
            attempt = self.store.attempt(trial.number, self._plan(trial))
        folder, seed, code = self.directory / attempt.folder, attempt.seed, attempt.code
        checkpoints = self._checkpoints(trial.number)
        try:
            when_there_is_space(
                lambda: checkpoints.mkdir(parents=True, exist_ok=True),
                f"trial {trial.number}: folder {str(checkpoints)!r}",
            )
        except OSError as error:
            raise ExecutorError(f"trial {trial.number}: cannot make {str(checkpoints)!r}: {error.strerror}") from error
        env = {TOKEN: attempt.token, "LLMHPO_CHECKPOINT_DIR": str(checkpoints.absolute())}
        number, split = self._reruns.first_number + trial.number, self._reruns.split
        job = Job(number, trial.params, self.store.task, folder, seed=seed, env=env, code=code, split=split)
        kept: Future[Outcome] = Future()
        self.executor.submit(job).add_done_callback(lambda done: self._settle(done, kept, trial.number, attempt))
        return kept

    def _seed_of(self, trial: Trial) -> int:
        twin = trial.proposal.twin
        return self.store.task.job_seed(self.store.seed, trial.number if twin is None else twin)

    def _code_of(self, trial: Trial) -> str:
        """The revision to run; where code may be edited, the user's own is one too."""
        baseline = self.store.context().baseline
        return trial.proposal.code or ("" if baseline is None else baseline.id)

    def _settle(self, done: Future[Outcome], kept: Future[Outcome], number: int, attempt: Attempt) -> None:
        if done.cancelled():
            kept.cancel()
            kept.set_running_or_notify_cancel()
        elif (error := done.exception()) is not None:
            kept.set_exception(error)
        else:
            outcome = done.result()
            if outcome.lost:
                kept.set_result(outcome)
                return
            record = asdict(without_secrets(replace(outcome, metrics=dict(outcome.metrics)), self._redact))
            try:
                write_durably(self._outcome(number), json.dumps({"token": attempt.token, "outcome": record}))
            except OSError as problem:
                _log.warning("trial %d: its outcome cannot be kept in a file: %s", number, problem.strerror)
            kept.set_result(outcome)

    def final(self, number: int, outcome: Outcome) -> Outcome | None:
        """What `outcome` of the last attempt means for the trial; None where that attempt was lost and it is to be launched again."""
        if not outcome.lost:
            return outcome
        count = sum(not a.cancelled for a in self.store.attempts(number))
        if count > self._retries:
            return replace(outcome, lost=False, message=f"{_given_up(count)}; the last time: {outcome.message}")
        self.store.log("lost", {"number": number, "attempt": count, "message": outcome.message})
        _log.warning("trial %d: attempt %d was lost (%s); it runs again", number, count, outcome.message)
        return None

    def clear(self, number: int) -> None:
        """The trial has ended, and that is committed: remove what was kept for the case that it would not be."""
        with contextlib.suppress(OSError):
            self._outcome(number).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._checkpoints(number).rmdir()  # unless the job has put something there

    def recover(self, orphans: Sequence[Trial]) -> Recovery:
        """Bring trials without an outcome that earlier sessions left to their end, or say which must run again.

        Raises: ExecutorError where processes of an earlier attempt still live and cannot be ended.
        """
        lost = {t.number: [a for a in self.store.attempts(t.number) if not a.cancelled] for t in orphans}
        if left := end_leftovers([a.token for attempts in lost.values() for a in attempts]):
            raise ExecutorError(
                f"processes {sorted(left)} of an earlier session's trials cannot be ended; end them, then run the study again"
            )
        recovery = Recovery([], [])
        for trial in orphans:
            outcome = self._left_outcome(trial.number)
            if outcome is not None:
                self.store.log("adopted", {"number": trial.number})
            elif len(lost[trial.number]) > self._retries:
                outcome = Outcome("failed", message=_given_up(len(lost[trial.number])))
            if outcome is None:
                recovery.again.append(trial)
            else:
                recovery.ended.append(self.store.finish(trial.number, outcome))
                self.clear(trial.number)
        return recovery

    def _left_outcome(self, number: int) -> Outcome | None:
        """The outcome of the last attempt, which had come and was not committed any more."""
        attempts = self.store.attempts(number)
        try:
            raw = json.loads(self._outcome(number).read_text(encoding="utf-8"))
            return outcome_from_dict(raw["outcome"]) if attempts and raw["token"] == attempts[-1].token else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("trial %d: the outcome of its last attempt cannot be read (%s); it runs again", number, error)
            return None

    def _free_folder(self, number: int) -> Path:
        folder = self.directory / f"{number:05d}"
        for attempt in itertools.count(2):
            if not folder.exists():
                break
            folder = self.directory / f"{number:05d}.{attempt}"
        return folder

    def _checkpoints(self, number: int) -> Path:
        return self.directory.with_name("checkpoints") / f"{number:05d}"

    def _outcome(self, number: int) -> Path:
        return self.directory.with_name("outcomes") / f"{number:05d}.json"


def _given_up(attempts: int) -> str:
    return f"given up after {attempts} attempts, each cut off from outside the job (a larger `retries` allows more)"

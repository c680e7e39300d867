"""Trials of edited code: a revision in a folder of its own, in the sandbox, scored from outside, run twice where it is suspicious."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from llmhpo.executors.base import Job
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.pool import WorkerPool
from llmhpo.executors.workspace import Workspace, remove
from llmhpo.scoring.fingerprint import of_losses
from llmhpo.trial import Outcome
from llmhpo.tripwires import CHANGED, Expectations, condemned, needs_rerun, rerun_seed, settle, suspicions

Expect = Callable[[Job], Expectations]


def nothing_known(job: Job) -> Expectations:  # noqa: ARG001 - of whatever job
    """No expectations of any job: only what an outcome shows by itself is suspicious."""
    return Expectations()


class CodeExecutor:
    """Runs jobs of a revision (`Job.code`) with `inner` in the folder that `workspace` lays out, others in the user's tree.

    `inner` has the sandbox and the scorer; without a scorer an edited trial is `self_reported`. `expect` is asked, in the thread
    that submits, what is known before a job runs. A suspicious outcome of edited code (see `tripwires`) is run once more, on
    another seed and from nothing; the trial has one outcome. The lineage notes which revision each job ran.
    """

    def __init__(
        self,
        inner: LocalExecutor,
        workspace: Workspace,
        *,
        expect: Expect = nothing_known,
    ) -> None:
        self._inner, self._workspace, self._expect = inner, workspace, expect
        self._known: dict[Path, Expectations] = {}
        self._pool = WorkerPool(inner.workers, self._run)
        self.workers = inner.workers

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job; see `LocalExecutor.submit`. Its future raises StoreError where its code cannot be laid out."""
        self._known[job.directory] = self._expect(job)
        return self._pool.submit(job)

    def hasten(self, grace_s: float) -> None:
        """See `LocalExecutor.hasten`."""
        self._inner.hasten(grace_s)

    def shutdown(self, *, kill: bool) -> None:
        """See `LocalExecutor.shutdown`."""
        try:
            self._pool.shutdown(kill=kill)
        except BaseException:  # a second Ctrl-C
            self.hasten(0.0)
            raise

    def _run(self, job: Job, slot: int, future: Future[Outcome]) -> Outcome | None:
        known = self._known.pop(job.directory)
        if not job.code:
            outcome = self._inner.run(job, slot, future)
            return None if outcome is None else _marked(outcome)
        if problem := self._workspace.objection(job.code):
            return Outcome("invalid", message=problem, flags=(CHANGED,))
        self._workspace.lineage.note_trial(job.code, job.number)
        first = self._once(job, slot, future)
        if first is None or job.code == self._workspace.baseline:
            return first
        flags = suspicions(first, job.task, known)
        if not needs_rerun(first, flags):
            return condemned(first, flags)
        second = self._once(_again(job), slot, future)
        if second is None or second.lost:  # cut off from outside: all of it is run again
            return second
        return settle(first, second, job.task, flags)

    def _once(self, job: Job, slot: int, future: Future[Outcome]) -> Outcome | None:
        """Run a job's code in a fresh folder; None where it was cancelled."""
        ready = self._workspace.make(job)
        try:
            outcome = self._inner.run(ready, slot, future)
            if outcome is None:
                return None
            says_itself = self._inner.scorer is None and job.code != self._workspace.baseline
            outcome = replace(outcome, sandbox=outcome.sandbox or "none", self_reported=says_itself)
            if changed := self._workspace.changed(ready):
                message = f"{changed[0]!r} is not as it was before the run"
                return condemned(replace(outcome, message=message), (*outcome.flags, CHANGED))
            return _marked(outcome)
        finally:
            self._workspace.discard(ready)


def _again(job: Job) -> Job:
    """The same job on another seed, in a folder of which its first run knew nothing, checkpoints included."""
    folder = job.directory.absolute().with_name(f"{job.directory.name}.again")
    remove(folder)
    env = dict(job.env)
    if "LLMHPO_CHECKPOINT_DIR" in env:
        checkpoints = folder / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        env["LLMHPO_CHECKPOINT_DIR"] = str(checkpoints)
    return replace(job, directory=folder, seed=rerun_seed(job.seed), env=env)


def _marked(outcome: Outcome) -> Outcome:
    """With a fingerprint of its losses, where the scorer gave none of its predictions."""
    if outcome.fingerprint or outcome.value is None:
        return outcome
    return replace(outcome, fingerprint=of_losses([*(loss for _, loss in outcome.curve), outcome.value]))

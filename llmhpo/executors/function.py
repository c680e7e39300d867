"""Jobs as Python callables: in a fresh process each, or in threads of this process."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Unpack

import cloudpickle

from llmhpo import job as jobs
from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError
from llmhpo.executors import child
from llmhpo.executors.base import Job, Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.log import tail
from llmhpo.executors.pool import WorkerPool
from llmhpo.executors.result import Reading, check_result, last_line, ran_out_of_memory, read_points
from llmhpo.executors.settings import LocalSettings
from llmhpo.sandbox.places import importable
from llmhpo.scratch import Scratch
from llmhpo.trial import Outcome, Status, Task

_REASON_CHARS = 200


class FunctionExecutor:
    """Runs `objective(params)` in a fresh Python process a job, with all that `LocalExecutor` gives.

    `params` is a dict of the active parameters; the callable returns the metric, or a mapping that holds it. It is
    pickled once, here: functions of `__main__` and of notebooks by value, those of modules by name, with this process's
    `sys.path`, whose folders a `sandbox` shows it. Later changes to globals are not seen.

    Raises: ConfigError where the callable cannot be pickled.
    """

    def __init__(self, objective: Objective, *, read: Sequence[Path] = (), **settings: Unpack[LocalSettings]) -> None:
        payload = pickled(objective)
        self._scratch = Scratch()
        folder = self._scratch.path
        when_there_is_space(lambda: (folder / "objective.pkl").write_bytes(payload), f"folder {str(folder)!r}")
        words = ["{python}", "-P", child.__file__, str(folder / "objective.pkl")]
        escaped = [words[0], *(word.replace("{", "{{").replace("}", "}}") for word in words[1:])]
        command = CommandTemplate(escaped, None, Path.cwd())
        self._local = LocalExecutor(command, read=[folder, *importable(), *read], **settings)
        self.workers = self._local.workers

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job; see `LocalExecutor.submit`."""
        return self._local.submit(job)

    def hasten(self, grace_s: float) -> None:
        """See `LocalExecutor.hasten`."""
        self._local.hasten(grace_s)

    def shutdown(self, *, kill: bool) -> None:
        """See `LocalExecutor.shutdown`. The pickle is removed."""
        self._local.shutdown(kill=kill)
        self._scratch.remove()


def pickled(objective: Objective) -> bytes:
    """What `child` runs: a line with this process's `sys.path`, then the pickle. Raises: ConfigError where there is none."""
    if not callable(objective):
        raise ConfigError(f"objective={objective!r} is not callable; give a function of one dict of parameters")
    try:
        data = cloudpickle.dumps(objective)
    except Exception as error:
        raise ConfigError(
            f"objective {objective!r} cannot be sent to another process ({type(error).__name__}: {error}); open files, locks "
            "and clients inside it, or run it in this process with InProcessExecutor"
        ) from error
    return json.dumps(sys.path).encode() + b"\n" + bytes(data)


class InProcessExecutor:
    """Runs `objective(params)` in threads of this process: closures, debuggers and fast test functions.

    Nothing is isolated: a crash takes the controller along, output is not captured, and a running call cannot be ended.
    With `shutdown(kill=True)` its future is cancelled and the thread is left to itself.
    """

    def __init__(self, objective: Objective, *, workers: int = 1) -> None:
        if not callable(objective):
            raise ConfigError(f"objective={objective!r} is not callable; give a function of one dict of parameters")
        self._objective = objective
        self._pool = WorkerPool(workers, self._run)
        self.workers = workers

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. Raises: ConfigError for a task with a time limit, ExecutorError after `shutdown`."""
        if job.task.timeout_s is not None:
            raise ConfigError(
                f"timeout_s={job.task.timeout_s!r} cannot be kept in this process, where a call cannot be ended; "
                "use an isolated executor, or no time limit"
            )
        return self._pool.submit(job)

    def shutdown(self, *, kill: bool) -> None:
        """Wait for the running calls, or (`kill`) cancel their futures and do not wait."""
        self._pool.shutdown(kill=kill, wait=not kill)

    def _run(self, job: Job, slot: int, future: Future[Outcome]) -> Outcome:  # noqa: ARG002 - no devices, no kill
        notes = jobs.Notes(dict(job.params), job.seed)
        token = jobs.current.set(notes)
        start = time.monotonic()
        try:
            value = self._objective(dict(job.params))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            curve, _ = read_points(notes.reports, job.task.metric)
            reason = str(error) if jobs.is_pruned(error) else notes.pruned
            if reason is not None:
                return Outcome("pruned", None, time.monotonic() - start, {}, tuple(curve), reason[:_REASON_CHARS])
            text = tail(traceback.format_exc().encode(errors="replace"))
            status: Status = "oom" if ran_out_of_memory(text) else "failed"
            return Outcome(status, None, time.monotonic() - start, {}, tuple(curve), last_line(text), text)
        finally:
            jobs.current.reset(token)
        seconds = time.monotonic() - start
        reading = _read(value, notes, job.task)
        curve, note = read_points(notes.reports, job.task.metric)
        message = "; ".join(part for part in (reading.problem, note) if part)
        end: Status = "invalid" if reading.value is None else "ok"
        return Outcome(end, reading.value, seconds, reading.metrics, tuple(curve), message)


def _read(value: object, notes: jobs.Notes, task: Task) -> Reading:
    if value is None and notes.result is None:
        return Reading(
            None, {}, f"the objective returned None; return the number {task.metric!r}, or a mapping that holds it"
        )
    return check_result(notes.result if value is None else jobs.plain(value), task.metric, "the result", task.bounds)

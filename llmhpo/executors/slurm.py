"""Jobs on a Slurm cluster, by submitit: each a Slurm job that runs `LocalExecutor` on its node, in folders that all share."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack

from llmhpo.errors import ConfigError, ExecutorError, MissingExtraError
from llmhpo.executors import child
from llmhpo.executors.base import Job, Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.function import pickled
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.pool import cancel
from llmhpo.executors.ray_session import without_keys
from llmhpo.executors.resources import Resources
from llmhpo.executors.settings import NodeSettings, complete
from llmhpo.trial import Outcome

_SPARE_S = 300.0  # what Slurm's limit leaves to a job beyond the trial's own
_PERIOD_S = {"slurm": 1.0, "local": 0.05}
_SETTLE_S = 10.0  # a network file system may show a result so much later than Slurm the end


@dataclass(slots=True)
class _Flight:
    """A job on its way; `remote` is submitit's, None while it is queued here."""

    job: Job
    future: Future[Outcome]
    remote: Any = None
    is_cancelled: bool = False
    done_since: float | None = None


class SlurmExecutor:
    """Runs a command or a callable as Slurm jobs, `workers` at a time, by submitit.

    The study's folder and `folder`, where submitit keeps its files, must lie where every node sees them under the same
    path; nothing is copied. Jobs have the environment of this process without API keys. A job whose node fails or is
    taken away has an outcome that says `lost`. `parameters` are submitit's own (`slurm_partition`,
    `slurm_account`, `timeout_min`, ...); without `timeout_min` Slurm's limit is the trial's and five minutes.
    `cluster="local"` runs the jobs on this machine, as a rehearsal.

    `settings` are arguments of `LocalExecutor`, and mean the same on the node. Raises: ConfigError, MissingExtraError.
    """

    def __init__(
        self,
        work: CommandTemplate | Objective,
        *,
        folder: Path,
        workers: int = 1,
        resources: Mapping[str, float] | None = None,
        parameters: Mapping[str, object] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
        **settings: Unpack[NodeSettings],
    ) -> None:
        self._folder = folder.absolute()
        self._settings = complete(settings)
        self.workers, self._grace_s = workers, self._settings["grace_s"]
        self._parameters = dict(parameters or {})
        self._submitit = _open(self._folder, cluster, Resources.of(resources), self._parameters)
        self._command = work if isinstance(work, CommandTemplate) else _write(work, self._folder)
        LocalExecutor(self._command, workers=workers, **self._settings)  # its checks of the settings
        self._period_s = _PERIOD_S[cluster]
        self._lock = threading.Lock()
        self._is_closed = False
        self._queue: deque[_Flight] = deque()
        self._running: list[_Flight] = []
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="llmhpo-slurm", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. Its future raises ExecutorError where it cannot be launched at all.

        Raises: ExecutorError after `shutdown`; ConfigError where neither the task nor `timeout_min` limits its time.
        """
        if job.task.timeout_s is None and "timeout_min" not in self._parameters:
            raise ConfigError("Slurm ends every job at a limit; give timeout_s, or slurm = {timeout_min = ...}")
        future: Future[Outcome] = Future()
        with self._lock:
            if self._is_closed:
                raise ExecutorError(f"trial {job.number} was submitted after shutdown; make a new executor")
            self._queue.append(_Flight(job, future))
        self._wake.set()
        return future

    def shutdown(self, *, kill: bool) -> None:
        """Wait for the running jobs, or (`kill`) cancel them in Slurm; queued jobs are cancelled. May be called again."""
        with self._lock:
            self._is_closed = True
            flights = [*self._queue, *(self._running if kill else ())]
        for flight in flights:
            flight.future.cancel()
        self._wake.set()
        self._thread.join()

    # --- in the watching thread -----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with self._lock:
                if self._is_closed and not self._running and not self._queue:
                    return
                while self._queue and (self._queue[0].future.cancelled() or len(self._running) < self.workers):
                    self._running.append(self._queue.popleft())
            for flight in tuple(self._running):
                try:
                    ended = self._step(flight)
                except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                    ended = True
                    if not flight.future.cancelled():
                        flight.future.set_exception(_explained(error, flight.job.number))
                if ended:
                    if flight.future.cancelled():
                        cancel(flight.future)
                    with self._lock:
                        self._running.remove(flight)
            with self._lock:
                is_idle = not (self._running or self._queue or self._is_closed)
            self._wake.wait(None if is_idle else self._period_s)
            self._wake.clear()

    def _step(self, flight: _Flight) -> bool:
        """Take one flight further. Returns whether it has landed."""
        if flight.remote is None:
            if flight.future.cancelled():
                return True
            self._launch(flight)
        if flight.future.cancelled() and not flight.is_cancelled:
            flight.is_cancelled = True
            flight.remote.cancel(check=False)
        if not flight.remote.done():
            return False
        has_result = flight.remote.paths.result_pickle.exists()
        if flight.future.cancelled():
            return True
        flight.done_since = flight.done_since or time.monotonic()
        if not has_result and self._period_s >= 1 and time.monotonic() - flight.done_since < _SETTLE_S:
            return False
        end = flight.remote.result() if has_result else _judge(str(flight.remote.state).partition(" ")[0])
        with suppress(InvalidStateError):  # cancelled just now
            flight.future.set_result(end)
        return True

    def _launch(self, flight: _Flight) -> None:
        limit = flight.job.task.timeout_s
        if limit is not None and "timeout_min" not in self._parameters:
            self._submitit.update_parameters(timeout_min=math.ceil((limit + self._grace_s + _SPARE_S) / 60))
        with without_keys():  # sbatch and the rehearsal hand their environment on
            flight.remote = self._submitit.submit(run_here, self._command, flight.job, self._settings)


def run_here(command: CommandTemplate, job: Job, settings: Mapping[str, Any]) -> Outcome:
    """On the node: run one job. SIGTERM and SIGINT, which is how Slurm and the rehearsal cancel, end its whole tree."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    executor = LocalExecutor(command, **settings)
    try:
        future = executor.submit(job)
        while not future.done():
            wait([future], timeout=0.5)  # a thread that waits for ever would not hear the signal
        return future.result()
    finally:
        executor.shutdown(kill=True)


def _judge(state: str) -> Outcome:
    """The outcome of a Slurm job that ended in this state and left no result."""
    if state == "OUT_OF_MEMORY":
        return Outcome("oom", message="ended by Slurm: out of memory; ask for more by resources = {memory_gb = ...}")
    if state == "TIMEOUT":
        return Outcome("timeout", message="ended by Slurm at its own time limit; raise timeout_min")
    if state == "CANCELLED":
        return Outcome("failed", message="its Slurm job was cancelled from outside")
    return Outcome("failed", message=f"its Slurm job ended as {state} without a result", lost=True)


def _open(folder: Path, cluster: str, asked: Resources, parameters: Mapping[str, object]) -> Any:
    try:
        import submitit
    except ImportError:
        raise MissingExtraError("executor='slurm'", "submitit", "slurm") from None
    if cluster not in _PERIOD_S:
        raise ConfigError(f"cluster={cluster!r} is neither 'slurm' nor 'local'")
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError("executor='slurm': there is no sbatch on PATH; run llmhpo on a login node of the cluster")
    if asked.others or asked.gpus != int(asked.gpus) or asked.cpus != int(asked.cpus):
        raise ConfigError(
            f"resources of a Slurm job are whole cpus and gpus, and memory_gb; not {dict(asked.others) or asked}"
        )
    logging.getLogger("submitit").setLevel(logging.WARNING)
    executor = submitit.AutoExecutor(folder=folder / "submitit", cluster=cluster)
    settings: dict[str, object] = {
        "name": "llmhpo",
        "cpus_per_task": int(asked.cpus) or 1,
        "gpus_per_node": int(asked.gpus),
    }
    if asked.memory_gb is not None:
        settings["mem_gb"] = asked.memory_gb
    try:
        executor.update_parameters(**{**settings, **parameters})
    except (NameError, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"slurm={dict(parameters)!r}: {str(error).splitlines()[0]}") from None
    return executor


def _write(objective: Objective, folder: Path) -> CommandTemplate:
    file = folder / "objective.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_bytes(pickled(objective))
    draft.replace(file)
    words = ["{python}", "-P", child.__file__, str(file)]
    return CommandTemplate([words[0], *(w.replace("{", "{{").replace("}", "}}") for w in words[1:])], None, Path.cwd())


def _explained(error: Exception, number: int) -> ExecutorError:
    lines = [line for line in str(error).strip().splitlines() if line.strip("- ")] or [type(error).__name__]
    said = next((line for line in reversed(lines) if "Error: " in line), lines[0])
    return ExecutorError(f"trial {number} cannot be run by Slurm: {said}")

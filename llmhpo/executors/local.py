"""Jobs as processes on this machine: a fresh process tree each, limits, a device slot, a bounded log."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from llmhpo.disk import FULL, is_full, when_there_is_space
from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.devices import share_devices
from llmhpo.executors.fenced import fenced, own_folders, sparing
from llmhpo.executors.limits import Limits
from llmhpo.executors.log import clean, read_bounded, tail
from llmhpo.executors.pool import WorkerPool
from llmhpo.executors.process import End, Supervised
from llmhpo.executors.result import (
    Verdict,
    compile_pattern,
    judge_result,
    last_line,
    ran_out_of_memory,
    read_companions,
    read_reports,
)
from llmhpo.executors.scorer import Scorer
from llmhpo.llm.redact import is_secret
from llmhpo.sandbox.base import Sandbox, label
from llmhpo.sandbox.hints import hint
from llmhpo.sandbox.places import allowed
from llmhpo.trial import Outcome, Status

PARAMS_FILE, RESULT_FILE, REPORT_FILE, LOG_FILE = "params.json", "result.json", "report.jsonl", "output.log"
PRUNED_FILE = "pruned.txt"
_NO_SPACE = os.strerror(errno.ENOSPC)  # as programs of all languages print it
_STOP_NEWS_S = 1.0  # a signal to all processes reaches the job before this process has cancelled it


class LocalExecutor:
    """Runs a command once a job, `workers` jobs at a time.

    A job finds its parameters by command line, in `params.json` and by `llmhpo.job`, and hands its metric in by
    `result.json`, or, with `metric_pattern`, by printing it. It runs in the command's folder with nothing on standard
    input. When its main process ends, whatever it left running is ended too. `Outcome.seconds` is the wall-clock time of
    the main process.

    `gpus` holds one entry a worker, put into CUDA_VISIBLE_DEVICES ("0", or "0,1"); with `gpus_per_trial`, each GPU once,
    to be divided (0.5) or bundled (2), see `share_devices`. `limits` bound a job's memory, CPU time, processes, output and
    disk space, see `Limits`. `grace_s` lies between SIGTERM and SIGKILL. `env` is added to the environment of the job, which is this process's
    without API keys; `pass_env` names keys that the job needs all the same (such as "WANDB_API_KEY"). Of the output,
    the first and the last half of `log_limit` bytes are kept.

    With a `sandbox` a job sees the system, its Python environment, the folder it runs in, `read` and what it names itself (see
    `Job`), may write into its own folder and `write` alone, and has no network. Of this process's environment it has what steers
    interpreters and numerical libraries, `pass_env` and `env`. Limits that are not given are then those of `Limits.bounded`.

    With a `scorer` the metric is what that says of the job's predictions; the job's own result counts for other metrics only.

    Cancelling a future, also of a running job, ends the job. A cancelled job has no outcome.

    Raises: ConfigError.
    """

    def __init__(
        self,
        command: CommandTemplate,
        *,
        workers: int = 1,
        gpus: Sequence[str] | None = None,
        gpus_per_trial: float | None = None,
        limits: Limits | None = None,
        metric_pattern: str | None = None,
        grace_s: float = 5.0,
        env: Mapping[str, str] | None = None,
        pass_env: Sequence[str] = (),
        log_limit: int = 1 << 20,
        sandbox: Sandbox | None = None,
        read: Sequence[Path] = (),
        write: Sequence[Path] = (),
        scorer: Scorer | None = None,
    ) -> None:
        self._pool = WorkerPool(workers, self.run)
        self._sandbox, self._read, self._write = sandbox, tuple(read), tuple(write)
        self.workers = workers
        self._devices = share_devices(gpus, gpus_per_trial, workers)
        self._limits = (limits or Limits()) if sandbox is None else (limits or Limits()).bounded()
        self._spares_disk = sandbox is not None and (limits is None or limits.disk_mb is None)
        self._running: set[Supervised] = set()
        self._command = command
        self._pattern = None if metric_pattern is None else compile_pattern(metric_pattern)
        if not 0 <= grace_s < float("inf"):
            raise ConfigError(f"grace_s={grace_s!r} is not a finite number of seconds from 0 on")
        if log_limit < 1024:
            raise ConfigError(f"log_limit={log_limit!r} is below 1024 bytes")
        self._grace_s = grace_s
        self._log_limit = log_limit
        self.scorer = scorer
        passed = os.environ if sandbox is None else allowed(os.environ)
        self._env = {k: v for k, v in passed.items() if not is_secret(k)}
        self._env |= {k: v for k, v in os.environ.items() if k in pass_env} | dict(env or {})
        self._env.setdefault("PYTHONUNBUFFERED", "1")  # or a job that is killed takes its last words with it
        self._env.setdefault("PYTHONFAULTHANDLER", "1")

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. Its future raises ExecutorError where it cannot be launched at all.

        Raises: ExecutorError after `shutdown`.
        """
        return self._pool.submit(job)

    def shutdown(self, *, kill: bool) -> None:
        """Wait for the running jobs, or (`kill`) end their process trees: SIGTERM, the grace, SIGKILL.

        Futures of queued and of killed jobs are cancelled: such a trial has no outcome and may be run again.
        """
        try:
            self._pool.shutdown(kill=kill)
        except BaseException:  # a second Ctrl-C
            self.hasten(0.0)
            raise

    def hasten(self, grace_s: float) -> None:
        """Leave jobs that are ended, now or later, at most so much time between SIGTERM and SIGKILL."""
        self._grace_s = min(self._grace_s, grace_s)
        for process in tuple(self._running):
            process.hasten(grace_s)

    def run(self, job: Job, slot: int, future: Future[Outcome]) -> Outcome | None:
        """Run a job in this thread, on the devices of `slot`; None where `future` was cancelled, which ends it.

        Raises: ExecutorError where it cannot be launched.
        """
        job = replace(job, read=(*job.read, *self._read), write=(*job.write, *self._write))
        job = job if self.scorer is None else self.scorer.prepared(job)
        folder = job.directory.absolute()
        command = self._command if job.tree is None else self._command.moved(job.tree)
        argv = command.render(
            job.params,
            trial=job.number,
            seed=job.seed,
            params_file=folder / PARAMS_FILE,
            result_file=folder / RESULT_FILE,
            report_file=folder / REPORT_FILE,
        )
        if not prepare(folder, job, future.cancelled, () if self.scorer is None else (self.scorer.scoring.file,)):
            return None
        limits = sparing(self._limits, job, self.workers) if self._spares_disk else self._limits
        process = self._start(job, argv, command.cwd, self._job_env(job, folder, slot), limits)
        kills = oom_kills()
        self._running.add(process)
        over = threading.Event()
        future.add_done_callback(lambda _: process.cancel())
        future.add_done_callback(lambda _: over.set())
        try:
            end = process.wait()
        finally:
            self._running.discard(process)
        if end.cause == "cancelled" or end.code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            over.wait(_STOP_NEWS_S)
            if future.cancelled():
                return None
        return self._judge(job, folder, future, end, oom_kills() - kills if kills >= 0 else 1, limits)

    def _start(self, job: Job, argv: list[str], cwd: Path, env: dict[str, str], limits: Limits) -> Supervised:
        ready = None
        if self._sandbox is not None:
            ready = fenced(self._sandbox, argv, env, job, cwd=cwd, limits=limits)
        return Supervised(
            ready.argv if ready else argv,
            cwd=cwd,
            env=ready.env if ready else env,
            log=job.directory.absolute() / LOG_FILE,
            log_limit=self._log_limit,
            timeout_s=job.task.timeout_s,
            grace_s=self._grace_s,
            limits=limits,
            folders=ready.folders if ready else own_folders(job),
            fence=ready.fence if ready else None,
        )

    def _job_env(self, job: Job, folder: Path, slot: int) -> dict[str, str]:
        env = self._env | dict(job.env)
        if self._devices is not None:
            env |= self._devices.variables(slot, env)
        return env | {
            "LLMHPO_DIR": str(folder),
            "LLMHPO_PARAMS": str(folder / PARAMS_FILE),
            "LLMHPO_RESULT": str(folder / RESULT_FILE),
            "LLMHPO_REPORT": str(folder / REPORT_FILE),
            "LLMHPO_PRUNED": str(folder / PRUNED_FILE),
            "LLMHPO_TRIAL": str(job.number),
            "LLMHPO_SEED": str(job.seed),
        }

    def _judge(
        self, job: Job, folder: Path, future: Future[Outcome], end: End, oom_kills: int, limits: Limits
    ) -> Outcome | None:
        """The whole tree is dead: nothing that is read here can change any more; where it is not, nothing is scored."""
        if self._sandbox is not None and end.code > 128:  # so does its monitor tell of a signal
            end = end._replace(code=128 - end.code)
        log, _ = read_bounded(folder / LOG_FILE, 2 * self._log_limit)
        text = tail(log)
        curve, note = read_reports(folder / REPORT_FILE, job.task.metric)
        lost = _is_lost(end, oom_kills)
        verdict = Verdict(*_status(end, text, job.task.timeout_s, limits, lost))
        failed_itself = verdict.status == "failed" and end.cause == "exited" and end.code > 0
        if failed_itself and self._sandbox is not None and (known := hint(text)):
            verdict = verdict._replace(problem=f"{verdict.problem}; {known}")
        pruned, missing = read_bounded(folder / PRUNED_FILE, 1000)
        if verdict.status == "ok" and missing != "is missing":
            verdict = Verdict("pruned", last_line(clean(pruned)) if pruned.strip() else "")
        if verdict.status == "ok" and self.scorer is not None and end.survivors:
            verdict = Verdict("invalid", "what it wrote may still change and is not scored")
        elif verdict.status == "ok" and self.scorer is not None:
            verdict = self.scorer.score(job, future)
            if future.cancelled():
                return None
            own = read_companions(folder / RESULT_FILE, job.task.metric)
            verdict = verdict._replace(metrics=own | dict(verdict.metrics))
        elif verdict.status == "ok":
            verdict = judge_result(folder / RESULT_FILE, job.task, folder / LOG_FILE, self._pattern)
        says_so = self._sandbox is None and _NO_SPACE in text  # a sandbox is a small disk of its own
        if verdict.status in ("failed", "invalid") and (says_so or end.was_full or is_full(folder)):
            lost, verdict = True, verdict._replace(problem=f"the disk was full; {verdict.problem}")
        if end.survivors:
            note = f"{note}; " * bool(note) + f"{end.survivors} of its processes could not be killed"
        return Outcome(
            verdict.status,
            value=verdict.value,
            seconds=end.seconds,
            metrics=verdict.metrics,
            curve=tuple(curve),
            message="; ".join(part for part in (verdict.problem, note) if part),
            log_tail=verdict.details or text,
            lost=lost,
            fingerprint=verdict.fingerprint,
            flags=verdict.flags,
            sandbox="" if self._sandbox is None else label(self._sandbox),
        )


def prepare(folder: Path, job: Job, is_over: Callable[[], bool] = lambda: False, others: Sequence[str] = ()) -> bool:
    """Write the parameters; remove what an earlier, interrupted run of the same trial left, files named `others` too.

    A full disk is waited out.

    False where it was full until `is_over` said that nobody needs it any more. Raises: ExecutorError.
    """

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULT_FILE, REPORT_FILE, LOG_FILE, PARAMS_FILE, PRUNED_FILE, *others):
            (folder / name).unlink(missing_ok=True)
        (folder / PARAMS_FILE).write_text(json.dumps(job.params) + "\n", encoding="utf-8")
        if is_full(folder):  # the job would fail for want of space
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        when_there_is_space(write, f"trial {job.number}: folder {str(folder)!r}", is_over=is_over)
    except OSError as error:
        if error.errno in FULL:
            return False
        raise ExecutorError(f"trial {job.number}: cannot prepare {str(folder)!r}: {error}") from error
    return True


def oom_kills() -> int:
    """How many processes the kernel of this machine has killed for want of memory since it started; -1 where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return -1
    return -1 if found is None else int(found[1])


def _is_lost(end: End, oom_kills: int) -> bool:
    """Whether this attempt was cut off from outside, as far as can be told, while the kernel killed so many for want of memory.

    Who sent a SIGKILL the kernel does not tell: one that neither we nor the out-of-memory killer sent counts as lost, though the job
    may have sent it itself. Such a job is cut off again, and so fails after its `retries`.
    """
    by_sigkill = end.cause == "exited" and end.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    return end.cause == "lost" or (by_sigkill and not oom_kills)


def _status(end: End, text: str, timeout_s: float | None, limits: Limits, lost: bool) -> tuple[Status, str]:
    """What the end of the process says; "ok" still needs a result."""
    match end:
        case End("timeout"):
            return "timeout", f"not done within {timeout_s:g} s; ended with all its processes"
        case End("lost"):
            return "failed", "the process that watched over the job was killed, by the job itself or from outside"
        case End("cancelled"):
            return "failed", "a SIGTERM or SIGINT from outside ended the job"
        case End("exited", 0):
            return "ok", ""
        case End(cause, figure=figure) if cause != "exited":
            return limits.judge(cause, figure)
    if end.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        if lost:
            return "failed", "killed by SIGKILL, which neither llmhpo nor the kernel for want of memory has sent"
        seen = f" (its processes had {end.peak / 1e9:.3g} GB when last looked at)" if end.peak else ""
        return "oom", f"killed by SIGKILL, which llmhpo did not send: most likely the computer ran out of memory{seen}"
    what = f"killed by {_signal_name(-end.code)}" if end.code < 0 else f"exit code {end.code}"
    return "oom" if ran_out_of_memory(text) else "failed", f"{what}: {last_line(text)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""Jobs as processes on this machine: a fresh process tree each, a time limit, a device slot, a bounded log."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.log import read_bounded, tail
from llmhpo.executors.pool import WorkerPool
from llmhpo.executors.process import End, Supervised
from llmhpo.executors.result import compile_pattern, last_line, ran_out_of_memory, read_reports, read_result
from llmhpo.trial import Outcome, Status

PARAMS_FILE, RESULT_FILE, REPORT_FILE, LOG_FILE = "params.json", "result.json", "report.jsonl", "output.log"
_PROVIDERS = (
    "ANTHROPIC|OPENAI|AZURE_OPENAI|GEMINI|GOOGLE_AI|MISTRAL|GROQ|TOGETHER|COHERE|DEEPSEEK|XAI|OPENROUTER|FIREWORKS|PERPLEXITY"
    "|REPLICATE|CEREBRAS|DASHSCOPE|HF|HUGGINGFACE|HUGGINGFACEHUB|HUGGING_FACE_HUB|LLMHPO"
)
_SECRET = re.compile(
    rf".*_API_KEYS?|.*_API_TOKEN|(?:{_PROVIDERS})_(?:.*_)?(?:KEY|TOKEN|SECRET|PASSWORD)|AWS_BEARER_TOKEN_BEDROCK",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether an environment variable holds, by its name, a key of a model provider or another service."""
    return _SECRET.fullmatch(name) is not None


class LocalExecutor:
    """Runs a command once a job, `workers` jobs at a time.

    A job finds its parameters by command line, in `params.json` and by `llmhpo.job`, and hands its metric in by
    `result.json`, or, with `metric_pattern`, by printing it. It runs in the command's folder with nothing on standard
    input. When its main process ends, whatever it left running is ended too. `Outcome.seconds` is the wall-clock time of
    the main process.

    `gpus` holds one entry a worker, put into CUDA_VISIBLE_DEVICES ("0", or "0,1"); to share a GPU, list it twice.
    `grace_s` lies between SIGTERM and SIGKILL. `env` is added to the environment of the job, which is this process's
    without API keys; `pass_env` names keys that the job needs all the same (such as "WANDB_API_KEY"). Of the output,
    the first and the last half of `log_limit` bytes are kept.

    Cancelling a future, also of a running job, ends the job. A cancelled job has no outcome.

    Raises: ConfigError.
    """

    def __init__(
        self,
        command: CommandTemplate,
        *,
        workers: int = 1,
        gpus: Sequence[str] | None = None,
        metric_pattern: str | None = None,
        grace_s: float = 5.0,
        env: Mapping[str, str] | None = None,
        pass_env: Sequence[str] = (),
        log_limit: int = 1 << 20,
    ) -> None:
        self._pool = WorkerPool(workers, self._run)
        self.workers = workers
        self._gpus = _check_gpus(gpus, workers)
        self._command = command
        self._pattern = None if metric_pattern is None else compile_pattern(metric_pattern)
        if not 0 <= grace_s < float("inf"):
            raise ConfigError(f"grace_s={grace_s!r} is not a finite number of seconds from 0 on")
        if log_limit < 1024:
            raise ConfigError(f"log_limit={log_limit!r} is below 1024 bytes")
        self._grace_s = grace_s
        self._log_limit = log_limit
        self._env = {k: v for k, v in os.environ.items() if k in pass_env or not is_secret(k)} | dict(env or {})
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
        self._pool.shutdown(kill=kill)

    def _run(self, job: Job, slot: int, future: Future[Outcome]) -> Outcome | None:
        folder = job.directory.absolute()
        argv = self._command.render(
            job.params,
            trial=job.number,
            seed=job.seed,
            params_file=folder / PARAMS_FILE,
            result_file=folder / RESULT_FILE,
            report_file=folder / REPORT_FILE,
        )
        _prepare(folder, job)
        process = Supervised(
            argv,
            cwd=self._command.cwd,
            env=self._job_env(job, folder, slot),
            log=folder / LOG_FILE,
            log_limit=self._log_limit,
            timeout_s=job.task.timeout_s,
            grace_s=self._grace_s,
        )
        future.add_done_callback(lambda _: process.cancel())
        end = process.wait()
        return None if end.cause == "cancelled" and future.cancelled() else self._judge(job, folder, end)

    def _job_env(self, job: Job, folder: Path, slot: int) -> dict[str, str]:
        env = self._env | dict(job.env)
        if self._gpus is not None:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[slot]
        return env | {
            "LLMHPO_DIR": str(folder),
            "LLMHPO_PARAMS": str(folder / PARAMS_FILE),
            "LLMHPO_RESULT": str(folder / RESULT_FILE),
            "LLMHPO_REPORT": str(folder / REPORT_FILE),
            "LLMHPO_TRIAL": str(job.number),
            "LLMHPO_SEED": str(job.seed),
        }

    def _judge(self, job: Job, folder: Path, end: End) -> Outcome:
        """The whole tree is dead: nothing that is read here can change any more."""
        log, _ = read_bounded(folder / LOG_FILE, 2 * self._log_limit)
        text = tail(log)
        curve, note = read_reports(folder / REPORT_FILE, job.task.metric)
        value: float | None = None
        metrics: dict[str, float] = {}
        status, problem = _status(end, text, job.task.timeout_s)
        if status == "ok":
            reading = read_result(folder / RESULT_FILE, job.task.metric, folder / LOG_FILE, self._pattern)
            value, metrics, problem = reading
            status = "ok" if value is not None else "invalid"
        if end.survivors:
            note = f"{note}; " * bool(note) + f"{end.survivors} of its processes could not be killed"
        return Outcome(
            status,
            value=value,
            seconds=end.seconds,
            metrics=metrics,
            curve=tuple(curve),
            message="; ".join(part for part in (problem, note) if part),
            log_tail=text,
        )


def _check_gpus(gpus: Sequence[str] | None, workers: int) -> tuple[str, ...] | None:
    if gpus is None:
        return None
    if isinstance(gpus, str) or not all(isinstance(gpu, str) and gpu for gpu in gpus):
        raise ConfigError(f'gpus={gpus!r} is not a list of names; write one entry a worker, such as ["0", "1"]')
    if len(gpus) < workers:
        raise ConfigError(
            f"workers={workers} but gpus={list(gpus)!r} has {len(gpus)} entries: every worker needs one of its own; "
            "lower workers, or list a GPU twice to share it"
        )
    return tuple(gpus)


def _prepare(folder: Path, job: Job) -> None:
    """Write the parameters; remove what an earlier, interrupted run of the same trial left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULT_FILE, REPORT_FILE, LOG_FILE, PARAMS_FILE):
            (folder / name).unlink(missing_ok=True)
        (folder / PARAMS_FILE).write_text(json.dumps(job.params) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExecutorError(f"trial {job.number}: cannot prepare {str(folder)!r}: {error}") from error


def _status(end: End, text: str, timeout_s: float | None) -> tuple[Status, str]:
    """What the end of the process says; "ok" still needs a result."""
    match end:
        case End("timeout"):
            return "timeout", f"not done within {timeout_s:g} s; ended with all its processes"
        case End("lost"):
            return "failed", "the process that watched over the job was killed, by the job itself or from outside"
        case End("cancelled"):
            return "failed", "a SIGTERM or SIGINT from outside ended the job"
        case End(code=0):
            return "ok", ""
    if end.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "oom", "killed by SIGKILL, which llmhpo did not send: most likely the computer ran out of memory"
    what = f"killed by {_signal_name(-end.code)}" if end.code < 0 else f"exit code {end.code}"
    return "oom" if ran_out_of_memory(text) else "failed", f"{what}: {last_line(text)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

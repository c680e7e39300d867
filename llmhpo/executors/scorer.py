"""Runs the scorer's process on what a finished job wrote: its own tree, folder and limits, in the sandbox where there is one."""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from llmhpo.executors.base import Job
from llmhpo.executors.leftover import TOKEN
from llmhpo.executors.limits import Limits
from llmhpo.executors.log import read_bounded, tail
from llmhpo.executors.process import Fence, Supervised
from llmhpo.executors.result import Verdict, check_result
from llmhpo.executors.tree import can_walk
from llmhpo.sandbox.base import Policy, Sandbox
from llmhpo.scoring import base
from llmhpo.scoring.base import MAX_LINE, Order, Scoring
from llmhpo.scoring.seals import Seal
from llmhpo.scratch import Scratch
from llmhpo.trial import Outcome
from llmhpo.tripwires import CHANGED, CONSTANT

_PASSED_ON = re.compile(r"PATH|LANG|LC_\w+|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX|\w+_NUM_THREADS")
_LOG_BYTES = 4 * MAX_LINE  # half of it is the end, with the line
_GRACE_S = 0.5
_DISK_MB = 1000
_CHILD = Path(base.__file__).resolve().with_name("child.py")


class Scorer:
    """Scores jobs as `scoring` says, the files that it needs sealed from now on. A `sandbox` holds the scorer as well.

    Raises: ConfigError where one of the files cannot be read.
    """

    def __init__(self, scoring: Scoring, *, sandbox: Sandbox | None = None) -> None:
        self.scoring, self._sandbox = scoring, sandbox
        paths = {scoring.script, *(p for s in scoring.splits.values() for p in (s.inputs, s.labels) if p is not None)}
        self._seals = {path: Seal.of(path) for path in sorted(paths)}

    @property
    def digest(self) -> str:
        """The digest of the user's scorer."""
        return self._seals[self.scoring.script].digest

    def prepared(self, job: Job) -> Job:
        """The job, told of its data and of where its predictions go; a sandbox shows it its own inputs and nothing else.

        Raises: ConfigError for a split that is not declared.
        """
        env = {**job.env, "LLMHPO_SPLIT": job.split, "LLMHPO_PREDICTIONS": str(self.written_by(job))}
        inputs = self.scoring.split(job.split).inputs
        if inputs is not None:
            env["LLMHPO_INPUTS"] = str(inputs)
        hide = (*job.hide, *self.scoring.hidden(job.split))
        return replace(job, env=env, hide=hide, read=job.read if inputs is None else (*job.read, inputs))

    def written_by(self, job: Job) -> Path:
        """Where a job writes its predictions."""
        return job.directory.absolute() / self.scoring.file

    def changed(self) -> str:
        """What of scorer, labels and inputs has changed, in one line; "" while all is as it was."""
        return "; ".join(problem for seal in self._seals.values() if (problem := seal.broken()))

    def score(self, job: Job, future: Future[Outcome]) -> Verdict:
        """Score what `job` has written, now that none of its processes lives; cancelling `future` ends the scorer too.

        Raises: ExecutorError where the scorer's process cannot be started.
        """
        if problem := self.changed():
            return Verdict("invalid", problem=_broken(problem), flags=(CHANGED,))
        with Scratch() as folder:
            end, answer, output = self._call(job, folder, future)
        if answer is None:
            return Verdict("failed", problem=f"{self._name} {end}", details=output)
        if problem := self.changed():
            return Verdict("invalid", problem=_broken(problem), flags=(CHANGED,))
        return self._judge(job, answer, output)

    @property
    def _name(self) -> str:
        return f"the scorer {self.scoring.script.name}"

    def _call(self, job: Job, folder: Path, future: Future[Outcome]) -> tuple[str, dict[str, object] | None, str]:
        """How the process ended in words, its answer if there is one, and the end of its output."""
        cwd, log = folder / "cwd", folder / "output.log"
        cwd.mkdir()
        order = self._order(job)
        process = Supervised(
            self._argv(order, cwd),
            cwd=cwd,
            env=_environment(job, cwd),
            log=log,
            log_limit=_LOG_BYTES,
            timeout_s=self.scoring.timeout_s,
            grace_s=_GRACE_S,
            limits=Limits(memory_gb=self.scoring.memory_gb, processes=256, disk_mb=_DISK_MB) if can_walk() else None,
            folders=[cwd],
            fence=None if self._sandbox is None else Fence(int(_DISK_MB * 1e6)),
        )
        future.add_done_callback(lambda _: process.cancel())
        end = process.wait()
        code = (
            128 - end.code if self._sandbox is not None and end.code > 128 else end.code
        )  # as its monitor tells of a signal
        output, answer = _split_off(read_bounded(log, 2 * _LOG_BYTES)[0], order.nonce)
        match end.cause:
            case "exited":
                how = f"ended with exit code {code} and no score"
            case "timeout":
                how = f"was not done within {self.scoring.timeout_s:g} s"
            case cause:
                how = f"was ended ({cause}: {end.figure:.3g})"
        return how, answer if end.cause == "exited" else None, output

    def _order(self, job: Job) -> Order:
        split = self.scoring.split(job.split)
        return Order(
            nonce=uuid.uuid4().hex,
            script=str(self.scoring.script),
            function=self.scoring.function,
            digest=self.digest,
            predictions=str(self.written_by(job)),
            labels="" if split.labels is None else str(split.labels),
            shape=None if split.shape is None else list(split.shape),
            max_bytes=int(self.scoring.max_mb * 1e6),
        )

    def _argv(self, order: Order, cwd: Path) -> list[str]:
        argv = [sys.executable, "-I", str(_CHILD), json.dumps(order._asdict())]
        if self._sandbox is None:
            return argv
        scratch = cwd if not self._sandbox.has_private_tmp else None
        shown = [
            _CHILD.parents[1],
            self.scoring.script,
            Path(order.predictions).parent,
            order.labels and Path(order.labels),
        ]
        policy = Policy(cwd, read=tuple(path for path in shown if path), write=(cwd,), tmp_mb=_DISK_MB, scratch=scratch)
        return self._sandbox.wrap(argv, policy)

    def _judge(self, job: Job, answer: dict[str, object], output: str) -> Verdict:
        problem, details = str(answer.get("problem")), f"{output}\n{answer.get('details')}".strip()
        match answer.get("fault"):
            case "predictions":
                return Verdict("invalid", problem=f"predictions: {problem}", details=details)
            case "changed":
                return Verdict("invalid", problem=_broken(f"{str(self.scoring.script)!r}: {problem}"), flags=(CHANGED,))
            case "scorer":
                return Verdict("failed", problem=f"{self._name} failed: {problem}", details=details)
        reading = check_result(answer.get("result"), job.task.metric, self.scoring.script.name, job.task.bounds)
        flags = (CONSTANT,) if answer.get("is_constant") else ()
        mark = str(answer.get("fingerprint"))
        if reading.value is None:
            return Verdict("invalid", problem=reading.problem, fingerprint=mark, flags=flags, details=details)
        return Verdict("ok", "", reading.value, reading.metrics, mark, flags)


def _broken(problem: str) -> str:
    return f"{CHANGED}: {problem}; a value measured with it would mean nothing"


def _environment(job: Job, cwd: Path) -> dict[str, str]:
    """No key, no setting of the job's; the attempt's token, by which what a dead controller leaves behind is found."""
    env = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    env |= {"HOME": str(cwd), "TMPDIR": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    return env | {name: job.env[name] for name in (TOKEN,) if name in job.env}


def _split_off(log: bytes, nonce: str) -> tuple[str, dict[str, object] | None]:
    """The end of the output, and the last line with the nonce, read; None where there is no such line."""
    printed, found, line = log.rpartition(f"\n{nonce} ".encode())
    if not found:
        return tail(log), None
    try:
        answer = json.loads(line.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return tail(log), None
    return tail(printed), answer if isinstance(answer, dict) else None

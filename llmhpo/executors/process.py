"""One supervised process: started, waited for, ended with all its offspring."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from llmhpo.errors import ExecutorError
from llmhpo.executors import supervisor

Cause = Literal["exited", "timeout", "cancelled", "lost"]
_SLACK_S = 5.0  # what a healthy supervisor may be late by


class End(NamedTuple):
    """How a process ended. `code` is negative for a signal; `survivors` counts processes that SIGKILL did not end.

    "lost" means that the supervisor itself was killed, by the job or from outside; `code` says nothing then.
    """

    cause: Cause
    code: int
    seconds: float
    survivors: int


class Supervised:
    """A command in a session of its own, with a bounded log, a time limit, and no one left behind.

    Its tree ends with it, on `cancel`, at the time limit, and when this controller dies.

    Raises: ExecutorError where the process cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        log_limit: int,
        timeout_s: float | None,
        grace_s: float,
    ) -> None:
        self._marker = uuid.uuid4().hex
        self._start = time.monotonic()
        self._grace_s = grace_s
        self._late = float("inf") if timeout_s is None else self._start + timeout_s + self._patience_s
        self._is_cancelled = False
        limits = [repr(float("inf") if timeout_s is None else timeout_s), repr(grace_s), str(log), str(log_limit)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, self._marker, *limits, *argv],
                cwd=cwd,
                env={**env, supervisor.MARKER: self._marker},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ExecutorError(f"cannot start {argv[0]!r} in {str(cwd)!r}: {error}") from error
        self._program = argv[0]

    @property
    def _patience_s(self) -> float:
        return self._grace_s + supervisor.KILL_PATIENCE_S + _SLACK_S

    def cancel(self) -> None:
        """Begin to end the tree; `wait` returns when it is gone. May be called from any thread, more than once."""
        self._is_cancelled = True
        self._late = min(self._late, time.monotonic() + self._patience_s)
        self._close_control()

    def wait(self) -> End:
        """Wait until the whole tree is gone.

        Raises: ExecutorError where the command could not be executed.
        """
        words = self._last_line().split(" ", 4)
        match words:
            case ["end", ("exited" | "timeout" | "cancelled") as cause, code, seconds, survivors]:
                return End(cause, int(code), float(seconds) or self._seconds, int(survivors))
            case ["error", *_]:
                raise ExecutorError(f"cannot execute {self._program!r}: {' '.join(words[1:])}")
        survivors_left = supervisor.sweep(self._marker)
        if self._is_cancelled:
            return End("cancelled", -9, self._seconds, survivors_left)
        return End("timeout" if time.monotonic() >= self._late else "lost", -9, self._seconds, survivors_left)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def _last_line(self) -> str:
        assert self._process.stdout is not None
        output, fd = bytearray(), self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while time.monotonic() < self._late:  # a stopped supervisor must not hold the controller for ever
            if poll.poll(1000):
                if not (data := os.read(fd, 4096)):
                    break
                output = (output + data)[-4096:]
        else:
            self._process.kill()
        self._close_control()
        self._process.stdout.close()
        self._process.wait()
        return output.decode(errors="replace").strip().rpartition("\n")[2]

    def _close_control(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

"""One supervised process: started, waited for, ended with all its offspring."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from llmhpo.bare import bare_argv
from llmhpo.errors import ExecutorError
from llmhpo.executors import tree
from llmhpo.executors.limits import Limits
from llmhpo.scratch import Scratch

Cause = Literal["exited", "timeout", "cancelled", "lost", "memory", "cpu", "processes", "output", "disk", "files"]
_SLACK_S = 5.0  # what a healthy supervisor may be late by


class End(NamedTuple):
    """How a process ended. `code` is negative for a signal; `survivors` counts processes that SIGKILL did not end.

    "lost" means that the supervisor itself was killed, by the job or from outside; `code` says nothing then. "memory" and
    so on are limits that the job passed by using `figure`; `peak` is the largest memory seen, in bytes (0: none was).
    `was_full` says that the disk was full when the job printed something.
    """

    cause: Cause
    code: int
    seconds: float
    survivors: int
    figure: float = 0.0
    peak: float = 0.0
    was_full: bool = False


class Fence(NamedTuple):
    """What the supervisor does for a sandbox: no file beyond `file_bytes`, and `scratch` is removed after the job's end."""

    file_bytes: int
    scratch: Scratch | None = None


_living: set[Supervised] = set()


def hasten_all(grace_s: float) -> None:
    """`Supervised.hasten` for every job of this process; may be called by a signal handler."""
    for process in tuple(_living):
        process.hasten(grace_s)


def count_living() -> int:
    """How many jobs of this process run."""
    return len(_living)


class Supervised:
    """A command in a session of its own, with a bounded log, a time limit, and no one left behind.

    Its tree ends with it, on `cancel`, at the time limit, beyond one of `limits`, and when this controller dies. What lies
    in `folders` counts as its disk space. `fence` says that the command is the monitor of a sandbox.

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
        limits: Limits | None = None,
        folders: Sequence[Path] = (),
        fence: Fence | None = None,
    ) -> None:
        self._marker = uuid.uuid4().hex
        self._start = time.monotonic()
        self._grace_s = grace_s
        self._late = float("inf") if timeout_s is None else self._start + timeout_s + self._patience_s
        self._is_cancelled = False
        self._lock = threading.RLock()  # around the control pipe: a number once closed may be another file's
        settings = [repr(float("inf") if timeout_s is None else timeout_s), repr(grace_s), str(log), str(log_limit)]
        settings += [(limits or Limits()).as_argument(), "\n".join(map(str, folders))]
        self._scratch = None if fence is None else fence.scratch
        settings += ["" if fence is None else str(fence.file_bytes)]
        settings += ["" if self._scratch is None else str(self._scratch.path)]
        try:
            self._process = subprocess.Popen(
                bare_argv("llmhpo.executors.supervisor", self._marker, *settings, *argv),
                cwd=cwd,
                env={**env, tree.MARKER: self._marker},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ExecutorError(f"cannot start {argv[0]!r} in {str(cwd)!r}: {error}") from error
        self._program = argv[0]
        _living.add(self)

    @property
    def _patience_s(self) -> float:
        return self._grace_s + tree.KILL_LIMIT_S + _SLACK_S

    def cancel(self) -> None:
        """Begin to end the tree; `wait` returns when it is gone. May be called from any thread, more than once."""
        self._is_cancelled = True
        self._late = min(self._late, time.monotonic() + self._patience_s)
        self._tell_grace()

    def hasten(self, grace_s: float) -> None:
        """Leave at most so much time between SIGTERM and SIGKILL, also where the tree is being ended already."""
        self._grace_s = min(self._grace_s, grace_s)
        if self._is_cancelled:
            self.cancel()

    def _tell_grace(self) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError, ValueError):  # it has ended
            os.write(self._process.stdin.fileno(), f"{self._grace_s!r}\n".encode())

    def wait(self) -> End:
        """Wait until the whole tree is gone.

        Raises: ExecutorError where the command could not be executed.
        """
        end = self._end()
        if self._scratch is not None:
            self._scratch.remove()  # the supervisor has done so, unless it was killed
        return end

    def _end(self) -> End:
        words = self._last_line().split(" ", 7)
        match words:
            case ["end", cause, code, seconds, survivors, figure, peak, full] if cause in get_args(Cause):
                known = cast("Cause", cause)
                return End(
                    known,
                    int(code),
                    float(seconds) or self._seconds,
                    int(survivors),
                    float(figure),
                    float(peak),
                    full == "1",
                )
            case ["error", *_]:
                raise ExecutorError(f"cannot execute {self._program!r}: {' '.join(words[1:])}")
        survivors_left = tree.sweep(self._marker)
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
        _living.discard(self)
        self._process.stdout.close()
        self._process.wait()
        return output.decode(errors="replace").strip().rpartition("\n")[2]

    def _close_control(self) -> None:
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

"""The small process between the controller and a job: it keeps log and limits, and leaves nobody behind.

It is started by `python -I -S` and imports nothing but light parts of the standard library. Why a process and not a
thread: when the controller is killed, its end of the control pipe closes and the job's whole tree is ended; as the "child
subreaper" (Linux) it inherits double-forked daemons, so that walking down from it misses none.

    MARKER TIMEOUT_S GRACE_S LOG LOG_LIMIT LIMITS FOLDERS FILE_BYTES SCRATCH PROGRAM ARGUMENT...

LIMITS and FOLDERS are as for `Watchdog`. FILE_BYTES says that PROGRAM is the monitor of a sandbox, and how large a file may
become in it ("": no sandbox); SCRATCH is a folder that is removed in the end ("": none). Standard input is the control pipe: a line with a number means "end the job,
with a grace of so many seconds"; its end means the same with GRACE_S. Standard output gets one line in the end:
`end CAUSE EXIT_CODE SECONDS SURVIVORS FIGURE PEAK WAS_FULL` or `error MESSAGE`. CAUSE is "exited", "timeout", "cancelled" or the
limit that was passed; FIGURE is by what, PEAK the largest memory seen, in bytes; WAS_FULL is 1 where the log met a full disk.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

from llmhpo.executors.tree import (
    KILL_LIMIT_S,
    KILL_PATIENCE_S,
    TICK_S,
    can_walk,
    count_living,
    descendants,
    find_tree,
    send,
)
from llmhpo.executors.watchdog import AT_ONCE, Watchdog

_CHUNK = 1 << 16
_LOG_FLUSH_S = 2.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
# Of a folder that a job wrote into, one after the other while it is there: Python's own way fails where folders are nested too deep.
REMOVAL = (("rm", "-rf", "--"), ("chmod", "-fR", "u+rwX", "--"), ("rm", "-rf", "--"))
_OOM_SCORE = "500"  # where memory runs out the kernel shall take the job, not the controller


class BoundedLog:
    """A file that keeps the first and the last half of `limit` bytes, whatever is written to it."""

    def __init__(self, path: str, limit: int) -> None:
        flags = os.O_WRONLY | os.O_CLOEXEC
        self.was_full = False
        try:
            self._fd = os.open(path, flags | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._fd, self.was_full = os.open(os.devnull, flags), True  # the job goes on, without a log
        self._half = max(limit // 2, 1)
        self._head = 0
        self._tail = bytearray()
        self._dropped = 0
        self._dirty = False
        self.taken = 0

    def write(self, data: bytes) -> None:
        """Take `data` in; memory stays below `limit` and a chunk."""
        self.taken += len(data)
        if self._head < self._half and not self._tail:
            done = self._put(data[: self._half - self._head])
            self._head, data = self._head + done, data[done:]
        if data:  # also what the disk had no room for
            self._tail += data
            self._dirty = True
            if len(self._tail) > 2 * self._half:
                self._trim()

    def _trim(self) -> None:
        if (extra := len(self._tail) - self._half) > 0:
            del self._tail[:extra]
            self._dropped += extra

    def flush(self) -> None:
        """Bring the file up to date."""
        if self._dirty:
            self._trim()
            note = f"\n[... {self._dropped} bytes left out ...]\n".encode() if self._dropped else b""
            os.lseek(self._fd, self._head, os.SEEK_SET)
            self._dirty = self._put(note + self._tail) < len(note) + len(self._tail)

    def _put(self, data: bytes) -> int:
        """How much of `data` there was room for: where the disk is full the job goes on, and the rest is tried again later."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, memoryview(data)[done:])
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR))
        except OSError as error:
            self.was_full |= error.errno in (errno.ENOSPC, errno.EDQUOT)
        return done


class Supervisor:
    """Runs one command to its end and ends what it leaves behind."""

    def __init__(
        self, marker: str, grace_s: float, log: BoundedLog, watchdog: Watchdog, file_bytes: int | None = None
    ) -> None:
        self.marker, self.grace_s, self.log, self.watchdog = marker, grace_s, log, watchdog
        self.file_bytes = file_bytes
        self.is_subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._can_walk = self.is_subreaper and can_walk()
        self.pid = 0
        self.code: int | None = None
        self.seconds = 0.0
        self._start = self._flushed = time.monotonic()
        self._stopped = False
        self._has_children = True
        self._output = -1
        self._poll = select.poll()

    def launch(self, argv: list[str]) -> None:
        """Start the command in a session of its own. Raises: OSError where it cannot be executed."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        self._output, out_w = os.pipe()
        error_r, error_w = os.pipe()
        self._start = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _become(argv, out_w, error_w, self.file_bytes)
        _take_precedence(True)
        os.close(out_w)
        os.close(error_w)
        if problem := os.read(error_r, 100):
            raise OSError(int(problem), os.strerror(int(problem)))
        os.close(error_r)
        os.set_blocking(self._output, False)
        for fd in (0, wake_r, self._output):
            self._poll.register(fd, select.POLLIN)
        self._wake = wake_r

    def _on_stop(self, *_: object) -> None:
        self._stopped = True

    def run(self, timeout_s: float) -> str:
        """Wait for the command. Returns why the waiting ended: a CAUSE as above."""
        deadline = self._start + timeout_s
        while self.code is None:
            if self._stopped:
                return "cancelled"
            if (now := time.monotonic()) >= deadline:
                return "timeout"
            if now >= self.watchdog.due and (passed := self.watchdog.look(self.log.taken)):
                return passed
            self._step(max(0.0, min(deadline, self.watchdog.due) - now))
        return "exited"

    def end_tree(self, cause: str) -> int:
        """SIGTERM, the grace, SIGKILL; SIGKILL at once where the computer suffers. Returns how many would not die."""
        start = time.monotonic()
        asked: set[int] = set()
        is_harmful = cause in AT_ONCE
        while self._is_alive(tree := self._tree()):
            now = time.monotonic()
            if is_harmful or now - start >= self.grace_s:  # the controller may have shortened it
                return self._kill_tree()
            if tree - asked or not asked:
                self._ask(tree - asked)
                asked |= tree | {self.pid}
            self._step(TICK_S)
            is_harmful = now >= self.watchdog.due and self.watchdog.look(self.log.taken) in AT_ONCE
        return 0

    def _ask(self, tree: set[int]) -> None:
        if self.file_bytes is None:
            send(signal.SIGTERM, self.pid, tree)
        else:  # the monitor of a sandbox would die of it, and take the job along before it could say its last words
            send(signal.SIGTERM, None, tree - {self.pid})

    def _kill_tree(self) -> int:
        start = progress = time.monotonic()
        seen: set[int] = set()
        most_gone = -1
        while self._is_alive(tree := self._tree()):
            now, living = time.monotonic(), count_living(tree)
            is_growing = not tree <= seen
            seen |= tree
            if (gone := len(seen) - living) > most_gone:
                most_gone, progress = gone, now
            if now > min(progress + KILL_PATIENCE_S, start + KILL_LIMIT_S):
                return living
            send(signal.SIGKILL, self.pid, tree)  # to a group it is atomic: no fork escapes it
            _take_precedence(is_growing)  # a thousand take their time to die: do not be in their way
            self._step(0.0 if is_growing else TICK_S + len(tree) / 10_000)
        return 0

    def close(self) -> None:
        """Take in what still lies in the pipe and bring the log up to date."""
        for _ in range(64):  # a survivor might write for ever
            if not self._drain():
                break
        self.log.flush()

    def _tree(self) -> set[int]:
        if self.is_subreaper and not self._has_children:
            return set()
        return descendants(os.getpid()) if self._can_walk else find_tree(self.marker, self.pid)

    def _is_alive(self, tree: set[int]) -> bool:
        if self.code is None:
            return True
        if self.is_subreaper:
            return self._has_children
        if tree:
            return True
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _step(self, wait_s: float) -> None:
        """Wait for an event at most so long; take in output, signals and deaths."""
        for fd, _ in self._poll.poll(wait_s * 1000):
            if fd == self._output:
                self._drain(chunks=16)
            elif fd == 0:
                self._listen()
            else:
                os.read(fd, _CHUNK)
        self._reap()
        if time.monotonic() - self._flushed > _LOG_FLUSH_S:
            self.log.flush()
            self._flushed = time.monotonic()

    def _listen(self) -> None:
        self._stopped = True
        if words := os.read(0, _CHUNK).split():
            self.grace_s = float(words[-1])
        else:
            self._poll.unregister(0)

    def _drain(self, chunks: int = 1) -> bool:
        for _ in range(chunks):
            if self._output < 0:
                return False
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return False
            if not data:
                self._poll.unregister(self._output)
                os.close(self._output)
                self._output = -1
                return False
            self.log.write(data)
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self._start


def _become(argv: list[str], output: int, error: int, file_bytes: int | None) -> None:
    """In the forked child: put on the job's descriptors and signals, then turn into the command."""
    try:
        os.setsid()
        if file_bytes is not None:
            _bound(file_bytes)
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, which exec would pass on
            signal.signal(number, signal.SIG_DFL)
        try:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, _OOM_SCORE.encode())
            os.close(fd)
        except OSError:
            pass
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execv(argv[0], argv)
    except OSError as problem:
        os.write(error, str(problem.errno).encode())
    finally:
        os._exit(127)


def _bound(file_bytes: int) -> None:
    """No core dumps, no larger file, and no keys of the session's keyring, which no namespace hides. Raises: OSError."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # 1 stops, unlike 0, a core_pattern that is a pipe as well
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    size = file_bytes if hard == resource.RLIM_INFINITY else min(file_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if (number := _KEYCTL.get(os.uname().machine)) is not None:
        import ctypes

        ctypes.CDLL(None).syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def _take_precedence(is_wanted: bool) -> None:
    """Run before ordinary processes, where this is allowed (root): a fork bomb leaves them no time to end it."""
    try:
        policy = os.SCHED_RR if is_wanted else os.SCHED_OTHER
        os.sched_setscheduler(0, policy, os.sched_param(int(is_wanted)))
    except (OSError, AttributeError):
        return


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _remove(folder: str) -> None:
    """Remove a folder and what a job made in it."""
    for words in REMOVAL:
        if folder and os.path.lexists(folder):
            os.spawnvp(os.P_WAIT, words[0], [*words, folder])


def main(argv: list[str]) -> None:
    """Supervise one command, as described at the top."""
    marker, timeout_s, grace_s, log_path, log_limit, limits, folders, file_bytes, scratch, *command = argv
    log = BoundedLog(log_path, int(log_limit))
    watchdog = Watchdog(limits, folders, shares_memory=bool(scratch), sandboxed=bool(file_bytes))
    supervisor = Supervisor(marker, float(grace_s), log, watchdog, int(file_bytes) if file_bytes else None)
    try:
        supervisor.launch(command)
    except OSError as error:
        os.write(1, f"error {error}\n".encode())
        _remove(scratch)
        return
    cause = supervisor.run(float(timeout_s))
    left = supervisor.end_tree(cause)
    supervisor.close()
    if cause == "exited":
        cause = watchdog.look_back(log.taken) or cause
    _remove(scratch)
    code = -9 if supervisor.code is None else supervisor.code
    os.write(
        1,
        f"end {cause} {code} {supervisor.seconds!r} {left} {watchdog.figure!r} {watchdog.peak!r} {log.was_full:d}\n".encode(),
    )

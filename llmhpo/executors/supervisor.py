"""The small process between the controller and a job: it keeps the log bounded and leaves nobody behind.

It is started by file name with `python -I -S`, so it imports nothing but light parts of the standard library. Why a
process and not a thread: when the controller is killed, its end of the control pipe closes and the job's whole tree is
ended; as the "child subreaper" (Linux) it inherits double-forked daemons, so that walking down from it misses none.

    supervisor.py MARKER TIMEOUT_S GRACE_S LOG LOG_LIMIT PROGRAM ARGUMENT...

Standard input is the control pipe: its end means "end the job". Standard output gets one line in the end:
`end CAUSE EXIT_CODE SECONDS SURVIVORS` or `error MESSAGE`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

MARKER = "LLMHPO_JOB"
KILL_PATIENCE_S = 5.0  # a process in uninterruptible sleep outlives SIGKILL; do not wait for ever
_TICK_S = 0.02
_CHUNK = 1 << 16
_LOG_FLUSH_S = 2.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_OOM_SCORE = "500"  # where memory runs out the kernel shall take the job, not the controller


def find_marked(marker: str, session: int = 0, parents: dict[int, int] | None = None) -> set[int]:
    """Living processes with `marker` in their environment or in `session` (0: none); never this one or process 1.

    `parents`, where given, is filled with the parent of every living process. Empty where there is no /proc.
    """
    wanted = f"{MARKER}={marker}".encode()
    found: set[int] = set()
    try:
        names = [n for n in os.listdir("/proc") if n.isdigit()]  # noqa: PTH208 - pathlib costs 10 ms of start-up
    except OSError:
        return set()
    for name in names:
        try:
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if fields[0] in b"ZX":
                continue
            if parents is not None:
                parents[int(name)] = int(fields[1])
            if (session > 1 and int(fields[3]) == session) or wanted in _read(f"/proc/{name}/environ").split(b"\0"):
                found.add(int(name))
        except (OSError, IndexError):  # ended meanwhile, or not ours to look at
            continue
    return found - {1, os.getpid()}


def find_tree(marker: str, session: int) -> set[int]:
    """What `find_marked` finds, and every living descendant of this process."""
    root = os.getpid()
    parents: dict[int, int] = {}
    found = find_marked(marker, session, parents)
    for pid in parents:
        line, at = [pid], parents[pid]
        while at > 1 and at != root and at in parents:  # 0 is the parent of process 1: never a root
            line.append(at)
            at = parents[at]
        if at == root:
            found.update(line)
    return found - {1, root}


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def send(number: int, group: int, pids: set[int]) -> None:
    """Send a signal to a process group and to single processes; those that are gone are passed over."""
    assert group > 1, group  # kill takes 0, 1 and -1 for "my group", "init" and "everybody"
    assert all(pid > 1 for pid in pids), pids
    for kill, target in [(os.killpg, group), *((os.kill, pid) for pid in pids)]:
        try:
            kill(target, number)
        except (ProcessLookupError, PermissionError):  # macOS says "permission" for a group of zombies
            continue


def sweep(marker: str) -> int:
    """Kill what is left of a job whose supervisor is gone, by marker alone. Returns how many would not die."""
    assert len(marker) >= 32, marker  # a random one: an empty marker might belong to someone else
    deadline = time.monotonic() + KILL_PATIENCE_S
    empty = 0
    while empty < 2:  # a process in the midst of exec shows no environment for an instant
        left = find_marked(marker)
        empty = 0 if left else empty + 1
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        if time.monotonic() > deadline:
            return len(left)
        time.sleep(_TICK_S)
    return 0


class BoundedLog:
    """A file that keeps the first and the last half of `limit` bytes, whatever is written to it."""

    def __init__(self, path: str, limit: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._half = max(limit // 2, 1)
        self._head = 0
        self._tail = bytearray()
        self._dropped = 0
        self._dirty = False

    def write(self, data: bytes) -> None:
        """Take `data` in; memory stays below `limit` and a chunk."""
        if self._head < self._half:
            part, data = data[: self._half - self._head], data[self._half - self._head :]
            self._put(part)
            self._head += len(part)
        if data:
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
            self._put(note + self._tail)
            self._dirty = False

    def _put(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR))
        except OSError:  # disk full: the job goes on, the log has a gap
            return


class Supervisor:
    """Runs one command to its end and ends what it leaves behind."""

    def __init__(self, marker: str, grace_s: float, log: BoundedLog) -> None:
        self.marker, self.grace_s, self.log = marker, grace_s, log
        self.is_subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
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
            _become(argv, out_w, error_w)
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
        """Wait for the command. Returns why the waiting ended: "exited", "timeout" or "cancelled"."""
        deadline = self._start + timeout_s
        while self.code is None:
            if self._stopped:
                return "cancelled"
            if (left := deadline - time.monotonic()) <= 0:
                return "timeout"
            self._step(min(left, 1.0))
        return "exited"

    def end_tree(self) -> int:
        """SIGTERM, the grace, SIGKILL. Returns how many processes would not die."""
        number, until = signal.SIGTERM, time.monotonic() + self.grace_s
        asked: set[int] = set()
        while self._is_alive(tree := self._tree()):
            if time.monotonic() > until:
                if number == signal.SIGKILL:
                    return max(len(tree), 1)
                number, until = signal.SIGKILL, time.monotonic() + KILL_PATIENCE_S
            if number == signal.SIGKILL or tree - asked or not asked:
                send(number, self.pid, tree - asked if number == signal.SIGTERM else tree)
                asked |= tree | {self.pid}
            self._step(_TICK_S)
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
        return find_tree(self.marker, self.pid)

    def _is_alive(self, tree: set[int]) -> bool:
        if tree or self.code is None:
            return True
        if self.is_subreaper:
            return False
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
                self._stopped = True  # nothing is ever written: the pipe has ended
                self._poll.unregister(0)
            else:
                os.read(fd, _CHUNK)
        self._reap()
        if time.monotonic() - self._flushed > _LOG_FLUSH_S:
            self.log.flush()
            self._flushed = time.monotonic()

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


def _become(argv: list[str], output: int, error: int) -> None:
    """In the forked child: put on the job's descriptors and signals, then turn into the command."""
    try:
        os.setsid()
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


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def main(argv: list[str]) -> None:
    """Supervise one command, as described at the top."""
    marker, timeout_s, grace_s, log_path, log_limit, *command = argv
    supervisor = Supervisor(marker, float(grace_s), BoundedLog(log_path, int(log_limit)))
    try:
        supervisor.launch(command)
    except OSError as error:
        os.write(1, f"error {error}\n".encode())
        return
    cause = supervisor.run(float(timeout_s))
    left = supervisor.end_tree()
    supervisor.close()
    code = -9 if supervisor.code is None else supervisor.code
    os.write(1, f"end {cause} {code} {supervisor.seconds!r} {left}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])

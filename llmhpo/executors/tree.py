"""Which processes belong to a job, and signals to them: a mistake here kills strangers. Imports nothing heavy.

Where the kernel lists children (Linux), a tree is walked down from its root, which costs what the tree is large. A process
that has left the tree (its supervisor was killed) is known by the random marker in its environment.
"""

from __future__ import annotations

import os
import signal
import time

MARKER = "LLMHPO_JOB"
KILL_PATIENCE_S = 8.0  # a process in uninterruptible sleep outlives SIGKILL; do not wait for ever
KILL_LIMIT_S = 30.0  # while they do die, one after the other, so long
TICK_S = 0.02
_CHUNK = 1 << 16


def read(path: str) -> bytes:
    """All of a small file. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def children(pid: int) -> list[int]:
    """The children of a process, those of all its threads, zombies included; empty where it is gone. Raises: nothing."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - pathlib costs 10 ms of start-up
            found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass
    return found


def can_walk() -> bool:
    """Whether this system lists children (Linux with CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110


def descendants(root: int) -> set[int]:
    """Every process below `root`, zombies included, without `root` itself."""
    found: set[int] = set()
    line = children(root)
    while line:
        pid = line.pop()
        if pid not in found:
            found.add(pid)
            line += children(pid)
    return found - {0, 1, root, os.getpid()}


def count_living(pids: set[int]) -> int:
    """How many of these processes are there and no zombies."""
    living = 0
    for pid in pids:
        try:
            living += read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] not in (b"Z", b"X")
        except (OSError, IndexError):
            continue
    return living


def find_marked(marker: str, session: int = 0, parents: dict[int, int] | None = None) -> set[int]:
    """Living processes with `marker` in their environment or in `session` (0: none); never this one or process 1.

    `parents`, where given, is filled with the parent of every living process. Empty where there is no /proc.
    """
    wanted = f"{MARKER}={marker}".encode()
    found: set[int] = set()
    try:
        names = [n for n in os.listdir("/proc") if n.isdigit()]  # noqa: PTH208
    except OSError:
        return set()
    for name in names:
        try:
            fields = read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            if fields[0] in b"ZX":
                continue
            if parents is not None:
                parents[int(name)] = int(fields[1])
            if (session > 1 and int(fields[3]) == session) or wanted in read(f"/proc/{name}/environ").split(b"\0"):
                found.add(int(name))
        except (OSError, IndexError):  # ended meanwhile, or not ours to look at
            continue
    return found - {1, os.getpid()}


def find_tree(marker: str, session: int) -> set[int]:
    """What `find_marked` finds, and every living descendant of this process: the slow way, through all of /proc."""
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


def send(number: int, group: int | None, pids: set[int]) -> None:
    """Send a signal to a process group (None: to none) and to processes; those that are gone are passed over."""
    assert group is None or group > 1, group  # kill takes 0, 1 and -1 for "my group", "init" and "everybody"
    assert all(pid > 1 for pid in pids), pids
    groups = [] if group is None else [(os.killpg, group)]
    for kill, target in [*groups, *((os.kill, pid) for pid in pids)]:
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
        time.sleep(TICK_S)
    return 0

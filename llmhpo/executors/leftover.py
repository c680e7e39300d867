"""Processes that an attempt left behind when its controller was killed: they are gone before the trial is tried again.

An attempt's processes bear its random token in their environment. Their own supervisor ends them when the controller dies,
gently at first; what it has not ended within a grace is killed here. Nothing is found where there is no /proc.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

TOKEN = "LLMHPO_ATTEMPT"
GRACE_S = 7.0  # the supervisor's own, and some room
_KILL_S = 10.0
_TICK_S = 0.05


def find_leftovers(tokens: Collection[str]) -> set[int]:
    """Living processes with one of the tokens in their environment; never this one or process 1."""
    assert all(len(token) == 32 for token in tokens), tokens  # a random one: an empty token might belong to anybody
    wanted = {f"{TOKEN}={token}".encode() for token in tokens}
    if not wanted or not Path("/proc/self/environ").exists():
        return set()
    pids = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return {pid for pid in pids - {1, os.getpid()} if _bears(pid, wanted)}


def _bears(pid: int, wanted: set[bytes]) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state not in b"ZX" and not wanted.isdisjoint(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except (OSError, IndexError):  # ended meanwhile, or not ours to look at
        return False


def end_leftovers(tokens: Collection[str], grace_s: float = GRACE_S) -> set[int]:
    """Wait until no process of these attempts lives; after the grace, kill. Returns those that would not die."""
    start, empty = time.monotonic(), 0
    left: set[int] = set()
    while empty < 2:  # a process in the midst of exec shows no environment for an instant
        left = find_leftovers(tokens)
        empty = 0 if left else empty + 1
        waited = time.monotonic() - start
        if waited > grace_s + _KILL_S:
            break
        if waited > grace_s:
            for pid in left:
                _kill(pid, tokens)
        if left or empty == 1:
            time.sleep(_TICK_S)
    return left


def _kill(pid: int, tokens: Collection[str]) -> None:
    """Kill the process that bears a token, and no other one that has got its number meanwhile."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if pid in find_leftovers(tokens):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)

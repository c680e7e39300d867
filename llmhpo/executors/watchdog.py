"""What a job's whole process tree uses, looked at every quarter of a second. Imports nothing heavy.

Why not rlimits: they hold for single processes, and one on address space breaks `import torch`. What happens between two
looks is not seen: a limit is passed by what a job can use in a quarter of a second.
"""

from __future__ import annotations

import os
import time

from llmhpo.executors.tree import descendants, read

PERIOD_S = 0.25
NAMES = ("memory", "cpu", "processes", "output", "disk")  # bytes, seconds, number, bytes, bytes
AT_ONCE = frozenset({"memory", "processes", "disk"})  # what harms the computer while a grace runs
_SHARE = 0.05  # of one core, at most, for looking
_ENTRY_BYTES = 4096  # what a file costs at least: many empty ones fill a disk as well
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOCK = os.sysconf("SC_CLK_TCK")


class Watchdog:
    """Compares what the descendants of this process use with `limits`, one number for each of `NAMES` (inf: none).

    `folders` are those whose content counts as disk. After a look that found something, `figure` says how much it was;
    `peak` is the largest memory seen, in bytes.
    """

    def __init__(self, limits: str, folders: str) -> None:
        self.limits = dict(zip(NAMES, map(float, limits.split(",")), strict=True))
        self.folders = [folder for folder in folders.split("\n") if folder]
        self.figure = self.peak = 0.0
        self.due = time.monotonic() + PERIOD_S

    def look(self, printed: int) -> str:
        """The name of a limit that is passed now, "" for none; `printed` is the bytes of output so far."""
        start = time.monotonic()
        passed = self._passed(*_use(descendants(os.getpid())), printed)
        now = time.monotonic()
        self.due = now + max(PERIOD_S, (now - start) / _SHARE)
        return passed

    def look_back(self, printed: int) -> str:
        """The same when all have ended, so that a limit holds for a quick job as for a slow one."""
        return self._passed(0, 0.0, {}, printed)

    def _passed(self, processes: int, cpu_s: float, resident: dict[int, int], printed: int) -> str:
        times = os.times()
        found = {
            "memory": self._memory(resident),
            "cpu": cpu_s + times.children_user + times.children_system,  # of those that have ended
            "processes": float(processes),
            "output": float(printed),
        }
        if self.limits["disk"] < float("inf"):
            found["disk"] = float(_stored(self.folders, self.limits["disk"]))
        for name, figure in found.items():
            if figure > self.limits[name]:
                self.figure = figure
                return name
        return ""

    def _memory(self, resident: dict[int, int]) -> float:
        """Bytes of memory. Pages that processes share count once, but that is looked up, slowly, only where it matters."""
        used = sum(resident.values())
        if used > self.limits["memory"]:
            used = sum(_proportional(pid, size) for pid, size in resident.items())
        self.peak = max(self.peak, used)
        return float(used)


def _use(pids: set[int]) -> tuple[int, float, dict[int, int]]:
    """Number of processes, their CPU seconds with those of children they waited for, and resident bytes by process."""
    ticks, resident = 0, {}
    for pid in pids:
        try:
            fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError:  # ended meanwhile
            continue
        ticks += sum(map(int, fields[11:15]))
        resident[pid] = int(fields[21]) * _PAGE
    return len(resident), ticks / _CLOCK, resident


def _proportional(pid: int, resident: int) -> int:
    try:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except OSError:  # ended meanwhile, or another user's
        pass
    return resident


def _stored(folders: list[str], limit: float) -> int:
    """Bytes that the entries below `folders` take on disk (holes take none); counting ends where `limit` is passed."""
    total, waiting = 0, list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += max(entry.stat(follow_symlinks=False).st_blocks * 512, _ENTRY_BYTES)
                    if total > limit:
                        return total
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:  # removed meanwhile
            continue
    return total

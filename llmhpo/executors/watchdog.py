"""What a job's whole process tree uses, looked at every quarter of a second. Imports nothing heavy.

Why not rlimits: they hold for single processes, and one on address space breaks `import torch`. What happens between two
looks is not seen: a limit is passed by what a job can use in a quarter of a second.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator

from llmhpo.executors.tree import descendants, read

PERIOD_S = 0.25
NAMES = ("memory", "cpu", "processes", "output", "disk", "files")  # bytes, seconds, number, bytes, bytes, number
AT_ONCE = frozenset({"memory", "processes", "disk", "files"})  # what harms the computer while a grace runs
_SHARE = 0.05  # of one core, at most, for looking
PROCESSES = 1000  # how many a job may have where nobody says
_THREADS, _FEW_THREADS = 10, 2000  # that many a process may be there, and that many in any case
_DESCRIPTORS = 4_000  # looked at in one look at most: more of them delay the next look, and so the other limits
_ENTRY_BYTES = 4096  # what a file costs at least: many empty ones fill a disk as well
_IN_MEMORY = ("/tmp", "/dev/shm")  # what a sandbox mounts for its job alone
# Without them, as on Windows, nothing is watched, but imported all the same.
_PAGE, _CLOCK = map(os.sysconf, ("SC_PAGE_SIZE", "SC_CLK_TCK")) if hasattr(os, "sysconf") else (4096, 100)


class Watchdog:
    """Compares what the descendants of this process use with `limits`, one number for each of `NAMES` (inf: none).

    `folders` are those whose content counts as disk and files. File systems in memory that a sandbox has mounted for the job
    alone count as memory and files; where it `shares_memory` with others, what /dev/shm has grown by counts as memory. After a look that found something, `figure` says how much it was;
    `peak` is the largest memory seen, in bytes. A job that is not `sandboxed` may have any number of threads, as a computer with
    many cores gives it, unless somebody chose a number of processes; and its files without a name count in `folders` only.
    """

    def __init__(self, limits: str, folders: str, *, shares_memory: bool = False, sandboxed: bool = False) -> None:
        self.limits = dict(zip(NAMES, map(float, limits.split(",")), strict=True))
        self.folders = [folder for folder in folders.split("\n") if folder]
        self.figure = self.peak = 0.0
        self._memory_at = _memory_device()
        self._shared_before = _used("/dev/shm")[0] if shares_memory else -1
        processes = self.limits["processes"]
        self._threads = most_threads(processes) if sandboxed or processes != PROCESSES else float("inf")
        # Elsewhere nothing is counted; a sandbox has other paths, and gives no room elsewhere.
        self._within = ("",) if sandboxed else tuple(f"{os.path.realpath(folder)}/" for folder in self.folders)
        self._descriptors: Iterator[str] | None = None
        self._nameless: dict[tuple[int, int], int] = {}
        self.due = time.monotonic() + PERIOD_S

    def look(self, printed: int) -> str:
        """The name of a limit that is passed now, "" for none; `printed` is the bytes of output so far."""
        start = time.monotonic()
        pids = descendants(os.getpid())
        mounted = _mounted(pids) if self._shared_before < 0 else (_used("/dev/shm")[0] - self._shared_before, 0)
        is_bound = min(self.limits["memory"], self.limits["disk"], self.limits["files"]) < float("inf")
        nameless = self._open_nameless(pids) if is_bound else {}
        in_memory = max(0, mounted[0]) + sum(
            size for (device, _), size in nameless.items() if device == self._memory_at
        )
        passed = self._passed(*_use(pids, self._threads), printed, in_memory, mounted[1], nameless)
        now = time.monotonic()
        self.due = now + max(PERIOD_S, (now - start) / _SHARE)
        return passed

    def look_back(self, printed: int) -> str:
        """The same when all have ended, so that a limit holds for a quick job as for a slow one."""
        return self._passed(0, 0.0, {}, printed)

    def _passed(
        self,
        processes: int,
        cpu_s: float,
        resident: dict[int, int],
        printed: int,
        mounted: int = 0,
        entries: int = 0,
        nameless: dict[tuple[int, int], int] | None = None,
    ) -> str:
        times = os.times()
        found = {
            "memory": self._memory(resident, mounted),
            "cpu": cpu_s + times.children_user + times.children_system,  # of those that have ended
            "processes": float(processes),
            "output": float(printed),
        }
        if min(self.limits["disk"], self.limits["files"]) < float("inf"):
            stored, files, devices = _stored(self.folders, self.limits["disk"], self.limits["files"])
            more = [size for (device, _), size in (nameless or {}).items() if device in devices]
            found |= {"disk": float(stored + sum(more)), "files": float(files + len(more) + entries)}
        for name, figure in found.items():
            if figure > self.limits[name]:
                self.figure = figure
                return name
        return ""

    def _open_nameless(self, pids: set[int]) -> dict[tuple[int, int], int]:
        """Bytes of the files that processes hold open and that have no name, or none any more, by device and number. Where there
        are too many descriptors for one look, the next ones go on, and what was found so far counts.
        """
        if self._descriptors is None:
            self._descriptors, self._nameless = _descriptors(pids), {}
        for _ in range(_DESCRIPTORS):
            if (path := next(self._descriptors, None)) is None:
                self._descriptors = None
                break
            try:
                about = os.stat(path)  # noqa: PTH116 - see `_device`
                if about.st_nlink or not stat.S_ISREG(about.st_mode):
                    continue
                is_ours = about.st_dev == self._memory_at or os.readlink(path).startswith(self._within)  # noqa: PTH115
            except OSError:  # closed meanwhile
                continue
            if is_ours:
                self._nameless[about.st_dev, about.st_ino] = max(about.st_blocks * 512, _ENTRY_BYTES)
        return self._nameless

    def _memory(self, resident: dict[int, int], mounted: int) -> float:
        """Bytes of memory. Pages that processes share, or have from a file in memory, count once, but that is looked up, slowly,
        only where it matters.
        """
        used = sum(resident.values()) + mounted
        if used > self.limits["memory"]:
            shares = [_proportional(pid, size) for pid, size in resident.items()]
            used = sum(size for size, _ in shares) + max(0, mounted - sum(shared for _, shared in shares))
        self.peak = max(self.peak, used)
        return float(used)


def most_threads(processes: float) -> float:
    """How many threads a job may have that may have so many processes."""
    return max(_THREADS * processes, _FEW_THREADS)


def _use(pids: set[int], many: float) -> tuple[int, float, dict[int, int]]:
    """Number of processes (of threads, where these are too `many`: they take numbers of processes as well), their CPU seconds
    with those of children they waited for, and resident bytes by process.
    """
    ticks, threads, resident = 0, 0, {}
    for pid in pids:
        try:
            fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError:  # ended meanwhile
            continue
        ticks += sum(map(int, fields[11:15]))
        threads += int(fields[17])
        resident[pid] = int(fields[21]) * _PAGE
    return threads if threads > many else len(resident), ticks / _CLOCK, resident


def _proportional(pid: int, resident: int) -> tuple[int, int]:
    """A process's share of the memory it uses, and how much of that are shared pages or files in memory, in bytes."""
    try:
        lines = read(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:  # ended meanwhile, or another user's
        return resident, 0
    found = {line.split()[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(b"Pss")}
    return found.get(b"Pss:", resident), found.get(b"Pss_Shmem:", 0)


def _mounted(pids: set[int]) -> tuple[int, int]:
    """Bytes and entries of the file systems in memory that these processes see where this one sees others."""
    for pid in sorted(pids, reverse=True):  # the monitor of a sandbox, which sees what we see, came first
        places = [f"/proc/{pid}/root{place}" for place in _IN_MEMORY]
        try:
            if all(_device(path) != _device(place) for path, place in zip(places, _IN_MEMORY, strict=True)):
                found = [_used(path) for path in places]
                return sum(size for size, _ in found), sum(count for _, count in found)
        except OSError:  # ended meanwhile
            continue
    return 0, 0


def _device(place: str) -> int:
    return os.stat(place).st_dev  # noqa: PTH116 - pathlib costs 10 ms of start-up


def _used(place: str) -> tuple[int, int]:
    """Bytes and entries of the file system at `place`. Raises: OSError."""
    use = os.statvfs(place)
    return (use.f_blocks - use.f_bfree) * use.f_frsize, use.f_files - use.f_ffree


def held_bytes(folders: list[str], limit: float) -> float:
    """What the watchdog counts as disk in these folders, or more than `limit`, where it stops counting."""
    return _stored(folders, limit, float("inf"))[0]


def _stored(folders: list[str], limit: float, most: float) -> tuple[float, float, set[int]]:
    """Bytes on disk (holes take none) and number of the entries below `folders`, and the devices of these; counting ends where one
    is passed. A folder that the job hides from us, as one nested too deep for a path, may hold anything: its entries are
    infinite, and where any number of them is allowed, its bytes.
    """
    total, count, waiting = 0, 0.0, list(folders)
    devices = {_device(folder) for folder in folders if os.path.exists(folder)}  # noqa: PTH110 - see `_device`
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if (about := _about(entry)) is None:
                        continue
                    devices.add(about.st_dev)  # overlays and mounts give files other devices than folders
                    total += max(about.st_blocks * 512, _ENTRY_BYTES)
                    if total > limit or count > most:
                        return total, count, devices
                    if stat.S_ISDIR(about.st_mode):
                        waiting.append(entry.path)
        except OSError as error:
            if _hides(folder, error):
                count = float("inf")
            continue  # else removed meanwhile, or another user's
    return float("inf") if count == most == float("inf") else total, count, devices


def _hides(folder: str, error: OSError) -> bool:
    """Whether it is the job's doing that we cannot look into a folder: it nested it too deep, or closed one of its own."""
    try:
        return error.errno == errno.ENAMETOOLONG or (
            error.errno == errno.EACCES and os.stat(folder).st_uid == os.geteuid()  # noqa: PTH116
        )
    except OSError:  # removed meanwhile, or the folder above was closed, which counts at the next look
        return False


def _about(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # or a job that makes and removes files without a pause would hide the rest of the folder
        return None


def _memory_device() -> int:
    """The device of files that are in memory alone (`memfd_create(2)`); -1 where there are none."""
    if not hasattr(os, "memfd_create"):
        return -1
    fd = os.memfd_create("llmhpo")
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _descriptors(pids: set[int]) -> Iterator[str]:
    """The paths of all that processes hold open."""
    for pid in sorted(pids):
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    yield entry.path
        except OSError:  # ended meanwhile
            continue

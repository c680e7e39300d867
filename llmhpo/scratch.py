"""Folders in the system's temporary folder that nobody's death leaves behind.

Whoever makes one holds a lock on it, which the kernel lifts when the process ends, however it ends. A folder that can be locked has no
owner any more: the next process that makes one removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

if os.name == "posix":  # elsewhere nothing is locked, and nothing swept
    import fcntl

# Of this machine: where nodes share a folder for temporary files, a lock may be seen on one of them only.
_PREFIX = f"llmhpo.{hashlib.sha256(platform.node().encode()).hexdigest()[:6]}-"
_swept = set[Path]()


class Scratch:
    """A new folder for this user alone, at `path`, in `root` or where the system wants temporary files to be.

    It is there until `remove` is called, the `with` is left, nobody refers to this object any more, or the process ends.

    Raises: OSError where it cannot be made.
    """

    def __init__(self, root: Path | None = None) -> None:
        root = Path(tempfile.gettempdir() if root is None else root).resolve()
        if root not in _swept:
            _swept.add(root)
            _sweep(root)
        draft = Path(tempfile.mkdtemp(prefix="llmhpo.draft-", dir=root))
        lock = _lock(draft)
        # Under this name only when it is locked: another process may be sweeping at this moment.
        self.path = draft.rename(root / (_PREFIX + draft.name.rpartition("-")[2]))
        self.remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _lock(folder: Path) -> int | None:
    """A descriptor that keeps the folder locked; None where somebody else does, and where there are no such locks."""
    if os.name != "posix":
        return None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:
        pass  # held
    os.close(lock)
    return None


def _sweep(root: Path) -> None:
    """Remove what processes of this user have left that were killed."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = _lock(folder)
            if lock is not None:
                _remove(folder, lock, os.getpid())


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() != owner:  # a forked child ends earlier
        return
    with contextlib.suppress(RecursionError):  # folders nested too deep
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)

"""One at a time: a lock among all processes of a machine, and their threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX: then nothing is locked
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that the file `path` stands for; it is made where it is not there, and freed when its holder dies.

    Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if (
                fcntl is not None
            ):  # said, and not left to the closing: a child that was forked meanwhile has the file open, too
                fcntl.flock(lock, fcntl.LOCK_UN)

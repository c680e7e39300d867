"""A full disk is waited out: what cannot be written now is written when somebody has made space."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTLE_BYTES = 1 << 20  # a disk with less than this free is full
MESSAGE = "the disk is full: make space"
_RETRY_S = 0.5
_log = logging.getLogger("llmhpo")
_T = TypeVar("_T")


def when_there_is_space(work: Callable[[], _T], what: str, *, is_over: Callable[[], bool] = lambda: False) -> _T:
    """Do `work`. While it finds the disk full, say so once, naming `what` cannot be written, wait, and do it again.

    Raises: what `work` raises for other reasons, and its OSError where `is_over` says that nobody needs it any more.
    """
    told = False
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in FULL or is_over():
                raise
            if not told:
                _log.warning("%s: %s; this waits, and goes on by itself", what, MESSAGE)
            told = True
        time.sleep(_RETRY_S)


def is_full(folder: Path) -> bool:
    """Whether the disk of `folder` has next to nothing left; False where its system does not say."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return False
    return usage.total > 0 and usage.free < LITTLE_BYTES

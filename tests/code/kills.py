"""Kills with SIGKILL at chosen points of what a function does."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run `action` in a fork that kills itself at its `step`-th call of any function; whether it got so far."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def watch(*_: object) -> None:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(watch)
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def points(action: Callable[[], object], tries: int, before: Callable[[], object] = lambda: None) -> list[int]:
    """Steps spread over all of `action`, which is run in forks to count them, the same at each run.

    `before` puts things back between them.
    """

    def reaches(step: int) -> bool:
        before()
        return killed_at(step, action)

    low, high = 1, 2
    while reaches(high):
        low, high = high, high * 2
    while high - low > max(2, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return sorted(random.Random(0).sample(range(1, low), min(tries, low - 1)))

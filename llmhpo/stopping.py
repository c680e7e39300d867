"""Signals to the command line. Ctrl-C once stops cleanly, twice at once; SIGTERM, by which batch systems and rented machines
say that they take the computer away, saves what there is and ends with status 0 within 5 s.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from llmhpo.executors.process import count_living, hasten_all

PREEMPTED_GRACE_S = 2.5  # of the 5 s: for the jobs, between SIGTERM and SIGKILL
_PREEMPTED_S = 4.5  # then this process ends in the midst of what it does: what was told to have ended is on the disk
_AT_ONCE_S = 1.0
_state: set[str] = set()


class Preempted(KeyboardInterrupt):
    """SIGTERM has come: end the running jobs and leave."""


def install() -> None:
    """Answer SIGINT and SIGTERM in this process, as described at the top. Only for a program that is ours."""
    _state.clear()
    signal.signal(signal.SIGINT, _on_interrupt)
    signal.signal(signal.SIGTERM, _on_preemption)


def leave_if_stopped(status: object) -> None:
    """Where this process was told to stop, end it here: with 0 after a preemption, else with `status`.

    The interpreter's own end takes seconds where much was imported, on a busy machine.
    """
    if _state:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(0 if "preempted" in _state else status if isinstance(status, int) else int(status is not None))


def farewell(what: str) -> str:
    """What to tell somebody whose study was stopped; `what` names its parts in the plural."""
    word = "preempted" if "preempted" in _state else "stopped"
    return f"{word}; finished {what} are kept, unfinished ones run again: run the same command to go on"


def _on_interrupt(_signal: int, _frame: object) -> None:
    if "stopping" in _state:
        hasten_all(0.0)
        _leave_after(_AT_ONCE_S, 130)
        return
    _state.add("stopping")
    if count_living():
        _say("stopping: running jobs get some seconds to save; press Ctrl-C again to end them at once")
    raise KeyboardInterrupt


def _on_preemption(_signal: int, _frame: object) -> None:
    if "preempted" in _state:
        return
    _state.add("preempted")
    hasten_all(PREEMPTED_GRACE_S)
    _leave_after(_PREEMPTED_S, 0)
    if "stopping" not in _state:
        _state.add("stopping")
        raise Preempted


def _leave_after(seconds: float, status: int) -> None:
    def leave() -> None:
        _say(farewell("trials"))
        os._exit(status)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def _say(text: str) -> None:
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, f"\n{text}\n".encode())
    except OSError:  # nobody listens any more
        return

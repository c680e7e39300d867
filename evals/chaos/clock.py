"""Clocks that jump by an hour and by ten years, forwards and backwards, while a study runs and between its sessions.

The wall clock that Python code reads is set by this case, again and again; the monotonic clock and the time since the boot differ
between sessions, as after a move to another machine, by time namespaces of the kernel. Time limits, the lease, the patience
with a slow model and the deadline of a request must hold.
"""

from __future__ import annotations

import datetime
import importlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import llmhpo
from evals.chaos.base import Row, count, in_child, study_problems, wait_for
from evals.chaos.pair import control
from llmhpo.errors import LLMError
from llmhpo.events import Event, Launched
from llmhpo.llm import make_llm
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.store import load_study

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
JUMPS_S = (3600.0, -3600.0, 10 * 365.25 * 86400, -10 * 365.25 * 86400)
# Every other job goes on beyond its time limit.
JOB = ["sh", "-c", 'test $((LLMHPO_TRIAL % 2)) = 0 || sleep 60; printf \'{{"value": {x}}}\' > "$LLMHPO_RESULT"']
_LIMIT_S, _SLOW_S, _DEADLINE_S, _LATE_S = 2.0, 30.0, 1.0, 20.0  # late: on a machine with other work
_TRIALS, _MANY = 6, 40
_PERIOD_S = 0.25


class _SlowModel(ScriptedModel):
    """Answers when everybody should have stopped waiting for it."""

    def complete(self, request: Request) -> Completion:
        time.sleep(_SLOW_S)
        return super().complete(request)


def run(rounds: int, folder: Path, _seed: int) -> Row:
    """So many studies under jumps, and as many in sessions with other clocks."""
    start = time.monotonic()
    names = (
        "controller failed",
        "time limit missed",
        "waited for the model",
        "second controller got in",
        "deadline missed",
    )
    row = Row("clock", rounds, dict.fromkeys(names, 0))
    for i in range(rounds):
        _jumps(folder / f"jumps{i}", row)
        _sessions(folder / f"sessions{i}", row)
    row.seen |= {"jumps": ", ".join(f"{s:+.0f} s" for s in JUMPS_S), "seconds": round(time.monotonic() - start)}
    return row


def _jumps(place: Path, row: Row) -> None:
    place.mkdir()
    pid = in_child(partial(_study, place))
    wait_for(place / "runs" / NAME / "events.jsonl", '"kind":"launch"')
    for k in range(2):  # while it runs, other controllers come, with clocks that jump as well
        time.sleep(0.5)
        second = in_child(partial(_second, place, k))
        refused = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 2
        is_over = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        row.zero["second controller got in"] += not refused and not is_over
    end = os.waitpid(pid, 0)
    row.zero["controller failed"] += end[1] != 0
    if end[1]:
        return
    missed, launched = map(float, (place / "told").read_text().split())
    row.zero["deadline missed"] += int(missed)
    row.zero["waited for the model"] += launched >= _SLOW_S
    study = place / "runs" / NAME
    for trial in load_study(f"sqlite:///{study / 'study.db'}", NAME).trials:
        assert trial.outcome is not None
        is_late = trial.number % 2 == 1
        held = _LIMIT_S <= trial.outcome.seconds < _LIMIT_S + _LATE_S if is_late else trial.outcome.status == "ok"
        row.zero["time limit missed"] += not held
    row.add(study_problems(study, NAME, _TRIALS))


def _study(place: Path) -> None:
    """A study with jobs that are too slow and a model that is, and a request to a service that never answers."""
    set_clock_again_and_again()
    begun, seconds = time.monotonic(), list[float]()

    def tell(event: Event) -> None:
        if isinstance(event, Launched):
            seconds.append(time.monotonic() - begun)

    llmhpo.optimize(
        JOB, SPACE, llm=_SlowModel(["no idea"] * 20), n_trials=_TRIALS, n_workers=2, timeout_s=_LIMIT_S, seed=1,
        study_name=NAME, cwd=place, on_event=tell,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        model = make_llm("openai:m")
        assert model is not None
        importlib.import_module("openai")  # takes a while, which is no part of the deadline
        start = time.monotonic()
        try:
            model.complete(Request((Message("user", "?"),), deadline_s=_DEADLINE_S))
        except LLMError:
            took = time.monotonic() - start
        else:
            took = float("inf")
        model.close()
    (place / "told").write_text(f"{int(not _DEADLINE_S * 0.5 <= took < _DEADLINE_S + _LATE_S)} {seconds[2]}")


def _second(place: Path, k: int) -> None:
    set_clock_again_and_again()
    control(place, _TRIALS, place / f"words{k}")


def set_clock_again_and_again() -> None:
    """Let the wall clock of this process jump from now on: what `time.time` and `datetime.now` tell."""
    shift, real, real_ns, moment = [0.0], time.time, time.time_ns, datetime.datetime

    class Shifted(moment):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return moment.fromtimestamp(real() + shift[0], tz)

    def jump() -> None:
        for shift[0] in itertools.cycle(JUMPS_S):
            time.sleep(_PERIOD_S)

    time.time = lambda: real() + shift[0]
    time.time_ns = lambda: real_ns() + int(shift[0] * 1e9)
    datetime.datetime = Shifted  # type: ignore[misc]
    threading.Thread(target=jump, daemon=True).start()


def _sessions(place: Path, row: Row) -> None:
    """Sessions on one study, each killed but the last, each with another monotonic clock and another time since the boot."""
    place.mkdir()
    study = place / "runs" / NAME
    for since_boot_s in (JUMPS_S[2], JUMPS_S[0], 0):
        clocks = ["unshare", "-rT", "--monotonic", f"{since_boot_s:.0f}", "--boottime", f"{since_boot_s:.0f}"]
        if since_boot_s and subprocess.run([*clocks, "true"], capture_output=True, check=False).returncode:
            row.seen["time namespaces"] = "cannot be made here"
            continue
        command = [sys.executable, "-m", "evals.chaos.pair", str(place), str(_MANY), "2.0", "session"]
        sessions = count(study / "events.jsonl", '"kind":"open"')
        first = subprocess.Popen([*(clocks if since_boot_s else []), *command])
        if since_boot_s:
            wait_for(study / "events.jsonl", '"kind":"open"', more_than=sessions)
            second = in_child(partial(control, place, _MANY, place / "words"))
            refused = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 2
            row.zero["second controller got in"] += not refused and first.poll() is None
            first.send_signal(signal.SIGKILL)
        row.zero["controller failed"] += first.wait() not in (0, -signal.SIGKILL)
    row.add(study_problems(study, NAME, _MANY))

"""Two controllers want one study.

`run`: both start at the same moment; one runs the study, the other ends with an error that names it. `run_stale`: a controller
stands still (SIGSTOP); another one, in a process namespace of its own as in another container, takes it for dead after a while and
runs the study; the first one wakes up (SIGCONT) and must not write.

    python -m evals.chaos.pair FOLDER N_TRIALS DEAD_S        # one controller
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import llmhpo
from evals.chaos.base import Row, in_child, study_problems, wait_for
from llmhpo.errors import StudyLockedError
from llmhpo.events import Event
from llmhpo.store.lease import DEAD_S, Lease

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
# While there is a file `hold`, trials from the sixth on do not end: who is to be met in the study is not through with it.
_HELD = "test ! -e hold || test $LLMHPO_TRIAL -lt 6 || sleep 100"
JOB = ["sh", "-c", f'sleep 0.2; {_HELD}; printf \'{{{{"value": {{x}}}}}}\' > "$LLMHPO_RESULT"']
_MEET_S = 60.0
_ELSEWHERE = ["unshare", "-rpf", "--mount-proc"]  # where the first controller's processes cannot be seen


def control(folder: Path, n_trials: int, words: Path, on_event: Callable[[Event], None] | None = None) -> None:
    """Run the study; what stops it is written to `words`. Ends with status 2 where another controller has it, as the command does."""
    try:
        llmhpo.optimize(
            JOB, SPACE, llm=None, n_trials=n_trials, n_workers=2, seed=1, study_name=NAME, cwd=folder, progress=False,
            on_event=on_event,
        )  # fmt: skip
    except StudyLockedError as error:
        words.write_text(str(error))
        os._exit(2)


def run(rounds: int, folder: Path, seed: int) -> Row:
    """Pairs that start at the same moment, on a new study or on one that is there."""
    rng, start, seen = random.Random(seed), time.monotonic(), Counter[str]()
    row = Row("two controllers", rounds, {"not exactly one ran": 0, "the other did not name it": 0})
    for i in range(rounds):
        place = folder / f"study{i // 4}"  # every fourth pair makes it
        place.mkdir(exist_ok=True)
        n_trials = 2 * (i % 4 + 1)
        words = [place / f"words{i}.{k}" for k in range(2)]
        ends = _together(place, n_trials, words, [rng.uniform(0, 0.05) for _ in words])
        said = "".join(path.read_text() for path in words if path.exists())
        winner = next((pid for pid, end in ends.items() if end == 0), 0)
        row.zero["not exactly one ran"] += sorted(ends.values()) != [0, 2]
        row.zero["the other did not name it"] += f"pid {winner} on {os.uname().nodename}" not in said
        seen["on a new study"] += i % 4 == 0
        if i % 4 == 3 or i == rounds - 1:
            row.add(study_problems(place / "runs" / NAME, NAME, n_trials))
    row.seen |= seen | {"seconds": round(time.monotonic() - start)}
    return row


def _together(place: Path, n_trials: int, words: list[Path], delays: list[float]) -> dict[int, int]:
    """Start a controller for each file of `words`; the status that each ended with, by number."""
    read, write = os.pipe()
    both = [in_child(partial(_start, read, d, place, n_trials, words, w)) for d, w in zip(delays, words, strict=True)]
    os.write(write, b"go")
    ends = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in both}
    os.close(read)
    os.close(write)
    return ends


def _start(read: int, delay_s: float, folder: Path, n_trials: int, both: list[Path], mine: Path) -> None:
    def meet(_: Event) -> None:  # on a busy machine the study may be over before the other one has begun
        end = time.monotonic() + _MEET_S
        while not any(words.exists() for words in both) and time.monotonic() < end:
            time.sleep(0.01)

    os.read(read, 1)
    time.sleep(delay_s)
    control(folder, n_trials, mine, meet)


def run_stale(rounds: int, folder: Path, _seed: int) -> Row:
    """Controllers that stood still until another one had their study. Short lease times but in the first of many rounds."""
    start = time.monotonic()
    if subprocess.run([*_ELSEWHERE, "true"], capture_output=True, check=False).returncode:
        return Row("stale controller", 0, skipped="no process namespace can be made")
    row = Row(
        "stale controller", rounds, dict.fromkeys(("not stopped", "wrote after its successor", "did not name it"), 0)
    )
    for i in range(rounds):
        place = folder / f"study{i}"
        place.mkdir()
        dead_s = DEAD_S if rounds > 5 and i == 0 else 2.0
        _one_stale(place, dead_s, row)
    row.seen |= {"seconds": round(time.monotonic() - start)}
    return row


def _one_stale(place: Path, dead_s: float, row: Row) -> None:
    log, n_trials = place / "runs" / NAME / "events.jsonl", 8
    command = [sys.executable, "-m", "evals.chaos.pair", str(place), str(n_trials), str(dead_s)]
    (place / "hold").touch()
    first = subprocess.Popen([*command, "first"])
    wait_for(log, '"kind":"result"')
    _stop_between_writes(first, place / "runs" / NAME / "study.db")
    (place / "hold").unlink()
    second = subprocess.run([*_ELSEWHERE, *command, "second"], check=False)
    written = log.read_bytes()
    first.send_signal(signal.SIGCONT)
    row.zero["not stopped"] += first.wait() != 2 or second.returncode != 0
    row.zero["wrote after its successor"] += log.read_bytes() != written
    words = place / "words.first"
    row.zero["did not name it"] += not (words.exists() and "taken over" in words.read_text())
    row.add(study_problems(place / "runs" / NAME, NAME, n_trials))


def _stop_between_writes(controller: subprocess.Popen[bytes], file: Path) -> None:
    """Stopped within a write it would keep the file locked, and a successor could only say so and wait."""
    while True:
        controller.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(file, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                controller.send_signal(signal.SIGCONT)
            else:
                return
        time.sleep(0.05)


def main() -> None:
    """One controller, with a lease that is short enough to wait for."""
    folder, n_trials, dead_s, who = sys.argv[1:]
    defaults = Lease.__init__.__kwdefaults__
    assert defaults is not None
    defaults["dead_s"], defaults["beat_s"] = float(dead_s), float(dead_s) / 6
    control(Path(folder), int(n_trials), Path(folder) / f"words.{who}")


if __name__ == "__main__":
    main()

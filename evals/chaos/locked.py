"""Another process keeps the study's SQLite file locked for writing, in the middle of the study: it waits, says so, and goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import llmhpo
from evals.chaos.base import Row, in_child, study_problems, wait_for

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
JOB = ["sh", "-c", 'sleep 0.1; printf \'{{"value": {x}}}\' > "$LLMHPO_RESULT"']
_TRIALS = 12
_MESSAGE = "another process keeps the file locked"
_END_S = 60.0


def run(seconds: int, folder: Path, _seed: int) -> Row:
    """A lock for so many seconds."""
    file, log = folder / "runs" / NAME / "study.db", folder / "runs" / NAME / "events.jsonl"
    pid = in_child(
        lambda: llmhpo.optimize(
            JOB, SPACE, llm=None, n_trials=_TRIALS, n_workers=2, seed=1, study_name=NAME, cwd=folder, progress=False
        )
    )
    wait_for(log, '"kind":"result"')
    other = sqlite3.connect(file, timeout=10, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    time.sleep(2.0)  # what was being written to the log is written
    before = log.stat().st_size
    time.sleep(seconds)
    grown = log.stat().st_size - before
    other.execute("ROLLBACK")
    other.close()
    released, end = time.monotonic(), (0, 0)
    while (end := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < released + _END_S:
        time.sleep(0.05)
    if end == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    row = Row("locked", seconds, {"controller failed or stuck": int(end == (0, 0) or end[1] != 0)})
    row.zero["written meanwhile"] = grown
    row.zero["waited without a word"] = int(_MESSAGE not in (folder / "warnings.log").read_text())
    row.add(study_problems(folder / "runs" / NAME, NAME, _TRIALS))
    row.seen |= {
        "seconds locked": seconds,
        "seconds from the end of the lock to the end": round(time.monotonic() - released, 1),
    }
    return row

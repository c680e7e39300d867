"""The controller of a study is killed again and again, at random moments and with jobs running.

Each round forks a controller, lets it run for a random time, and kills it with SIGKILL; what it had told by then, trial by
trial, is what it had acknowledged. A last round runs to the end.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import sys
import time
from pathlib import Path

import llmhpo
from evals.chaos.base import Row, in_child, key_in_processes, study_problems
from llmhpo.audit import replay
from llmhpo.events import Event, Finished
from llmhpo.store import load_study

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}, "n": {"type": "int", "low": 1, "high": 64}}
NAME = "chaos"
LIFE_S = (0.05, 2.0)  # of a controller

# A job leaves a daemon behind that has left its session, works for a moment, and hands its result in.
JOB = """(setsid sleep 120 >/dev/null 2>&1 &); sleep 0.{n}; printf '{{"value": {x}}}' > "$LLMHPO_RESULT.part"
mv "$LLMHPO_RESULT.part" "$LLMHPO_RESULT" """

Told = dict[int, "float | None"]


def run(kills: int, folder: Path, seed: int) -> Row:
    """The rounds, and the count."""
    rng, told, resumes = random.Random(seed), Told(), list[float]()
    start, shown = time.monotonic(), 0
    n_trials = kills + 10
    for _ in range(kills):
        _one_round(folder, n_trials, told, rng.uniform(*LIFE_S), resumes)
        shown += key_in_processes()
    _one_round(folder, n_trials, told, None, resumes)
    row = Row("controller", kills)
    _count(folder, n_trials, told, row)
    row.zero["key shown"] = shown
    row.seen |= {
        "acknowledged": len(told),
        "seconds": round(time.monotonic() - start),
        "resume_s": f"median {statistics.median(resumes):.2f}, slowest {max(resumes):.2f}",
    }
    return row


def _one_round(folder: Path, n_trials: int, told: Told, kill_after_s: float | None, resumes: list[float]) -> None:
    read, write = os.pipe()
    pid = in_child(lambda: _control(folder, n_trials, write))
    os.close(write)
    begun = time.monotonic()
    end = float("inf") if kill_after_s is None else begun + kill_after_s
    data, is_over = b"", False
    while not is_over and (left := end - time.monotonic()) > 0:
        if select.select([read], [], [], min(left, 1.0))[0]:
            if not (part := os.read(read, 1 << 16)):
                is_over = True
            if not data and part:
                resumes.append(time.monotonic() - begun)
            data += part
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    while part := os.read(read, 1 << 16):  # told before it died
        data += part
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if kill_after_s is None and status != 0:
        raise SystemExit(f"the last controller ended with status {status}")
    for line in data.splitlines():
        number, value = json.loads(line)
        if number is not None:
            told[number] = value


def _control(folder: Path, n_trials: int, pipe: int) -> None:
    """The controller, in the forked child."""

    def tell(event: Event) -> None:
        number, value = (event.trial.number, event.trial.value) if isinstance(event, Finished) else (None, None)
        os.write(pipe, json.dumps([number, value]).encode() + b"\n")  # short: whole or not at all

    llmhpo.optimize(
        ["sh", "-c", JOB], SPACE, llm=None, n_trials=n_trials, n_workers=2, seed=1, study_name=NAME, cwd=folder,
        on_event=tell,
    )  # fmt: skip


def _count(folder: Path, n_trials: int, told: Told, row: Row) -> None:
    study = folder / "runs" / NAME
    context = load_study(f"sqlite:///{study / 'study.db'}", NAME)
    kept = {t.number: t.value for t in context.trials if t.outcome is not None}
    again = replay(study / "events.jsonl")
    for line in again.problems:
        sys.stderr.write(f"{line}\n")
    row.zero["acknowledged results lost"] = sum(n not in kept or kept[n] != value for n, value in told.items())
    row.zero |= study_problems(study, NAME, n_trials) | {"other decisions": len(again.problems)}
    row.seen |= {
        "trials": len(context.trials),
        "given up": sum(t.outcome is not None and "given up" in t.outcome.message for t in context.trials),
    }

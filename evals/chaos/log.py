"""The event log is cut off at a random byte, or a random bit of it is flipped, and the study is opened again.

Nothing may break, nothing may pass for sound that is not: `verify` says what is wrong, the study opens all the same with the
trials that it had, and what is damaged is kept under another name. A cut between two lines leaves a log that is whole as
far as it goes; it is told by what the storage holds and the log does not, unless nothing but notes (such as "stop") is gone.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import llmhpo
from evals.chaos.base import Row
from llmhpo.audit import verify
from llmhpo.store import Store, load_study
from llmhpo.trial import Context

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
_NOTES = frozenset({"open", "session", "stop", "question", "launch", "cancelled", "lost"})  # what no storage holds
Damage = Callable[[bytes, random.Random], bytes]


def run_cuts(rounds: int, folder: Path, seed: int) -> Row:
    """So many cuts."""
    return _run("log cut off", lambda data, rng: data[: rng.randrange(len(data))], rounds, folder, seed)


def run_flips(rounds: int, folder: Path, seed: int) -> Row:
    """So many flipped bits."""
    return _run("log with a flipped bit", _flip, rounds, folder, seed)


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _run(case: str, damage: Damage, rounds: int, folder: Path, seed: int) -> Row:
    rng, start = random.Random(seed), time.monotonic()
    zero = dict.fromkeys(
        ("crashes", "passed for sound", "not set aside", "still wrong when opened", "trials changed"), 0
    )
    row, seen = Row(case, rounds, zero), Counter[str]()
    whole = _study(folder / "whole")
    for i in range(rounds):
        place = folder / f"round{i}"
        shutil.copytree(whole, place)
        log = place / "events.jsonl"
        data = damage(log.read_bytes(), rng)
        log.write_bytes(data)
        try:
            _one_round(place, data, whole, row.zero, seen)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            sys.stderr.write(f"{case} {i}: {type(error).__name__}: {error}\n")
            row.zero["crashes"] += 1
        shutil.rmtree(place)
    row.seen |= seen | {"bytes": (whole / "events.jsonl").stat().st_size, "seconds": round(time.monotonic() - start)}
    return row


def _study(folder: Path) -> Path:
    llmhpo.optimize(
        lambda p: float(str(p["x"])), SPACE, llm=None, n_trials=8, seed=1, study_name=NAME, cwd=folder, progress=False, isolated=False
    )  # fmt: skip
    return folder / "runs" / NAME


def _one_round(place: Path, data: bytes, whole: Path, zero: dict[str, int], seen: Counter[str]) -> None:
    log, url = place / "events.jsonl", f"sqlite:///{place / 'study.db'}"
    before = load_study(url, NAME)
    told = not verify(log, before, NAME).is_clean
    if not told:
        gone = (whole / "events.jsonl").read_bytes()[len(data) :].splitlines()
        only_notes = data.endswith(b"\n") and all(
            any(f'"kind":"{k}"'.encode() in line for k in _NOTES) for line in gone
        )
        zero["passed for sound"] += not only_notes
        seen["only notes gone"] += only_notes
    _open_again(url, before, log)
    kept = [p.read_bytes() for p in place.glob("events.jsonl.damaged-*")]
    is_torn = data == (whole / "events.jsonl").read_bytes()[: len(data)]
    zero["not set aside"] += data not in kept and not is_torn
    seen["set aside"] += bool(kept)
    seen["mended"] += told and not kept
    after = load_study(url, NAME)
    zero["still wrong when opened"] += not verify(log, after, NAME).is_clean
    zero["trials changed"] += after.trials != before.trials


def _open_again(url: str, context: Context, log: Path) -> None:
    Store(url, NAME, context.space, context.task, log=log).close()

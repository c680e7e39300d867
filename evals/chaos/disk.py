"""A study on a small disk that is full, again and again, at the very moment at which the study is about to write.

Before every write of the controller (each SQL statement and commit, each line of the event log, each file and folder that is made)
a counter goes up; at every `_STRIDE`-th write the disk is filled to the last byte, and emptied again a moment later. Rounds begin
to count elsewhere, so that a sweep of `_STRIDE` rounds fills the disk before each write of the study. Jobs write there, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import llmhpo
from evals.chaos.base import LEAKS, Row, in_child, leaks, study_problems
from llmhpo.disk import MESSAGE
from llmhpo.store import load_study

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
_STRIDE = 40  # more than a transaction has statements: it is begun again when its disk was full
_FULL_S = 0.3  # so long it stays full
_ROUND_S = 120.0
_TRIALS = 5

# The shell fails where its result cannot be written; `llmhpo.job` waits.
JOBS = {
    "sh": ["sh", "-c", 'sleep 0.1; printf \'{{"value": {x}}}\' > "$LLMHPO_RESULT"'],
    "python": ["{python}", "-c", "from llmhpo import job; job.report(1, {x}); job.result({x})"],
}


def run(rounds: int, folder: Path, seed: int) -> Row:
    """So many studies, each on a disk of its own."""
    row, start = Row("disk full", rounds), time.monotonic()
    totals = dict.fromkeys(("writes", "times full", "pauses told"), 0)
    for i in range(rounds):
        disk = folder / f"disk{i}"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], capture_output=True, text=True, check=False
        )
        if mounted.returncode:
            return Row("disk full", 0, skipped=mounted.stderr.strip())
        _one_round(disk, folder / f"told{i}", (seed + i * _STRIDE // rounds) % _STRIDE, list(JOBS)[i % 2], row)
        for name, count in zip(totals, (folder / f"told{i}").read_text().split(), strict=True):
            totals[name] += int(count)
        row.add({LEAKS: len(leaks(disk))})
        subprocess.run(["umount", str(disk)], check=True)
    row.zero["full without a word"] = int(totals["pauses told"] < totals["times full"] / 4)
    row.seen |= totals | {"trials": rounds * _TRIALS, "seconds": round(time.monotonic() - start)}
    return row


def _one_round(disk: Path, told: Path, first: int, kind: str, row: Row) -> None:
    pid, deadline = in_child(lambda: _control(disk, told, first, kind)), time.monotonic() + _ROUND_S
    while (end := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if end == (0, 0):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    zero = {"controller stuck": int(end == (0, 0)), "controller failed": int(end[1] != 0)}
    if not any(zero.values()):
        study = disk / "runs" / NAME
        context = load_study(f"sqlite:///{study / 'study.db'}", NAME)
        zero |= study_problems(study, NAME, _TRIALS) | {"trials without a value": _TRIALS - len(context.finished)}
    else:
        told.write_text("0 0 0")
    row.add(zero)


def _control(disk: Path, told: Path, first: int, kind: str) -> None:
    filler = _Filler(disk, first)
    filler.watch()
    llmhpo.optimize(
        JOBS[kind], SPACE, llm=None, n_trials=_TRIALS, n_workers=2, seed=1, study_name=NAME, cwd=disk, retries=20,
        progress=False,
    )  # fmt: skip
    filler.stop()
    pauses = sum(MESSAGE in line for line in (disk.parent / "warnings.log").read_text().splitlines())
    told.write_text(f"{filler.writes} {filler.fills} {pauses - filler.pauses_before}")


class _Filler:
    """Fills the disk just before some writes of this process."""

    def __init__(self, disk: Path, first: int) -> None:
        self._disk, self._next, self._thread = disk, first, threading.get_ident()
        self.writes = self.fills = 0
        self._ballast = disk / "ballast"
        self._is_on, self._is_busy = False, threading.local()
        self._release: threading.Timer | None = None
        log = disk.parent / "warnings.log"
        self.pauses_before = sum(MESSAGE in line for line in log.read_text().splitlines()) if log.exists() else 0

    def watch(self) -> None:
        """Count from now on whatever this process is about to write to the disk."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        def audit(name: str, arguments: tuple[object, ...]) -> None:
            if name == "os.mkdir" or (name == "open" and isinstance(arguments[2], int) and arguments[2] & 3):
                self._before(str(arguments[0]))

        write = os.write

        def counted_write(fd: int, data: bytes) -> int:
            self._before(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
            return write(fd, data)

        sys.addaudithook(audit)
        os.write = counted_write  # type: ignore[assignment]
        event.listen(Engine, "before_cursor_execute", lambda *_: self._before(str(self._disk)))
        event.listen(Engine, "commit", lambda *_: self._before(str(self._disk)))
        self._is_on = True

    def _before(self, path: str) -> None:
        if not self._is_on or not path.startswith(str(self._disk)) or getattr(self._is_busy, "now", False):
            return
        self._is_busy.now = True  # what is written here is no write of the study
        try:
            self.writes += 1
            if self.writes >= self._next and not self._ballast.exists():
                self._next = self.writes + _STRIDE
                self.fills += 1
                self._fill()
        finally:
            self._is_busy.now = False

    def _fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
        self._release = threading.Timer(_FULL_S, self._ballast.unlink)
        self._release.start()

    def stop(self) -> None:
        """Count no more."""
        self._is_on = False
        if self._release is not None:
            self._release.join()

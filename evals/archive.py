"""Runs packed small enough to lie in the repository: what README's figures were computed from."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from evals.record import Run

_DIGITS = 7


def pack(runs: Iterable[Run], path: Path) -> int:
    """Write runs, sorted, values to seven digits, without what follows from the rest; returns the size in bytes."""
    lines = []
    for run in sorted(runs, key=lambda r: str(r.key)):
        values = [None if v is None else float(f"{v:.{_DIGITS}g}") for v in run.values]
        lines.append(replace(run, values=values, incumbents=[], seconds=[round(s, 3) for s in run.seconds]).to_line())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
    return path.stat().st_size


def unpack(path: Path) -> list[Run]:
    """The runs of an archive.

    Raises: ValueError where it is none.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        return [_whole(Run.from_line(line)) for line in lines]
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is no archive of runs ({error}); restore it with git checkout") from error


def _whole(run: Run) -> Run:
    best: float | None = None
    incumbents: list[float | None] = []
    for value in run.values:
        if value is not None and (best is None or (value < best if run.direction == "minimize" else value > best)):
            best = value
        incumbents.append(best)
    return replace(run, incumbents=incumbents)

"""The benchmark tasks: one file per kind of data behind one protocol, and the suites they are grouped in."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

from evals.tasks import curve, grid, pool, real, synthetic, yahpo
from evals.tasks.base import Params, Record, Result, Source, Stats, Task

__all__ = ["MINI", "SUITES", "Params", "Result", "Stats", "Task", "data_folder", "load"]

Half = Literal["a", "b"]

MINI = Path(__file__).parents[1] / "mini"
SUITES = ("core", "headline", "mini", "all", "synthetic")
_HEADLINE = ("hpob", "fcnet", "hpobench_mlp", "lcbench_pool", "taskset", "imagenet", "mnli", "real")
_MINI_SYNTHETIC = ("synthetic/branin", "synthetic/mixed_fails")
_READERS: dict[str, Callable[[Record, Source], Task]] = {
    "grid": grid.read,
    "pool": pool.read,
    "curve": curve.read,
    "surrogate": yahpo.read,
    "real": real.read,
}


def data_folder(data: Path | None = None) -> Path:
    """Where tasks.json lies: below `data`, else below LLMHPO_BENCH_DATA, else in ../shared/data, else the mini set.

    Raises: FileNotFoundError where a folder is named and holds no tasks.json.
    """
    named = data or (Path(os.environ["LLMHPO_BENCH_DATA"]) if os.environ.get("LLMHPO_BENCH_DATA") else None)
    candidates = [named] if named else [Path(__file__).parents[3] / "shared" / "data", MINI]
    for root in candidates:
        for folder in (root, root / "dev"):
            if (folder / "tasks.json").exists():
                return folder
    raise FileNotFoundError(
        f"{candidates[0]}: holds no tasks.json, nor does its folder dev; point --data or LLMHPO_BENCH_DATA to the data"
    )


def load(data: Path, suite: str = "core", *, half: Half | None = None, pattern: str = "*") -> list[Task]:
    """The tasks of a suite.

    `core` are the recommended ones, `headline` the core ones of the main families, `all` everything; `mini` is read from
    the set in the repository, wherever `data` is. `half` takes every other task of each family, a (even) to tune on and
    b (odd) to report; `pattern` is a glob over ids, applied last.

    Raises: ValueError for an unknown suite.
    """
    if suite not in SUITES:
        raise ValueError(f"suite {suite!r} is unknown; use one of {', '.join(SUITES)}")
    root = MINI if suite == "mini" else data
    named = [] if suite == "synthetic" else _described(root, suite)
    if suite in ("core", "headline", "all"):
        named += [(t.id, t.family, partial(_given, t)) for t in real.builtin()]
    if suite in ("mini", "all", "synthetic"):
        ids = _MINI_SYNTHETIC if suite == "mini" else synthetic.NAMES
        named += [(id_, "synthetic", partial(synthetic.make, id_)) for id_ in ids]
    families: dict[str, int] = defaultdict(int)
    chosen: list[Task] = []
    for id_, family, make in named:
        place, families[family] = families[family], families[family] + 1
        if (half is None or (place % 2 == 0) == (half == "a")) and fnmatchcase(id_, pattern):
            chosen.append(make())
    return chosen


def _given(task: Task) -> Task:
    return task


def _described(root: Path, suite: str) -> list[tuple[str, str, Callable[[], Task]]]:
    records: list[dict[str, Any]] = json.loads((root / "tasks.json").read_text())
    if suite in ("core", "headline"):
        records = [r for r in records if r["core"] and (suite == "core" or r["family"] in _HEADLINE)]
    source = Source(
        root=root,
        spaces=json.loads((root / "spaces.json").read_text()),
        words={card["id"]: card["task"] for card in _lines(root / "cards.jsonl")},
        recorded={reply["id"]: reply["configs"] for reply in _lines(root / "replies.jsonl")},
    )
    return [(r["id"], r["family"], _reader(r, source)) for r in records]


def _reader(record: Record, source: Source) -> Callable[[], Task]:
    # LCBench is a pool by its real last epoch; its earlier epochs are a surrogate's
    read = pool.read if record["family"] == "lcbench_pool" else _READERS[record["kind"]]
    return partial(read, record, source)


def _lines(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

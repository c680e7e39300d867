"""A study on a small disk that fills up: it pauses, says so, and goes on when there is space."""

from __future__ import annotations

import textwrap
from pathlib import Path

from disks import FILLING, run_on_small_disk

CODE = textwrap.dedent(
    """
    from llmhpo.audit import verify
    from llmhpo.space import SearchSpace
    from llmhpo.store import Store, load_study
    from llmhpo.trial import Outcome, Proposal, Task
    url = f"sqlite:///{folder / 's.db'}"
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    store = Store(url, "s", space, Task(), seed=1, log=folder / "events.jsonl")
    fill()
    for i in range(20):
        number = store.begin(Proposal({"x": i / 20}, "llm", "w" * 2000)).number
        store.finish(number, Outcome("failed", message="m" * 4000))
    store.close()
    context = load_study(url, "s")
    print("ALL", len(context.failed), verify(folder / "events.jsonl", context, "s").problems)
    """
)


def test_a_full_disk_pauses_a_study_and_loses_nothing(tmp_path: Path) -> None:
    run = run_on_small_disk(tmp_path, "2m", FILLING + CODE)
    assert "the disk is full: make space" in run.stdout, run.stderr
    assert "ALL 20 ()" in run.stdout, run.stdout + run.stderr

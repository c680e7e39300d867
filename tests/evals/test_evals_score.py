"""Scores of runs that were written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from evals.record import Key, Run, Start, append_run, read_runs
from evals.report import _joined, critical_difference
from evals.score import Comparison, against, compare, cost_table, family_table, ratio_table, regret_table, tables
from evals.tasks.base import Stats


def by_hand(task: str, arm: str, seed: int, values: list[float | None], start: Start = "unseeded") -> Run:
    incumbents: list[float | None] = []
    for value in values:
        best = min((v for v in [*incumbents[-1:], value] if v is not None), default=None)
        incumbents.append(best)
    n = len(values)
    return Run(
        key=Key(task, arm, seed, start, 1, n, False),
        family=task.split("/")[0],
        direction="minimize",
        stats=Stats(best=0.0, median=1.0),
        revision="abc",
        machine="here",
        values=values,
        incumbents=incumbents,
        sources=["start", *["llm" if arm == "none" else arm] * (n - 1)],
        repeat=[False] * (n - 1) + [arm == "random"],
        seen=[False] * n,
        failed=[v is None for v in values],
        seconds=[0.5] * n,
        requests=2 if arm == "none" else 0,
        completions=7 if arm == "none" else 0,
        input_tokens=30 if arm == "none" else 0,
    )


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    path = tmp_path / "runs.jsonl"
    for seed in (0, 1):
        append_run(path, by_hand("a/1", "random", seed, [1.0, 0.8, 0.9]))
        append_run(path, by_hand("a/1", "none", seed, [1.0, 0.4, 0.2]))
        append_run(path, by_hand("b/1", "random", seed, [None, None, 0.4]))
        append_run(path, by_hand("b/1", "none", seed, [None, 0.6, 0.5]))
    (made,) = compare(read_runs(path))
    return made


def test_regret_is_the_mean_over_tasks_of_the_mean_over_seeds(comparison: Comparison) -> None:
    assert comparison.tasks == ["a/1", "b/1"]
    assert comparison.regrets["random"].tolist() == [[1.0, 0.8, 0.8], [1.0, 1.0, 0.4]]
    assert comparison.regrets["none"].mean(axis=0).tolist() == pytest.approx([1.0, 0.5, 0.35])
    head, best, *_ = regret_table(comparison)
    assert head[:2] == ["arm", "@3"]
    assert best[:2] == ["none", "0.350"]


def test_ranks_share_ties(comparison: Comparison) -> None:
    assert comparison.ranks["none"].tolist() == [[1.5, 1.0, 1.0], [1.5, 1.0, 2.0]]


def test_the_ratio_is_to_the_best_classical_arm(comparison: Comparison) -> None:
    assert comparison.best_classical(3) == "random"
    a = against(comparison, "none", "random", 3)
    assert a.ratio == pytest.approx(0.35 / 0.6)
    assert a.low == pytest.approx(0.2 / 0.8)
    assert a.high == pytest.approx(0.5 / 0.4)
    assert ratio_table(comparison)[1][1] == "1"
    assert a == against(comparison, "none", "random", 3)


def test_shares_and_costs_leave_the_given_trial_out(comparison: Comparison) -> None:
    rows = {row[0]: row for row in cost_table(comparison)[1:]}
    assert rows["random"][1:4] == ["50.0 %", "0.0 %", "25.0 %"]
    assert rows["none"][4:] == ["15", "2.0", "7.0", "0.7500", "llm 100 %"]


def test_families_stand_apart(comparison: Comparison) -> None:
    assert [row[:3] for row in family_table(comparison)[1:]] == [["a", "1", "3"], ["b", "1", "3"]]


def test_arms_that_lack_tasks_are_compared_on_their_own(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for task in ("a/1", "b/1"):
        for arm in ("random", "none"):
            append_run(path, by_hand(task, arm, 0, [1.0, 0.5]))
    append_run(path, by_hand("a/1", "recorded", 0, [1.0, 0.1]))
    everywhere, partly = compare(read_runs(path))
    assert (everywhere.arms, everywhere.tasks) == (["random", "none"], ["a/1", "b/1"])
    assert (partly.arms, partly.tasks) == (["random", "none", "recorded"], ["a/1"])
    assert "tasks of recorded" in partly.title


def test_starts_are_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append_run(path, by_hand("a/1", "random", 0, [1.0]))
    append_run(path, by_hand("a/1", "random", 0, [0.5], start="seeded"))
    assert [c.title.split(",")[0] for c in compare(read_runs(path))] == ["seeded", "unseeded"]


def test_a_perfect_opponent_gives_no_finite_ratio(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append_run(path, by_hand("a/1", "random", 0, [0.0]))
    append_run(path, by_hand("a/1", "none", 0, [0.0]))
    (c,) = compare(read_runs(path))
    assert math.isnan(against(c, "none", "random", 1).ratio)
    assert "nan" in tables([c])


def test_the_critical_difference_is_demsars() -> None:
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)


def test_arms_within_the_critical_difference_are_joined_once() -> None:
    assert _joined([1.0, 1.5, 3.0, 3.2], 1.0) == [(0, 1), (2, 3)]
    assert _joined([1.0, 1.5, 1.9], 1.0) == [(0, 2)]
    assert _joined([1.0, 3.0], 1.0) == []

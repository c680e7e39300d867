"""The command behind README's benchmark section: bars, archive, the section itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_evals_score import by_hand

from evals import benchmark as module
from evals.archive import pack, unpack
from evals.bars import Bar, bar_table, bars
from evals.record import Run, Start, read_runs
from evals.run import Plan
from evals.tasks import data_folder

ROOT = Path(__file__).parents[2]


def runs_of(arm: str, final: float, *, tasks: int = 3, seeds: int = 2, start: Start = "unseeded") -> list[Run]:
    """Fifty trials at 1.0, then from the tenth on at `final`."""
    values: list[float | None] = [1.0] * 9 + [final] * 41
    return [by_hand(f"f/{t}", arm, seed, values, start) for t in range(tasks) for seed in range(seeds)]


def the_bar(found: list[Bar], claim: str, trial: int) -> Bar:
    (bar,) = [b for b in found if b.claim.startswith(claim) and b.trial == trial]
    return bar


def test_a_bar_stands_beside_what_was_measured() -> None:
    found = bars([*runs_of("none", 0.2), *runs_of("tpe", 0.4), *runs_of("random", 0.5), *runs_of("garbage", 0.21)])
    none = the_bar(found, "none / best of random, tpe (tpe)", 25)
    assert (none.measured, none.bound, none.held, none.tasks, none.seeds) == (pytest.approx(0.5), 0.9, True, 3, 2)
    garbage = the_bar(found, "garbage / none", 50)
    assert garbage.measured == pytest.approx(1.05)
    assert not garbage.held
    assert "**no**" in bar_table([garbage])[1]


def test_an_arm_with_fewer_runs_does_not_shrink_the_other_comparisons() -> None:
    found = bars([*runs_of("none", 0.2), *runs_of("tpe", 0.4), *runs_of("smac", 0.3, seeds=1)])
    assert the_bar(found, "none / best of tpe, smac (smac)", 25).seeds == 1
    assert the_bar(found, "none / best of tpe (tpe)", 25).seeds == 2


def test_families_in_which_another_arm_is_better_are_named() -> None:
    found = bars([*runs_of("none", 0.4), *runs_of("tpe", 0.2)])
    worst = the_bar(found, "worst family", 50)
    assert worst.measured == pytest.approx(2.0)
    assert "f 2.00" in worst.claim


def test_recorded_proposals_have_their_own_bars_for_either_start() -> None:
    for start, bound in (("unseeded", 0.5), ("seeded", 0.8)):
        runs = [*runs_of("recorded", 0.2, start=start), *runs_of("tpe", 0.4, start=start)]  # type: ignore[arg-type]
        bar = the_bar(bars(runs), "recorded / best of tpe (tpe)", 25)
        assert (bar.measured, bar.bound, bar.start) == (pytest.approx(0.5), bound, start)


def test_llambo_is_compared_by_regret_and_by_completions() -> None:
    own = [replace(r, completions=8) for r in runs_of("smollm2", 0.2)]
    other = [replace(r, completions=4000) for r in runs_of("llambo:disc@smollm2", 0.4)]
    short = [replace(r, key=replace(r.key, budget=25)) for r in [*own, *other]]
    found = bars(short)
    assert the_bar(found, "regret, smollm2", 25).measured == pytest.approx(0.5)
    assert the_bar(found, "completions, smollm2", 25).measured == pytest.approx(8 / 4000)


def test_the_primary_bars_are_those_with_most_rivals_but_smac() -> None:
    runs = [*runs_of("none", 0.2), *runs_of("tpe", 0.4), *runs_of("gp", 0.4, seeds=1), *runs_of("smac", 0.3, tasks=1)]
    primary = [b for b in bars(runs) if b.primary and b.claim.startswith("none / best")]
    assert [b.claim for b in primary] == ["none / best of tpe, gp (tpe)"] * 2


def test_repeats_are_counted() -> None:
    twice = [replace(r, repeat=[False] * 49 + [True]) for r in runs_of("none", 0.2)]
    assert the_bar(bars(twice), "share of repeats, none", 50).measured == pytest.approx(1 / 50)


def test_without_an_arm_there_is_no_bar() -> None:
    assert not [b for b in bars(runs_of("tpe", 0.2)) if "none" in b.claim or "recorded" in b.claim]


def test_an_archive_keeps_what_figures_are_made_of(tmp_path: Path) -> None:
    runs = [*runs_of("none", 0.123456789), *runs_of("tpe", 0.4)]
    path = tmp_path / "x.jsonl.gz"
    pack(runs, path)
    known = {r.key: r for r in unpack(path)}
    assert known.keys() == {r.key for r in runs}
    for run in runs:
        assert known[run.key].regrets == pytest.approx(run.regrets, abs=1e-6)
        assert known[run.key].sources == run.sources


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    pack(runs_of("none", 0.2), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x\.jsonl\.gz: is no archive"):
        unpack(path)


def test_the_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n")
    module.write_section(readme, "new\n")
    assert readme.read_text() == "before\n<!-- benchmark: begin -->\nnew\n<!-- benchmark: end -->\nafter\n"
    readme.write_text("no marks\n")
    with pytest.raises(ValueError, match="put them back"):
        module.write_section(readme, "new\n")


def test_the_section_in_readme_is_the_one_that_the_archived_runs_give() -> None:
    (archive,) = module.RESULTS.glob("*.jsonl.gz")
    runs = unpack(archive)
    assert module.section(runs) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.report(runs) == (module.RESULTS / "report.md").read_text(encoding="utf-8")


def test_the_command_runs_what_is_missing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- benchmark: begin -->\n<!-- benchmark: end -->\n")
    data = data_folder()
    plan = Plan(data, "mini", ("none", "random"), seeds=1, budget=50, starts=("unseeded",), pattern="hpobench_mlp/*")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "README", readme)
    monkeypatch.setattr(module, "plans", lambda _data: [plan])
    assert module.benchmark(data, tmp_path / "out", show=False) == []
    assert len(read_runs(tmp_path / "out" / "runs.jsonl")) == 2
    assert "random search" in readme.read_text()
    assert "## Bars" in (tmp_path / "results" / "report.md").read_text()
    first = readme.read_text()
    assert module.benchmark(data, tmp_path / "again", show=False) == []
    assert read_runs(tmp_path / "again" / "runs.jsonl") == []
    assert readme.read_text() == first
    with pytest.raises(ValueError, match="no runs of tpe are packed; arms: none, random"):
        module.benchmark(data, tmp_path / "again", again=["tpe"], show=False)
    assert module.benchmark(data, tmp_path / "again", again=["random"], show=False) == []
    assert [r.key.arm for r in read_runs(tmp_path / "again" / "runs.jsonl")] == ["random"]

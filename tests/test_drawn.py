"""Studies without a [space], or with a part of one: run, gone on with, shown; from files and from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmhpo
from llmhpo import job
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError, StudyMismatchError

TRAIN = """
import net
from llmhpo import job
job.result(net.loss() + job.params().get("shift", 0))
"""
NET = """
import llmhpo
def loss():
    if llmhpo.choose("norm", ["layer", "batch"]) == "batch":
        return llmhpo.uniform("momentum", 0, 1)
    return 0.75
"""
STUDY = """
command = "{python} train.py"
metric = "loss"
direction = "minimize"
n_trials = 6
llm = "none"
"""
PART = '[space.shift]\ntype = "float"\nlow = 0\nhigh = 0.01\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", *words], cwd=folder, capture_output=True, text=True, timeout=100
    )


def test_a_study_without_a_space_runs_and_is_shown(folder: Path) -> None:
    ran = command(folder, "run", "--plain")
    assert ran.returncode == 0, ran.stderr
    assert "found norm, momentum" in ran.stderr
    assert "tuned in vain" not in ran.stderr
    shown = command(folder, "show")
    assert shown.returncode == 0, shown.stderr
    assert "norm=batch" in shown.stdout.replace('"', "") or "momentum=" in shown.stdout


def test_what_is_kept_is_not_looked_for_again_until_the_code_changes(folder: Path) -> None:
    told: list[str] = []
    first = read_study_file(folder / "study.toml", tell=told.append)
    assert len(told) == 2
    assert read_study_file(folder / "study.toml", tell=told.append).space == first.space
    assert len(told) == 2
    (folder / "net.py").write_text(NET.replace("0, 1", "0, 2"))
    assert read_study_file(folder / "study.toml").space == first.space
    changed = read_study_file(folder / "study.toml", tell=told.append)
    assert len(told) == 4
    assert changed.space != first.space


def test_nothing_is_run_to_read_a_study(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"study.toml: there is no whole \[space\].*llmhpo run"):
        read_study_file(folder / "study.toml")
    assert not (folder / "runs").exists()


def test_a_damaged_space_is_found_again(folder: Path) -> None:
    kept = folder / "runs" / folder.name / "space.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"sources": "x", "space": {"a": 1}}')
    config = read_study_file(folder / "study.toml", tell=lambda _: None)
    assert config.space.names == ("norm", "momentum")
    assert list(json.loads(kept.read_text())["space"]) == ["norm", "momentum"]


def test_a_part_of_a_space_is_completed(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY + PART)
    config = read_study_file(folder / "study.toml", tell=lambda _: None)
    assert config.space.names == ("shift", "norm", "momentum")
    assert str(config.space["momentum"].when[0]) == "norm = 'batch'"


def test_a_whole_space_runs_nothing(folder: Path) -> None:
    whole = (
        '[space.norm]\ntype = "categorical"\nchoices = ["layer"]\n[space.momentum]\ntype = "float"\nlow = 0\nhigh = 1\n'
    )
    (folder / "study.toml").write_text(STUDY + whole)
    assert read_study_file(folder / "study.toml").space.names == ("norm", "momentum")


def test_optimize_finds_the_space_of_a_command_and_goes_on(folder: Path) -> None:
    kw = {"metric": "loss", "llm": "none", "cwd": folder, "progress": False, "seed": 1}
    first = llmhpo.optimize("{python} train.py", n_trials=4, **kw)  # type: ignore[arg-type]
    assert first.space.names == ("norm", "momentum")
    again = llmhpo.optimize("{python} train.py", n_trials=6, **kw)  # type: ignore[arg-type]
    assert again.study_name == first.study_name
    assert [t.value for t in again.trials[:4]] == [t.value for t in first.trials]
    assert all(t.outcome is not None and t.outcome.status == "ok" for t in again.trials)


def test_a_study_whose_code_draws_otherwise_is_not_gone_on_with(folder: Path) -> None:
    kw = {"metric": "loss", "llm": "none", "cwd": folder, "progress": False, "study_name": "s", "n_trials": 2}
    llmhpo.optimize("{python} train.py", **kw)  # type: ignore[arg-type]
    (folder / "net.py").write_text(NET.replace("momentum", "decay"))
    with pytest.raises(StudyMismatchError):
        llmhpo.optimize("{python} train.py", **kw)  # type: ignore[arg-type]


def test_optimize_finds_the_space_of_a_callable() -> None:
    def objective(_: dict[str, object]) -> float:
        x = llmhpo.uniform("x", 0.0, 1.0)
        job.report(0, x)
        return x

    result = llmhpo.optimize(objective, llm="none", n_trials=5, progress=False, seed=0)
    assert result.space.names == ("x",)
    assert result.trials[0].value == 0.5
    assert len({t.value for t in result.trials}) == 5


def test_the_search_fails_like_the_script(folder: Path) -> None:
    (folder / "net.py").write_text("import nosuch\n")
    ran = command(folder, "run", "--plain")
    assert ran.returncode == 2
    assert "fails with its defaults, before any draw" in ran.stderr
    assert "No module named 'nosuch'" in ran.stderr
    assert "Traceback (most recent call last):\n  File" not in ran.stderr.split("Its last lines")[0]

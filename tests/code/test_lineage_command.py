"""`llmhpo lineage` draws each version of the code below the one that it was made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.config import read_study_file
from llmhpo.param import param_from_dict
from llmhpo.revision import Revision
from llmhpo.store import Store
from llmhpo.trial import Batch, Outcome, Proposal

STUDY = """
command = "python train.py {x}"
metric = "loss"
direction = "minimize"
editable = ["train.py"]

[space.x]
type = "float"
low = 0.0
high = 1.0
"""
BASE, GOOD, CHILD, BROKEN = (name * 40 for name in "abcd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(STUDY)
    config = read_study_file(folder / "study.toml")
    config.directory.mkdir(parents=True)
    store = Store(config.storage, config.study_name, config.space, config.task, seed=1)
    store.begin_edits(Revision(BASE, note="the code as it stood"))
    width = param_from_dict("width", {"type": "int", "low": 1, "high": 8, "default": 2})
    revisions = (
        Revision(GOOD, BASE, (width,), "wider\x1b[31m [bold]", source="draft"),
        Revision(BROKEN, BASE, note="broken", source="draft"),
        Revision(CHILD, GOOD, note="deeper", source="improve"),
    )
    store.record(Batch("edit", 0, 3, revisions=revisions))
    trials = [("", Outcome("ok", 2.0)), (GOOD, Outcome("ok", 1.5)), (BROKEN, Outcome("failed", message="exit code 1"))]
    for code, outcome in [*trials, (CHILD, Outcome("ok", 1.0))]:
        params: dict[str, float | int | str | bool | None] = {"x": 0.5}
        trial = store.begin(Proposal(params | ({"width": 2} if code in (GOOD, CHILD) else {}), "edit", code=code))
        store.finish(trial.number, outcome)
    store.close()
    return folder


def lineage(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmhpo", "lineage", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110)


def test_versions_stand_below_what_they_were_made_from(folder: Path) -> None:
    done = lineage(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 (trial 0) of 1 trial: the code as it stood",
        "├── 1.5 (trial 1) of 1 trial: wider [31m [bold] [draft, tunes width]",
        "│   └── 1 (trial 3) of 1 trial: deeper [improve] <- best",
        "└── failed, 1 trial: broken [draft] (exit code 1)",
    ]


def test_the_picture_is_an_svg(folder: Path) -> None:
    done = lineage(folder, "--svg", "tree.svg")
    assert done.returncode == 0, done.stderr
    picture = (folder / "tree.svg").read_text()
    assert picture.startswith("<svg")
    assert "deeper" in picture
    assert "\x1b" not in picture


def test_a_study_that_edits_nothing_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace('editable = ["train.py"]', ""))
    config = read_study_file(tmp_path / "study.toml")
    config.directory.mkdir(parents=True)
    Store(config.storage, config.study_name, config.space, config.task, seed=1).close()
    done = lineage(tmp_path)
    assert done.returncode == 2
    assert "edits no code" in done.stderr


def test_a_picture_that_cannot_be_written_is_told(folder: Path) -> None:
    done = lineage(folder, "--svg", "nosuch/tree.svg")
    assert done.returncode == 2
    assert "--svg nosuch/tree.svg" in done.stderr

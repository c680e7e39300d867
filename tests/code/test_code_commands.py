"""`llmhpo diff`, `checkout` and `apply` as a person uses them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.code.lineage import Lineage
from llmhpo.config import read_study_file
from llmhpo.editing import REPOSITORY
from llmhpo.revision import Revision
from llmhpo.store import Store
from llmhpo.trial import Batch, Outcome, Proposal

STUDY = """
command = "python train.py {x}"
metric = "loss"
direction = "minimize"
editable = ["train.py", "model.py"]

[space.x]
type = "float"
low = 0.0
high = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with three trials: the code as it stood, an edit, and an edit of the edit."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(STUDY)
    (folder / "train.py").write_text("a = 1\nb = 1\n")
    (folder / "model.py").write_text("m = 1\n")
    (folder / "other.py").write_text("o = 1\n")
    config = read_study_file(folder / "study.toml")
    lineage = Lineage(config.directory / REPOSITORY)
    baseline = lineage.baseline(folder, leave_out=[config.directory])
    one = lineage.commit(baseline, {"train.py": "a = 2\nb = 1\n"}, note="one")
    two = lineage.commit(one, {"train.py": "a = 2\nb = 2\n", "new.py": "n = '\x1b[31m'\n"}, note="two")
    config.directory.mkdir(parents=True, exist_ok=True)
    store = Store(config.storage, config.study_name, config.space, config.task, seed=1)
    store.begin_edits(Revision(baseline))
    store.record(
        Batch("edit", 0, 2, revisions=(Revision(one, baseline, note="wider", source="improve"), Revision(two, one)))
    )
    for code in ("", one, two):
        trial = store.begin(Proposal({"x": 0.5}, "llm", code=code))
        store.finish(trial.number, Outcome("ok", 1.0))
    store.close()
    return folder


@pytest.fixture(autouse=True)
def as_it_stood(folder: Path) -> None:
    (folder / "model.py").write_text("m = 1\n")
    (folder / "train.py").write_text("a = 1\nb = 1\n")
    (folder / "other.py").write_text("o = 1\n")
    (folder / "new.py").unlink(missing_ok=True)


def llmhpo(folder: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", *words], cwd=folder, input=given, capture_output=True, text=True, timeout=90,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


def test_diff_is_against_the_code_as_it_stood(folder: Path) -> None:
    out = llmhpo(folder, "diff", "2").stdout
    assert "-a = 1\n-b = 1\n+a = 2\n+b = 2\n" in out
    assert "+++ b/new.py" in out


def test_diff_may_be_against_the_parent(folder: Path) -> None:
    out = llmhpo(folder, "diff", "2", "--parent").stdout
    assert " a = 2\n-b = 1\n+b = 2\n" in out


def test_diff_of_the_code_as_it_stood_says_so(folder: Path) -> None:
    done = llmhpo(folder, "diff", "0")
    assert (done.returncode, done.stdout) == (0, "")
    assert "trial 0 ran the code as it stood" in done.stderr


def test_show_names_the_code_of_a_trial(folder: Path) -> None:
    out = llmhpo(folder, "show", "--trial", "1").stdout
    assert re.search(r"^code: [0-9a-f]{12}, improve of [0-9a-f]{12}: wider$", out, re.MULTILINE)


def test_checkout_writes_the_code_of_a_trial(folder: Path, tmp_path: Path) -> None:
    assert llmhpo(folder, "checkout", "1", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out" / "train.py").read_text() == "a = 2\nb = 1\n"


def test_apply_shows_asks_and_writes(folder: Path) -> None:
    done = llmhpo(folder, "apply", "2", given="y\n")
    assert done.returncode == 0, done.stderr
    assert "+a = 2" in done.stdout
    assert "Write this into" in done.stderr
    assert "x=0.5" in done.stdout
    assert (folder / "train.py").read_text() == "a = 2\nb = 2\n"
    assert (folder / "new.py").exists()
    again = llmhpo(folder, "apply", "2")
    assert (again.returncode, "holds the code of trial 2 already" in again.stdout) == (0, True)


@pytest.mark.parametrize("given", ["n\n", ""])
def test_without_consent_nothing_is_written(folder: Path, given: str) -> None:
    assert llmhpo(folder, "apply", "1", given=given).returncode == 1
    assert (folder / "train.py").read_text() == "a = 1\nb = 1\n"


@pytest.mark.parametrize(
    "text, told", [("mine\n", "'train.py' in"), ("a = 2\nb = 2\n", "(it is the version of trial 2); put it back")]
)
def test_a_file_that_changed_is_refused_with_the_remedy(folder: Path, text: str, told: str) -> None:
    (folder / "train.py").write_text(text)
    done = llmhpo(folder, "apply", "1", "--yes")
    assert done.returncode == 2
    assert told in done.stderr
    assert "llmhpo diff 1 | git apply --3way" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "train.py").read_text() == text


def test_another_file_that_may_be_edited_and_changed_is_refused(folder: Path) -> None:
    (folder / "model.py").write_text("m = 2\n")
    done = llmhpo(folder, "apply", "1", "--yes")
    assert done.returncode == 2
    assert "'model.py' in" in done.stderr
    assert (folder / "train.py").read_text() == "a = 1\nb = 1\n"


def test_another_file_that_changed_is_noted(folder: Path) -> None:
    (folder / "other.py").write_text("o = 2\n")
    done = llmhpo(folder, "apply", "1", "--yes")
    assert done.returncode == 0
    assert "other.py changed too" in done.stderr


def test_an_apply_that_was_cut_off_is_ended_by_the_next(folder: Path) -> None:
    config = read_study_file(folder / "study.toml")
    (config.directory / "apply.json").write_text(f'{{"trial": 2, "root": "{config.cwd}"}}')
    (folder / "train.py").write_text("a = 2\nb = 2\n")  # of two files, one was written
    done = llmhpo(folder, "apply", "2", "--yes")
    assert "llmhpo apply 2 had been cut off" in done.stderr
    assert (folder / "new.py").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["apply", "0", "--yes"], "nothing to apply"),
        (["diff", "9"], "trial 9: the study has trials 0 to 2"),
        (["checkout", "1", "."], "is not empty, and not this revision"),
    ],
)
def test_what_cannot_be_done_is_told(folder: Path, words: list[str], told: str) -> None:
    done = llmhpo(folder, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr

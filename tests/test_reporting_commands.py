"""`llmhpo report` and `llmhpo suggest`, as they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.cards import formulas

STUDY = """
command = ["{python}", "-c", "import json, os; json.dump({{'loss': {x}}}, open(os.environ['LLMHPO_RESULT'], 'w'))"]
metric = "loss"
direction = "minimize"
n_trials = 5
llm = "none"

[space.x]
type = "float"
low = 0.0
high = 1.0
default = 0.5
"""


def llmhpo(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", *words], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_study_that_ran_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    assert llmhpo("run", "--plain", cwd=tmp_path).returncode == 0
    done = llmhpo("report", "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote page.html" in done.stdout
    assert (tmp_path / "page.html").read_text().count("<circle") >= 5


def test_a_report_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    llmhpo("run", "--plain", cwd=tmp_path)
    done = llmhpo("report", "-o", "nowhere/page.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere/page.html" in done.stderr
    assert "--output" in done.stderr


def test_a_report_of_a_study_that_never_ran_says_so(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    done = llmhpo("report", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no study yet" in done.stderr


def test_a_formula_is_evaluated_and_names_its_source(tmp_path: Path) -> None:
    done = llmhpo("suggest", "step-law", "--params", "1.2e9", "--tokens=2e10", cwd=tmp_path)
    assert "learning rate: 0.000875" in done.stdout
    assert "arXiv:2503.04715" in done.stdout


def test_without_a_name_all_formulas_are_listed(tmp_path: Path) -> None:
    listed = llmhpo("suggest", cwd=tmp_path).stdout
    assert all(name in listed for name in formulas())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chinchilla"], "'chinchilla' is not a formula; known: "),
        (["step-law", "--params", "big", "--tokens", "1"], "'big' is not a number"),
        (["step-law", "--params"], "is not an option with a value"),
        (["step-law", "1e9"], "is not an option with a value"),
        (["step-law", "--params", "1e9"], "needs tokens"),
    ],
)
def test_what_a_formula_is_wrongly_given_is_told_with_the_remedy(words: list[str], said: str, tmp_path: Path) -> None:
    done = llmhpo("suggest", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

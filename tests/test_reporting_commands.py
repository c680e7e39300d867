"""`llmhpo report` and `llmhpo suggest`, as they are called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.cards import formulas
from llmhpo.store.wishes import Wishes

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


def llmhpo(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command, names = [sys.executable, "-m", "llmhpo", *words], os.environ | environment
    return subprocess.run(command, cwd=cwd, env=names, capture_output=True, text=True, timeout=120, check=False)


def test_a_study_that_ran_has_a_report_with_what_its_confirmation_found(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    assert llmhpo("run", "--plain", cwd=tmp_path).returncode == 0
    confirmed = llmhpo("confirm", "-k", "2", cwd=tmp_path)
    assert "the job does not use the seed" in " ".join(confirmed.stdout.split())
    opened = tmp_path / "browser"  # a browser that notes what it is asked to open
    opened.write_text('#!/bin/sh\nprintf %s "$1" > opened\n')
    opened.chmod(0o755)
    done = llmhpo("report", "-o", "page.html", "--open", cwd=tmp_path, BROWSER=f"{opened} %s")
    assert done.returncode == 0, done.stderr
    assert "wrote page.html" in done.stdout
    page = (tmp_path / "page.html").read_text()
    assert page.count("<circle") >= 5
    assert "On 2 new seeds: better" in page
    assert (tmp_path / "opened").read_text() == (tmp_path / "page.html").as_uri()


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


def test_what_was_learned_is_told_with_its_statistic_and_a_models_wrong_words_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace("n_trials = 5", "n_trials = 12"))
    assert llmhpo("run", "--plain", cwd=tmp_path).returncode == 0
    plain = llmhpo("learned", cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    assert "Lower x gave better loss." in plain.stdout
    assert re.search(r"Spearman's rho \+1.00 over 12 trials.*best trials of it: \d+", plain.stdout)
    found = plain.stdout.split("\n").index("Lower x gave better loss.") // 2 + 1
    for text, is_kept in (("Keep x low.", True), ("Raise x.", False)):
        reply = json.dumps({"sentences": [{"finding": f"F{found}", "text": text}]})
        (tmp_path / "replies.jsonl").write_text(f"{json.dumps(reply)}\n" * 3)
        worded = llmhpo("learned", "--llm", "scripted:replies.jsonl", cwd=tmp_path)
        assert worded.returncode == 0, worded.stderr
        assert (text in worded.stdout) == is_kept
        assert ("the model's wording was dropped" in worded.stdout) != is_kept
        assert "1 request" in worded.stderr
    said = Wishes(tmp_path / "runs" / tmp_path.name).last
    assert said is not None
    assert said.talk.calls == 2  # in the study's bill


def test_of_few_trials_nothing_is_said_to_be_learned(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    llmhpo("run", "--plain", cwd=tmp_path)
    assert "too few" in llmhpo("learned", cwd=tmp_path).stdout


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

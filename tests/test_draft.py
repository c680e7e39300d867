"""Drafts of study.toml: they are valid, say where each entry comes from, and never guess the direction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.config import read_study_file
from llmhpo.draft import draft, environment, try_defaults
from llmhpo.errors import ConfigError

SCRIPTS = Path(__file__).parent.parent / "examples" / "scripts"
NAMES = [
    "argparse_digits.py", "click_wine.py", "hydra_mlp/train.py", "dataclass_forest.py", "yaml_config/train.py",
    "constants_ridge.py", "notebook_export.py", "shell_sgd.sh", "xgboost_cancer.py", "transformers_tiny.py",
]  # fmt: skip
TRAIN = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
lr = parser.parse_args().lr
if lr > 0.05:
    open(os.environ["LLMHPO_RESULT"], "w").write(json.dumps({"loss": lr}))
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_draft_of_each_example_is_a_valid_study(name: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(draft(SCRIPTS / name, 'words with "quotes"\nand lines', "val", "maximize"))
    config = read_study_file(path)
    assert config.task.text == 'words with "quotes"\nand lines'
    assert config.task.direction == "maximize"
    assert len(config.space) >= 4


def test_every_table_says_where_it_comes_from() -> None:
    lines = draft(SCRIPTS / "argparse_digits.py", "", "val", "minimize").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("[space."):
            assert lines[at - 1].startswith("# argparse_digits.py:")


def test_a_script_without_settings_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("print(1)\n")
    with pytest.raises(ConfigError, match="holds nothing to tune"):
        draft(tmp_path / "t.py", "", "loss", "minimize")


@pytest.mark.parametrize(
    "metric, change, good, words",
    [("loss", "", True, "loss = 0.1"), ("acc", "", False, "no 'acc'"), ("loss", "0.05:0.5:", False, "hands in no result"),
     ("loss", "import os:import nosuch:", False, "status 1")],
)  # fmt: skip
def test_a_first_run_says_what_it_saw(tmp_path: Path, metric: str, change: str, good: bool, words: str) -> None:
    text = {"": TRAIN, "0.05:0.5:": TRAIN.replace("> 0.05", "> 0.5")}.get(change, "import nosuch" + TRAIN)
    (tmp_path / "t.py").write_text(text)
    (tmp_path / "study.toml").write_text(draft(tmp_path / "t.py", "", metric, "minimize")) if good else None
    from llmhpo.reading.ranges import suggest
    from llmhpo.reading.script import read
    from llmhpo.space import SearchSpace

    space = SearchSpace([p for f in read(tmp_path / "t.py").tunable if (p := suggest(f).param) is not None])
    check = try_defaults("python t.py --lr={lr}", space, tmp_path, metric, 60, environment())
    assert check.is_good is good
    assert words in check.message


def run_init(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", "init", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
    )


def test_init_writes_a_study_and_tries_it(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TRAIN)
    run = run_init(
        "words", "--script", "t.py", "--metric", "loss", "--direction", "minimize", "--check-s", "60", cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert "checked: it ends well with the defaults: loss = 0.1" in run.stdout
    assert read_study_file(tmp_path / "study.toml").space.names == ("lr",)


def test_init_never_guesses_the_direction(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TRAIN)
    run = run_init("--script", "t.py", "--metric", "loss", cwd=tmp_path)
    assert run.returncode != 0
    assert "--direction is missing" in run.stderr
    assert not (tmp_path / "study.toml").exists()


def test_init_needs_no_tables_for_what_the_script_draws(tmp_path: Path) -> None:
    code = "import llmhpo\nfrom llmhpo import job\njob.result({'loss': llmhpo.uniform('x', 0, 1, default=0.25)})\n"
    (tmp_path / "t.py").write_text(code)
    words = ("words", "--script", "t.py", "--metric", "loss", "--direction", "minimize")
    run = run_init(*words, "--check-s", "60", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "checked: it ends well with the defaults: loss = 0.25" in run.stdout
    text = (tmp_path / "study.toml").read_text()
    assert "#   t.py:3: x: a float from 0 to 1" in text
    assert "[space" not in text
    assert read_study_file(tmp_path / "study.toml").space.names == ("x",)


def test_init_runs_no_script_where_no_first_run_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import llmhpo\nopen('ran', 'w')\nllmhpo.uniform('x', 0, 1)\n")
    words = ("words", "--script", "t.py", "--metric", "loss", "--direction", "minimize", "--check-s", "0")
    run = run_init(*words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "ran").exists()

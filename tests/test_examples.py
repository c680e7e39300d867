"""The example that `make demo` runs: its command works, and its study file and script agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.config import read_study_file
from llmhpo.executors.command import CommandTemplate

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


@pytest.mark.slow
def test_the_digits_script_trains_and_writes_its_metrics(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    report = tmp_path / "report.jsonl"
    subprocess.run(
        [sys.executable, DIGITS / "train.py", "--optimizer", "adamw", "--lr", "0.001"],
        env={"LLMHPO_RESULT": str(result), "LLMHPO_REPORT": str(report), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=110,
    )
    metrics = json.loads(result.read_text())
    assert metrics["val_loss"] < 1.0
    assert metrics["test_accuracy"] > 0.8
    assert len(report.read_text().splitlines()) == 60


def test_the_digits_command_passes_every_parameter() -> None:
    config = read_study_file(DIGITS / "study.toml")
    assert config.command is not None
    template = CommandTemplate(config.command, config.space, config.cwd)
    assert template.unused == ()
    words = template.render(
        config.space.default(), trial=0, seed=0, params_file=Path("p"), result_file=Path("r"), report_file=Path("x")
    )
    assert "--momentum" in words
    assert "--lr" in words


def test_the_defaults_of_script_and_study_agree() -> None:
    help_text = subprocess.run(
        [sys.executable, DIGITS / "train.py", "--help"], capture_output=True, text=True, check=True, timeout=110
    ).stdout
    config = read_study_file(DIGITS / "study.toml")
    for param in config.space.params:
        assert f"--{param.name.replace('_', '-')}" in help_text

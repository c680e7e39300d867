"""The tutorial's script and commands work as they stand there, one after the other, and its pictures are there and small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "tutorial.md").read_text(encoding="utf-8")

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
NO_MODEL = {**{k: v for k, v in os.environ.items() if k not in KEYS}, "XDG_CACHE_HOME": os.devnull}


def commands(folder: Path) -> list[str]:
    blocks = re.findall(r"```sh run\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.replace("NAME", folder.name) for block in blocks for line in block.strip().splitlines()]
    return [re.sub(r"-(-n-trials|k) (\d+)", lambda m: f"-{m[1]} {int(m[2]) // 5}", line) for line in lines]


@pytest.mark.slow  # twelve programs and a dozen trainings
@pytest.mark.timeout(300)
def test_the_commands_work_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "tutorial"
    folder.mkdir()
    script = re.search(r"```python file=train.py\n(.*?)```", TEXT, flags=re.DOTALL)
    assert script
    (folder / "train.py").write_text(script[1].replace("default=60", "default=8"))
    said = {}
    for command in commands(folder):
        program = f"{sys.executable} -m llmhpo {command.removeprefix('llmhpo ')}"
        done = subprocess.run(
            program, shell=True, cwd=folder, capture_output=True, text=True, check=False, timeout=200, env=NO_MODEL
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout + done.stderr
        if "init" in command:
            study = folder / "study.toml"
            study.write_text(study.read_text().replace("n_trials = 20", "n_trials = 3"))
    assert "(3 done before)" in said["llmhpo run --n-trials 6"]
    assert "train.py --lr=" in said["llmhpo export --format command"]
    assert (folder / "best.toml").read_text().count("=") == 5
    assert "6 of 6 trials" in next(text for command, text in said.items() if "--warm-start" in command)
    assert (folder / "runs" / "tutorial" / "report.html").exists()


def test_what_the_tutorial_links_to_is_there_and_small() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        path = DOCS / target
        assert path.exists(), target
        assert path.suffix != ".png" or path.stat().st_size < 150_000, target

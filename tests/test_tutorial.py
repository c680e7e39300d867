"""The tutorial's script and commands work as they stand there, one after the other, and its pictures are there and small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmhpo.cli import app

pytest.importorskip("sklearn")

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "tutorial.md").read_text(encoding="utf-8")
FEWER = {
    "--n-trials 30": "--n-trials 3",
    "--n-trials 10": "--n-trials 1",
    "-k 5": "-k 1",
}  # a training takes over a second


def commands(folder: Path) -> list[str]:
    blocks = re.findall(r"```sh run\n(.*?)```", TEXT, flags=re.DOTALL)
    text = "".join(blocks).replace("NAME", folder.name)
    for many, few in FEWER.items():
        assert many in text
        text = text.replace(many, few)
    return text.strip().splitlines()


@pytest.mark.slow  # seven trainings, and ten commands that read what came of them
def test_the_commands_work_one_after_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "tutorial"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    script = re.search(r"```python file=train.py\n(.*?)```", TEXT, flags=re.DOTALL)
    assert script
    (folder / "train.py").write_text(script[1].replace("default=60", "default=8"))
    said = {}
    for command in commands(folder):
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"
        said[command] = " ".join(done.output.split())
        if "init" in command:
            study = folder / "study.toml"
            study.write_text(study.read_text().replace("n_trials = 20", 'n_trials = 2\nllm = "none"'))
    assert "(2 done before)" in said["llmhpo run --n-trials 3"]
    assert "train.py --lr=" in said["llmhpo export --format command"]
    assert (folder / "best.toml").read_text().count("=") == 5
    assert "3 of 3 trials" in next(text for command, text in said.items() if "--warm-start" in command)
    assert (folder / "runs" / "tutorial" / "report.html").exists()


def test_what_the_tutorial_links_to_is_there_and_small() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        path = DOCS / target
        assert path.exists(), target
        assert path.suffix != ".png" or path.stat().st_size < 150_000, target

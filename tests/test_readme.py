"""README's examples are run, not believed. A model that needs a key is replaced by none."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

import llmhpo
from llmhpo.config import read_study_file

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0].replace('llm="auto"', 'llm="none"'), {})
    assert "'lr'" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_optuna_example_runs() -> None:
    code = blocks("python")[1].replace('"openai:gpt-5.4-mini"', '"none"').replace("n_trials=50", "n_trials=6")
    assert '"none"' in code
    names = {"optuna": optuna, "llmhpo": llmhpo, "objective": lambda trial: trial.suggest_float("x", 0, 1)}
    exec(code, names)
    assert len(names["study"].trials) == 6


def test_the_toml_example_is_a_valid_study(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(blocks("toml")[0])
    config = read_study_file(tmp_path / "study.toml")
    assert config.space.names == ("lr", "optimizer", "momentum")
    assert config.gpus == ("0", "1")


def test_the_two_commands_stand_in_the_makefile() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", blocks("sh")[0], re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_every_command_that_readme_names_is_there() -> None:
    from llmhpo.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} | {"model"}
    assert set(re.findall(r"`llmhpo (\w+)", README)) <= known

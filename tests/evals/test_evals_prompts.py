"""The prompt lab: pairs what is alike, says nothing that noise may have said, asks nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evals.__main__ import main
from evals.prompts import Answer, Lab, compare_prompts, prompt_table, verdict
from evals.tasks import MINI
from llmhpo.errors import ConfigError

TASK = "synthetic/branin"
OLD, NEW = "propose.v1", "propose.v2"


def answers(differences: list[float], noise: float = 0.0) -> list[Answer]:
    """Two seeds of each task: the new version is worse by so much."""
    rng, made = np.random.default_rng(0), []
    for i, difference in enumerate(differences):
        for seed in range(2):
            base = float(rng.random())
            for version, after in ((OLD, base), (NEW, base + difference + noise * float(rng.normal()))):
                made.append(Answer(f"t{i}", seed, version, "m", 8, 4, 1.0, after, after, 4, 1.0, 0, 100, 1.0))
    return made


def test_a_version_that_is_better_on_all_tasks_is_adopted() -> None:
    said = verdict(answers([-0.1 - 0.01 * i for i in range(8)]), OLD, NEW)
    assert said.word == "adopt"
    assert said.difference == pytest.approx(-0.135)
    assert said.low < said.difference < said.high < 0


def test_a_version_that_is_better_on_average_alone_is_not() -> None:
    said = verdict(answers([-0.8, 0.05, 0.06, 0.04, 0.05, 0.05]), OLD, NEW)
    assert said.difference < 0
    assert said.word == "keep"


def test_a_worse_version_is_called_worse() -> None:
    assert "worse" in str(verdict(answers([0.1, 0.2, 0.1, 0.15]), OLD, NEW))


def test_equal_versions_show_no_difference() -> None:
    said = verdict(answers([0.0] * 6), OLD, NEW)
    assert (said.low, said.high, said.p, said.word) == (0.0, 0.0, 1.0, "keep")


def test_one_task_decides_nothing() -> None:
    assert verdict(answers([-0.5]), OLD, NEW).word == "keep"


def test_noise_of_both_signs_is_seldom_adopted() -> None:
    rng = np.random.default_rng(2)
    words = [verdict(answers(list(rng.normal(size=8))), OLD, NEW).word for _ in range(60)]
    assert words.count("adopt") <= 6


def lab(model: str, *versions: str) -> Lab:
    return Lab(versions or (OLD, NEW), model, MINI, half=None, pattern=TASK, seeds=1, trials=4, batch=2)


@pytest.fixture
def cassette(tmp_path: Path) -> str:
    """The first version is answered with a bad point and one out of range, the second with an optimum of Branin's function."""
    replies = {
        0: [{"x0": -5.0, "x1": 0.0}, {"x0": 99.0, "x1": 0.0}],
        2: [{"x0": 3.14159, "x1": 2.275}, {"x0": 9.0, "x1": 3.0}],
    }
    path = tmp_path / "cassette.jsonl"
    lines = [{"number": k, "text": json.dumps({"configurations": v})} for k, v in replies.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"scripted:{path}"


def test_versions_are_asked_about_the_same_history(tmp_path: Path, cassette: str) -> None:
    old, new = compare_prompts(lab(cassette), tmp_path / "out", show=False)
    assert (old.version, new.version) == (OLD, NEW)
    assert old.before == new.before
    assert new.after < old.after
    assert (new.valid, new.found) == (1.0, 2)
    assert old.found == 1
    assert old.valid < 1.0


def test_what_was_answered_is_not_asked_again(tmp_path: Path, cassette: str) -> None:
    first = compare_prompts(lab(cassette), tmp_path / "out", show=False)
    Path(cassette.removeprefix("scripted:")).write_text('{"number": 0, "error": "gone"}\n')
    assert compare_prompts(lab(cassette), tmp_path / "out", show=False) == first


def test_a_recorded_comparison_plays_again(tmp_path: Path, cassette: str) -> None:
    first = compare_prompts(lab(cassette), tmp_path / "a", record=tmp_path / "kept.jsonl", show=False)
    again = compare_prompts(lab(f"scripted:{tmp_path / 'kept.jsonl'}"), tmp_path / "b", show=False)
    assert [a.after for a in again] == [a.after for a in first]


@pytest.mark.parametrize("versions", [("propose.v1",), ("propose.v1", "warmstart.v1"), ("propose.v1", "propose.v99")])
def test_versions_that_cannot_be_compared_are_refused(tmp_path: Path, versions: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--versions"):
        compare_prompts(lab("none", *versions), tmp_path)


def test_the_command_prints_a_table_and_a_verdict(
    tmp_path: Path, cassette: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prompts", "--versions", f"{OLD},{NEW}", "--llm", cassette, "--half", "a", "--tasks", TASK, "--seeds", "1"]
    assert main([*words, "--trials", "4", "--batch", "2", "--out", str(tmp_path / "o"), "--quiet"]) == 0
    table = prompt_table(answers([0.1, 0.2]))
    assert [row[0] for row in table] == ["template", OLD, NEW]
    printed = capsys.readouterr().out
    assert f"keep {OLD}" in printed

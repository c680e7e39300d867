"""Draws inside the training code: what they return in a trial and outside, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmhpo
from llmhpo import job
from llmhpo.errors import SpaceError

DRAWING = """
import json, sys
import llmhpo

values = {
    "norm": llmhpo.choose("norm", ["layer", "batch"]),
    "lr": llmhpo.loguniform("lr", 1e-4, 1e-2),
    "drop": llmhpo.uniform("drop", 0.0, 0.5, default=0.1),
    "width": llmhpo.integer("width", 16, 64, step=16),
    "bias": llmhpo.boolean("bias"),
}
print(json.dumps(values))
print(sorted({"optuna", "numpy", "scipy", "pydantic"} & set(sys.modules)))
"""


def run(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(code)
    command = [sys.executable, "train.py"]
    return subprocess.run(command, cwd=folder, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True)


def test_a_script_that_draws_runs_alone_with_its_defaults_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done = run(DRAWING, tmp_path)
    values, loaded = done.stdout.splitlines()
    assert json.loads(values) == {"norm": "layer", "lr": 0.001, "drop": 0.1, "width": 32, "bias": False}
    assert loaded == "[]"
    assert done.stderr == ""


def test_a_trial_gets_the_values_of_its_configuration(tmp_path: Path) -> None:
    given = {"norm": "batch", "lr": 0.005, "drop": 0, "width": 64, "bias": True}
    (tmp_path / "params.json").write_text(json.dumps(given))
    done = run(DRAWING, tmp_path, LLMHPO_PARAMS=str(tmp_path / "params.json"))
    assert json.loads(done.stdout.splitlines()[0]) == given


def test_a_draw_that_is_not_tuned_is_its_default_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    code = "import llmhpo\nfor _ in range(3):\n    print(llmhpo.uniform('x', 0, 1))\n"
    done = run(code, tmp_path, LLMHPO_PARAMS=str(tmp_path / "params.json"))
    assert done.stdout == "0.5\n" * 3
    assert done.stderr == "llmhpo: 'x' is drawn but not tuned in this trial; it is its default, 0.5\n"


def test_a_callable_in_this_process_draws_its_own_trials_values() -> None:
    token = job.current.set(job.Notes({"k": 3}))
    try:
        assert llmhpo.integer("k", 1, 9) == 3
    finally:
        job.current.reset(token)
    assert llmhpo.integer("k", 1, 9) == 5


def test_a_mapping_gives_what_the_chosen_key_stands_for() -> None:
    class Net:
        pass

    assert llmhpo.choose("net", {"mlp": Net, "none": None}) is Net
    assert llmhpo.choose("net", {"mlp": Net, "none": None}, default="none") is None


@pytest.mark.parametrize("value", [1, "layer ", None, True])
def test_a_value_that_is_no_choice_is_refused_with_the_place(value: object) -> None:
    token = job.current.set(job.Notes({"norm": value}))
    try:
        with pytest.raises(SpaceError, match=r"test_draws.py:\d+: 'norm' = .* is none of 'layer', 'batch'"):
            llmhpo.choose("norm", ["layer", "batch"])
    finally:
        job.current.reset(token)


def test_true_is_not_the_choice_one() -> None:
    token = job.current.set(job.Notes({"n": True}))
    try:
        with pytest.raises(SpaceError, match="is none of 0, 1"):
            llmhpo.choose("n", [0, 1])
    finally:
        job.current.reset(token)


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: llmhpo.choose("x", []), "is not a list of at least one value"),
        (lambda: llmhpo.choose("x", "ab"), "is not a list of at least one value"),
        (lambda: llmhpo.choose("x", [object()]), "give a mapping"),
        (lambda: llmhpo.choose("x", ["a"], default="b"), "default = 'b' is none of 'a'"),
        (lambda: llmhpo.uniform("x", 1, 0), "in this order"),
        (lambda: llmhpo.uniform("x", 0, float("inf")), "not finite"),
        (lambda: llmhpo.uniform("x", 0, 1, default=2), "is not between 0.0 and 1.0"),
        (lambda: llmhpo.loguniform("x", 0, 1), "needs low > 0"),
        (lambda: llmhpo.integer("x", 0.5, 3), "not all whole numbers"),  # type: ignore[arg-type]
        (lambda: llmhpo.integer("x", 0, 3, log=True), "starts at 1"),
        (lambda: llmhpo.boolean("x", default=3), "is none of False, True"),  # type: ignore[arg-type]
        (lambda: llmhpo.uniform("", 0, 1), "non-empty string"),
    ],
)
def test_a_draw_that_makes_no_sense_is_refused_with_the_place(draw: object, words: str) -> None:
    with pytest.raises(SpaceError, match=r"^.*test_draws.py:\d+: .*" + words):
        draw()  # type: ignore[operator]

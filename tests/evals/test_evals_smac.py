"""SMAC as an arm: its space is ours, it is told what was evaluated, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.arms import make_arm
from evals.arms.smac import SmacArm, Translation
from evals.record import Key
from evals.run import run_one
from evals.tasks import MINI, Task, load
from evals.tasks.base import Params, Result
from llmhpo import SearchSpace

pytest.importorskip("smac")

NUMERIC, CONDITIONAL, MIXED_FAILS = "synthetic/branin", "hpob/5527_10101", "synthetic/mixed_fails"
ORDINAL = "hpobench_mlp/car"


def task(pattern: str) -> Task:
    return load(MINI, "mini", pattern=pattern)[0]


def key(id_: str, **changes: object) -> Key:
    return Key(
        **{"task": id_, "arm": "smac", "seed": 0, "start": "unseeded", "batch": 1, "budget": 8, "anonymous": False}
        | changes
    )  # type: ignore[arg-type]


def statuses(arm: SmacArm) -> list[str]:
    facade = arm._facade
    assert facade is not None
    return [value.status.name for value in facade.runhistory.values()]


@pytest.mark.parametrize("id_", [NUMERIC, CONDITIONAL, MIXED_FAILS, ORDINAL, "real/concrete", "hpob/5971_10093"])
def test_configurations_pass_through_configspace_unchanged(id_: str) -> None:
    space = task(id_).space
    translation = Translation(space)
    for params in space.sample(np.random.default_rng(0), 50):
        back = translation.outward(translation.inward(params))
        assert list(back) == list(params)
        assert back == pytest.approx(params)


@pytest.mark.parametrize("id_", [CONDITIONAL, MIXED_FAILS, "real/concrete", "hpob/5971_10093"])
def test_what_configspace_samples_is_valid_in_our_space(id_: str) -> None:
    space = task(id_).space
    for configuration in Translation(space).configspace.sample_configuration(50):
        params = Translation(space).outward(configuration)
        assert space.coerce(params) == params


def test_steps_single_values_none_and_double_conditions_are_translated() -> None:
    space = SearchSpace.from_dict(
        {
            "step": {"type": "float", "low": 0.1, "high": 0.7, "step": 0.2},
            "only": {"type": "int", "low": 3, "high": 3},
            "kind": {"type": "categorical", "choices": [None, True, "x", 2]},
            "size": {"type": "int", "low": 8, "high": 64, "step": 8, "when": {"kind": [True, "x"]}},
            "deep": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "when": {"kind": "x", "size": [8, 16]}},
        }
    )
    translation = Translation(space)
    for configuration in translation.configspace.sample_configuration(60):
        params = translation.outward(configuration)
        assert space.coerce(params) == params
        assert translation.inward(params) == configuration


@pytest.mark.parametrize("id_", [NUMERIC, CONDITIONAL, MIXED_FAILS, ORDINAL])
@pytest.mark.parametrize("batch", [1, 4])
def test_smac_runs_on_every_kind_of_space_without_repeats(id_: str, batch: int) -> None:
    run = run_one(task(id_), key(id_, batch=batch, budget=10))
    assert run.sources == ["start", *["smac"] * 9]
    assert not any(run.repeat)


def test_the_given_configuration_is_an_observation_and_shrinks_the_initial_design() -> None:
    t = task(NUMERIC)
    origins = {}
    for given in (0, 1, 2):
        arm = SmacArm(t, 0, 24)
        for params in t.space.sample(np.random.default_rng(1), given):
            arm.tell(None, t.evaluate(params))
        for _ in range(9):
            asked = arm.ask()
            arm.tell(asked, t.evaluate(asked.params))
        origins[given] = sum("Sobol" in info.config.origin for info in arm._pending)
        assert arm._facade is not None
        assert arm._facade.runhistory.finished == given + 9
    assert origins == {0: 6, 1: 5, 2: 4}


def test_smac_is_told_the_row_that_a_pool_evaluated() -> None:
    t = task(CONDITIONAL)
    arm = make_arm("smac", t, 0, 20)
    assert isinstance(arm, SmacArm)
    first = t.evaluate(t.recorded[0])
    arm.tell(None, first)
    evaluated = [first.params]
    for _ in range(5):
        asked = arm.ask()
        result = t.evaluate(asked.params)
        evaluated.append(result.params)
        arm.tell(asked, result)
    assert arm._facade is not None
    history = arm._facade.runhistory
    told = [
        arm._space.outward(history.get_config(k.config_id)) for k, v in history.items() if v.status.name == "SUCCESS"
    ]
    assert len(told) == len({t.space.key(p) for p in evaluated})
    assert all(any(a == pytest.approx(b) for b in evaluated) for a in told)


def failing(t: Task) -> SmacArm:
    """Told a failure, then 3.0, a failure, and 5.0."""
    arm = SmacArm(t, 0, 12)
    params: Params = t.recorded[0] if t.recorded else t.space.default()
    arm.tell(None, Result(None, params))
    for value in (3.0, None, 5.0):
        asked = arm.ask()
        arm.tell(asked, Result(value, asked.params))
    return arm


def test_failures_are_crashes_at_the_worst_cost_seen() -> None:
    arm = failing(task(NUMERIC))
    assert arm._facade is not None
    told = [(v.status.name, v.cost) for v in arm._facade.runhistory.values()]
    assert sorted(told) == [("CRASHED", 5.0), ("CRASHED", 5.0), ("SUCCESS", 3.0), ("SUCCESS", 5.0)]


def test_smac_goes_on_where_everything_fails() -> None:
    t = task(NUMERIC)
    arm = SmacArm(t, 0, 12)
    arm.tell(None, Result(None, t.space.default()))
    for _ in range(11):
        asked = arm.ask()
        arm.tell(asked, Result(None, asked.params))
    assert set(statuses(arm)) == {"RUNNING"}


def test_a_space_that_is_used_up_is_searched_at_random_and_says_so() -> None:
    space = SearchSpace.from_dict({"x": {"type": "categorical", "choices": ["a", "b", "c"]}})
    t = task(NUMERIC)
    small = replace(t, space=space)
    arm = SmacArm(small, 0, 8)
    arm.tell(None, Result(1.0, {"x": "a"}))
    asked = []
    for number in range(5):
        asked.append(arm.ask())
        arm.tell(asked[-1], Result(float(number), asked[-1].params))
    assert {a.params["x"] for a in asked if a.source == "smac"} == {"b", "c"}
    assert asked[-1].source == "random"


@pytest.mark.slow
def test_a_run_is_the_same_in_another_process_of_the_harness_and_leaves_no_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "evals", "run", "--suite", "mini", "--tasks", NUMERIC, "--arms", "smac", "--quiet"]
    command += ["--seeds", "1", "--budget", "8"]
    lines = []
    for name in ("a", "b"):
        temp = tmp_path / f"temp-{name}"
        temp.mkdir()
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
        environment |= {"TMPDIR": str(temp), "PYTHONPATH": str(root)}
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert list(temp.iterdir()) == []
        lines.append([json.loads(x)["values"] for x in (tmp_path / name / "runs.jsonl").read_text().splitlines()])
    assert lines[0] == lines[1]
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "temp-a", "temp-b"}

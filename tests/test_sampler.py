"""Optuna's own suites for samplers, unmodified, on LLMSampler with a scripted model and with none."""

from __future__ import annotations

import json
from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from llmhpo import LLMSampler, SearchSpace
from llmhpo.llm.scripted import ScriptedModel


def scripted() -> ScriptedModel:
    """Replies for spaces of x and y: some fit, some do not, as with a real model."""
    values = [0.5, 1, 3, 5.0, "a", -1, 10, 100]
    rows = [{"why": "w", "x": a, "y": b} for a in values for b in values]
    return ScriptedModel([json.dumps({"configurations": rows[i : i + 10]}) for i in range(0, 60, 3)])


class Sampler:
    """What Optuna's suites ask of a subclass."""

    @pytest.fixture(params=["scripted", "none"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: LLMSampler(scripted() if request.param == "scripted" else None)


class TestBasic(Sampler, BasicSamplerTestCase):
    pass


class TestRelative(Sampler, RelativeSamplerTestCase):
    pass


class TestMultiObjective(Sampler, MultiObjectiveSamplerTestCase):
    pass


SPACE = {
    "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
    "k": {"type": "categorical", "choices": ["a", "b"]},
    "y": {"type": "int", "low": 0, "high": 9, "when": {"k": "b"}},
}


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0.0, 1.0)
    y = trial.suggest_int("y", 0, 9) if trial.suggest_categorical("k", ["a", "b"]) == "b" else 5
    return (x - 0.3) ** 2 + y


def replies(n: int = 10) -> list[str]:
    rows = [{"why": "near", "x": 0.2 + 0.02 * i, "k": "b", "y": i % 3} for i in range(40)]
    return [json.dumps({"configurations": rows[i * 4 : i * 4 + 10]}) for i in range(n)]


def test_an_explicit_space_reaches_the_model_from_the_first_trial_on() -> None:
    study = optuna.create_study(sampler=LLMSampler(ScriptedModel(replies()), search_space=SPACE, seed=0))
    study.optimize(objective, n_trials=12)
    sources = [t.user_attrs["source"] for t in study.trials]
    assert sources[0] == "default"
    assert study.trials[0].params["x"] == 0.9
    assert "llm" in sources[1:4]
    assert study.best_value < 0.1


def test_inactive_parameters_are_left_out_of_the_relative_sample() -> None:
    study = optuna.create_study(sampler=LLMSampler(None, search_space=SPACE, seed=0))
    study.optimize(objective, n_trials=15)
    assert {"y" in t.params for t in study.trials} == {True, False}
    space = SearchSpace.from_dict(SPACE)
    assert all(space.coerce(t.params) == t.params for t in study.trials)


def test_a_define_by_run_study_needs_no_space() -> None:
    def flat(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0.0, 1.0) + trial.suggest_int("y", 0, 9)

    study = optuna.create_study(sampler=LLMSampler(None, seed=0))
    study.optimize(flat, n_trials=20)
    assert study.best_value < 1.5


def test_trials_are_the_same_with_the_same_seed() -> None:
    runs = []
    for _ in range(2):
        study = optuna.create_study(sampler=LLMSampler(ScriptedModel(replies()), search_space=SPACE, seed=5))
        study.optimize(objective, n_trials=12)
        runs.append([t.params for t in study.trials])
    assert runs[0] == runs[1]


def test_asking_twice_without_telling_gives_two_configurations() -> None:
    study = optuna.create_study(sampler=LLMSampler(None, search_space=SPACE, seed=0))
    asked = [study.ask() for _ in range(5)]
    assert len({json.dumps(t.relative_params, sort_keys=True) for t in asked}) == 5


def test_a_maximized_study_is_maximized() -> None:
    study = optuna.create_study(direction="maximize", sampler=LLMSampler(None, search_space=SPACE, seed=0))
    study.optimize(lambda t: -objective(t), n_trials=20)
    assert study.best_value > -0.5


def test_several_objectives_spread_over_the_front() -> None:
    def two(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0.0, 1.0)
        return x**2, (1 - x) ** 2

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=LLMSampler(None, seed=0))
    study.optimize(two, n_trials=25)
    xs = [t.params["x"] for t in study.best_trials]
    assert min(xs) < 0.25
    assert max(xs) > 0.75


def test_pruned_and_failed_trials_are_taken_in_stride() -> None:
    def rough(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.report(x, 0)
        if x > 0.7:
            raise optuna.TrialPruned
        if x < 0.2:
            raise ValueError("diverged")
        return x

    study = optuna.create_study(sampler=LLMSampler(None, seed=0))
    study.optimize(rough, n_trials=25, catch=(ValueError,))
    assert study.best_value < 0.35


def test_the_cost_of_the_model_stands_in_the_study() -> None:
    study = optuna.create_study(sampler=LLMSampler(ScriptedModel(replies()), search_space=SPACE, seed=0))
    study.optimize(objective, n_trials=5)
    batches = [v for k, v in study.user_attrs.items() if ":batch:" in k]
    assert batches[0]["usage"]["calls"] == 1


def test_the_sampler_survives_pickling() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(LLMSampler(None, search_space=SPACE, seed=0)))
    study = optuna.create_study(sampler=again)
    study.optimize(objective, n_trials=3)
    assert len(study.trials) == 3

"""Optuna's own suites for samplers, unmodified, on LLMSampler with a scripted model and with none."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from llmhpo import LLMSampler, SearchSpace
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.usage import Price


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


FLAT: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "k": CategoricalDistribution(["a", "b"]),
    "y": IntDistribution(0, 9),
}


def without_y(trial: optuna.Trial) -> float:
    return (trial.suggest_float("x", 0.0, 1.0) - 0.3) ** 2 + (trial.suggest_categorical("k", ["a", "b"]) == "b")


def out_of_space(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 5.0, 9.0) + without_k(trial)


def without_k(trial: optuna.Trial) -> float:
    return trial.suggest_int("y", 0, 9)


def sources(study: optuna.Study) -> list[object]:
    return [t.user_attrs.get("source") for t in study.trials]


@pytest.mark.parametrize("function", [objective, without_y, without_k, out_of_space])
@pytest.mark.parametrize("space", [FLAT, SPACE])
@pytest.mark.parametrize("model", [True, False])
def test_a_space_of_which_the_objective_uses_a_part_is_explored(
    function: Callable[[optuna.Trial], float], space: Mapping[str, object], model: bool
) -> None:
    sampler = LLMSampler(ScriptedModel(replies()) if model else None, search_space=space, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(function, n_trials=15)
    proposed = [json.dumps(t.user_attrs["llmhpo:params"]) for t in study.trials]
    assert len(set(proposed)) == 15
    if function is without_k:  # of ten values of y the best is found, and kept while k, which does nothing, is tried
        assert study.best_value == 0
    else:
        assert len({json.dumps(t.params) for t in study.trials}) >= 12


def test_what_the_objective_did_not_ask_for_is_completed_from_the_proposal() -> None:
    sampler = LLMSampler(None, search_space=FLAT, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=10)
    space = SearchSpace.from_dict(FLAT)
    seen = sampler._context(study, study.ask()._get_latest_trial(), space).trials
    assert [t.params for t in seen] == [t.user_attrs["llmhpo:params"] for t in study.trials[:10]]
    assert all(
        t.params[name] == value
        for t, own in zip(seen, study.trials, strict=False)
        for name, value in own.params.items()
    )
    assert [t.value for t in seen] == [t.value for t in study.trials[:10]]


def test_trials_of_others_are_completed_from_the_defaults() -> None:
    sampler = LLMSampler(None, search_space=SPACE, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.add_trial(optuna.trial.create_trial(params={"k": "b"}, distributions={"k": FLAT["k"]}, value=1.0))
    wide: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 9.0)}
    study.add_trial(optuna.trial.create_trial(params={"x": 5.0}, distributions=wide, value=1.0))
    seen = sampler._context(study, study.ask()._get_latest_trial(), SearchSpace.from_dict(SPACE)).trials
    assert [(t.number, t.params["x"], t.params["k"], t.value) for t in seen] == [(0, 0.9, "b", 1.0)]


def test_a_trial_that_ran_outside_the_space_counts_and_teaches_nothing() -> None:
    sampler = LLMSampler(None, search_space=FLAT, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(out_of_space, n_trials=3)
    seen = sampler._context(study, study.ask()._get_latest_trial(), SearchSpace.from_dict(FLAT)).trials
    assert [t.outcome for t in seen] == [None] * 3
    assert sources(study)[:3] == ["random+random"] * 3


def test_the_source_of_an_enqueued_trial_is_the_user() -> None:
    study = optuna.create_study(sampler=LLMSampler(ScriptedModel(replies()), search_space=SPACE, seed=0))
    study.enqueue_trial({"x": 0.5, "k": "b", "y": 3})
    study.enqueue_trial({"x": 0.4, "k": "a"})
    study.enqueue_trial({"x": 0.35})
    study.optimize(objective, n_trials=4)
    found = sources(study)
    assert found[:2] == ["user", "user"]
    assert str(found[2]).startswith("user+")
    assert "rationale" not in study.trials[2].user_attrs
    assert study.trials[2].user_attrs["llmhpo:params"]["x"] == 0.35
    assert "user" not in str(found[3])


def test_the_fixed_parameters_of_a_running_trial_are_known() -> None:
    sampler = LLMSampler(None, search_space=SPACE, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"x": 0.123, "k": "b"})
    study.enqueue_trial({"x": 0.456, "k": "a"})
    asked = study.ask()
    asked.suggest_int("y", 0, 9)
    study.ask()
    seen = sampler._context(study, study.ask()._get_latest_trial(), SearchSpace.from_dict(SPACE)).trials
    assert [(t.params["x"], t.params["k"]) for t in seen] == [(0.123, "b"), (0.456, "a")]


def test_trials_before_the_space_is_known_say_how_they_were_sampled() -> None:
    def changing(trial: optuna.Trial) -> float:
        return trial.suggest_float(f"x{trial.number}", 0.0, 1.0)

    study = optuna.create_study(sampler=LLMSampler(None, seed=0))
    study.enqueue_trial({"x0": 0.5})
    study.optimize(changing, n_trials=7)
    assert sources(study) == ["user", "random", "random", "random", "random", "tpe", "tpe"]


class Slow(ScriptedModel):
    """Waits with its answer until it is told to go on; counts who waits."""

    def __init__(self) -> None:
        super().__init__(replies())
        self.go, self.waiting, self.most, self.in_time = threading.Event(), 0, 0, True

    def complete(self, request: Request) -> Completion:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.in_time = self.go.wait(60) and self.in_time
        self.waiting -= 1
        return super().complete(request)


def test_while_one_worker_waits_for_the_model_the_others_go_on() -> None:
    model = Slow()
    study = optuna.create_study(sampler=LLMSampler(model, search_space=SPACE, seed=0))

    def until_four_have_run(trial: optuna.Trial) -> float:
        value = objective(trial)
        if sum(t.params != {} for t in study.get_trials(deepcopy=False)) >= 4:
            model.go.set()
        return value

    study.optimize(until_four_have_run, n_trials=10, n_jobs=2)
    assert model.in_time
    assert model.most == 1
    assert "llm" in sources(study)
    assert sources(study).count("default") == 1


def test_the_default_does_not_wait_for_the_model() -> None:
    model = Slow()
    study = optuna.create_study(sampler=LLMSampler(model, search_space=SPACE, seed=0))
    study.optimize(objective, n_trials=1)
    assert sources(study) == ["default"]
    assert model.most == 0


PAIRS: list[Any] = [(1, 2), (3, 4)]  # Optuna takes them, with a warning


def test_parameters_that_no_prompt_can_hold_are_sampled_on_their_own() -> None:
    def odd(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        quoted = trial.suggest_float("the 'rate' {of} it", 0.0, 1.0)
        with pytest.warns(UserWarning, match="Choices for a categorical"):
            pair = trial.suggest_categorical("pair", PAIRS)
        return x + quoted + int(pair[0])

    study = optuna.create_study(sampler=LLMSampler(ScriptedModel(replies()), seed=0))
    study.optimize(odd, n_trials=6)
    assert set(study.trials[-1].user_attrs["llmhpo:params"]) == {"x"}


def test_such_parameters_in_a_declared_space_are_a_space_error() -> None:
    with pytest.raises(SpaceError, match="brace"):
        LLMSampler(None, search_space={"{x}": FLAT["x"]})
    with pytest.warns(UserWarning, match="Choices for a categorical"):
        pairs = CategoricalDistribution(PAIRS)
    with pytest.raises(SpaceError, match=r"\(1, 2\)"):
        LLMSampler(None, search_space={"pair": pairs})


def test_a_cap_on_money_needs_a_price() -> None:
    model = ScriptedModel(replies(), price=None)
    with pytest.raises(ConfigError, match=r"max_usd=1\.0.*price"):
        LLMSampler(model, max_usd=1.0)


def test_a_cap_on_tokens_that_stands_in_for_one_on_money_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llmhpo"):
        sampler = LLMSampler(
            ScriptedModel(replies(), price=None), search_space=SPACE, max_usd=1.0, max_tokens=10**6, seed=0
        )
    assert "max_usd=1.0 is not kept for 'scripted'" in caplog.text
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=5)
    assert "llm" in sources(study)


def test_a_hosted_model_gets_the_price_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    LLMSampler("openai:unheard-of", base_url="http://127.0.0.1:9/v1", max_usd=1.0, price=Price(1.0, 2.0))


LINE = {"x": {"type": "float", "low": 0.0, "high": 1.0}}


def test_a_noisy_study_repeats_leaders_and_its_best_is_not_the_luckiest() -> None:
    rng = np.random.default_rng(0)
    sampler = LLMSampler("none", search_space=LINE, seed=0, noisy=True)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: (t.suggest_float("x", 0.0, 1.0) - 0.3) ** 2 + 0.1 * rng.standard_normal(), 30)
    sources = [t.user_attrs["source"] for t in study.trials]
    assert "repeat" in sources
    assert len({t.params["x"] for t in study.trials}) == 30 - sources.count("repeat")
    assert abs(sampler.best_trial(study).params["x"] - 0.3) < 0.3


def test_the_best_of_an_exact_study_is_optunas() -> None:
    sampler = LLMSampler("none", search_space=LINE, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0.0, 1.0), 5)
    assert sampler.best_trial(study) == study.best_trial

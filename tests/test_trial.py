from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from llmhpo.columns import columns
from llmhpo.errors import ConfigError
from llmhpo.prior import Belief, Prior
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial, best_trial, confirm_seed

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"text": None}, ["text=None", "words"]),
        ({"metric": 3}, ["metric=3", "key"]),
        ({"metric": ""}, ["metric=''", "key"]),
        ({"direction": "up"}, ["direction='up'", "minimize"]),
        ({"timeout_s": "60"}, ["timeout_s='60'", "seconds"]),
        ({"timeout_s": math.nan}, ["timeout_s=nan", "seconds"]),
        ({"timeout_s": 0}, ["timeout_s=0", "positive"]),
        ({"noisy": "yes"}, ["noisy='yes'", "True"]),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Task(**fields)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5", 10**400])
def test_a_good_outcome_needs_a_finite_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="give a finite number, or the status 'failed'"):
        Outcome("ok", value)


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_a_failed_outcome_has_no_value(value: float) -> None:
    with pytest.raises(ConfigError, match="leave the value out"):
        Outcome("failed", value)


def test_the_best_trial_is_the_earliest_of_equals() -> None:
    trials = [Trial(n, Proposal({}, "random"), Outcome("ok", value)) for n, value in enumerate([1.0, 2.0, 2.0])]
    assert best_trial(trials, Task(direction="maximize")) is trials[1]


def test_the_beliefs_that_count_are_those_stated_first() -> None:
    first, second = (Prior((Belief("x", 0.8, better=end),)) for end in ("lower", "higher"))  # type: ignore[arg-type]
    batches = tuple(Batch("warmstart", 0, 1, prior=prior) for prior in (None, first, second))
    assert Context(Task(), SPACE, batches=batches).prior is first
    assert Context(Task(), SPACE, batches=batches[:1]).prior is None


def test_every_trial_of_a_noisy_task_has_a_seed_of_its_own_and_no_confirmation_shares_it() -> None:
    for study_seed in (0, 7, 2**30 - 1, 2**30, 2**31 - 1):
        exact, noisy = Task(), Task(noisy=True)
        search = {exact.job_seed(study_seed, n) for n in range(500)} | {
            noisy.job_seed(study_seed, n) for n in range(500)
        }
        confirming = {confirm_seed(study_seed, r) for r in range(500)}
        assert len({noisy.job_seed(study_seed, n) for n in range(500)}) == 500
        assert {exact.job_seed(study_seed, n) for n in range(500)} == {study_seed}
        assert len(confirming) == 500
        assert not search & confirming
        assert all(0 <= seed < 2**31 for seed in search | confirming)


def test_what_was_asked_for_and_what_was_run_instead_both_count_as_tried() -> None:
    trial = Trial(0, Proposal({"x": 0.51}, "gp"), Outcome("ok", 1.0), {"x": 0.5})
    context = Context(Task(), SPACE, (trial,))
    assert trial.params == {"x": 0.5}
    assert set(columns(context).tried) == {SPACE.key({"x": 0.5}), SPACE.key({"x": 0.51})}


@pytest.mark.parametrize("bounds", [(1, 0), (0,), (True, 1), ("0", "1"), 3, (float("nan"), 1)], ids=str)
def test_bounds_that_are_none_are_refused(bounds: Any) -> None:
    with pytest.raises(ConfigError, match="metric_bounds"):
        Task(bounds=bounds)


def test_bounds_come_back_from_json_and_infinity_is_no_bound() -> None:
    task = Task(bounds=(0.0, float("inf")))
    assert task.bounds == (0.0, None)
    assert Task(**json.loads(json.dumps(asdict(task)))) == task

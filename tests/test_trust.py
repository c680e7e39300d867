from __future__ import annotations

from dataclasses import replace

import pytest

from llmhpo.space import SearchSpace
from llmhpo.trial import REPEAT, Context, Outcome, Proposal, Task, Trial
from llmhpo.trust import credit, gains, plateaued, trust, unknown_gain

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
Ended = list[tuple[str, float | None]]


def context(trials: Ended) -> Context:
    """Trials as (source, loss); a loss of None is a failure."""
    made = []
    for i, (source, loss) in enumerate(trials):
        outcome = Outcome("failed") if loss is None else Outcome("ok", loss)
        made.append(Trial(i, Proposal({"x": (i + 1) / 100}, source), outcome))
    return Context(Task("t", "loss"), SPACE, tuple(made))


OTHERS: Ended = [("random", 0.4), ("gp", 0.5), ("tpe", 0.6)]


@pytest.mark.parametrize(
    "trials, low, high",
    [
        ([], 0.75, 0.85),
        ([*OTHERS, ("llm", 0.1), ("llm", 0.1)], 0.95, 1.0),
        ([*OTHERS, ("llm", 0.9), ("llm", 0.9)], 0.0, 0.1),
        ([*OTHERS, ("llm", None), ("llm", None)], 0.0, 0.1),
        ([*OTHERS, ("llm", 0.5), ("llm", 0.5)], 0.6, 0.8),
    ],
)
def test_trust_follows_what_the_models_trials_are_worth(trials: Ended, low: float, high: float) -> None:
    assert low <= trust(context(trials)) <= high


def test_one_comparison_says_less_than_three() -> None:
    lost: Ended = [("llm", 0.9)]
    assert trust(context([*OTHERS, *lost])) < trust(context([OTHERS[0], *lost])) < trust(context([]))


def test_a_small_model_has_to_earn_its_trust() -> None:
    assert trust(context([]), compact=True) < 0.5
    assert trust(context([*OTHERS, ("llm", 0.1), ("llm", 0.2)]), compact=True) > 0.5


def test_trust_knows_the_direction() -> None:
    trials = context([*OTHERS, ("llm", 0.9)])
    assert trust(replace(trials, task=Task("t", "loss", "maximize"))) > trust(trials)


def test_trust_stays_a_probability_however_much_is_seen() -> None:
    assert 0.0 < trust(context([*OTHERS, *[("llm", 0.9)] * 500])) < 1e-9
    assert 0.999 < trust(context([*OTHERS, *[("llm", 0.1)] * 500])) <= 1.0


def test_a_models_words_lose_their_credit_with_its_trials() -> None:
    assert credit(context([])) == 1.0
    assert credit(context([*OTHERS, ("llm", 0.1)])) == 1.0
    assert credit(context([*OTHERS, ("llm", 0.9), ("llm", 0.9)])) < 0.15


def test_a_source_gains_by_improving_on_the_best_and_not_otherwise() -> None:
    found = gains(context([("random", 0.9), ("gp", 0.8), ("tpe", 0.85), ("gp", 0.7), ("tpe", 0.9)]))
    assert found["gp"] > unknown_gain() > found["tpe"]


def test_a_source_whose_trials_fail_loses() -> None:
    found = gains(context([("random", 0.9), ("gp", None), ("gp", None)]))
    assert found["gp"] < unknown_gain()


def test_failing_before_anything_succeeded_gains_nothing() -> None:
    assert gains(context([("gp", None)] * 4))["gp"] < unknown_gain()


def test_a_repeated_run_is_nobodys_gain() -> None:
    assert REPEAT not in gains(context([("random", 0.9), (REPEAT, 0.8)]))


def test_late_gains_count_more_than_early_ones() -> None:
    early: Ended = [("gp", 0.5), ("tpe", 0.4), *[("gp", 0.9)] * 8]
    rising = context([("random", 0.9), ("gp", 0.8), *[("gp", 0.95)] * 8])
    falling = context([("random", 0.9), *[("gp", 0.95)] * 8, ("gp", 0.8)])
    assert gains(falling)["gp"] > gains(rising)["gp"]
    assert gains(context(early))["gp"] < unknown_gain()


@pytest.mark.parametrize(
    "losses, flat",
    [
        ([1.0] * 8, False),  # too few to tell
        ([0.5] + [1.0] * 8, True),
        ([1.0] * 8 + [0.5], False),
        ([0.5] + [1.0] * 7 + [0.4] + [1.0] * 12, True),
        ([1.0] * 30 + [0.4] + [1.0] * 8, False),  # a third of 39 is 13
    ],
)
def test_a_plateau_is_a_third_of_the_trials_without_improvement(losses: list[float], flat: bool) -> None:
    assert plateaued(context([("gp", loss) for loss in losses])) is flat

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.space import SearchSpace
from llmhpo.surrogates.acquisition import log_ei
from llmhpo.surrogates.screen import _spacing, _subset, fit_screen
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

PLANE = SearchSpace.from_dict({n: {"type": "float", "low": 0, "high": 1} for n in ("x", "y")})


def trial(number, params, value=None, status="ok"):
    outcome = None if status == "running" else Outcome(status, value if status == "ok" else None)
    return Trial(number, Proposal(params, "test"), outcome)


def context(n=12, *, space=PLANE, loss=lambda p: (p["x"] - 0.3) ** 2, direction="minimize", extra=(), seed=0):
    rng = np.random.default_rng(seed)
    trials = [trial(i, p, loss(p)) for i, p in enumerate(space.sample(rng, n))]
    trials += [trial(n + i, *e) for i, e in enumerate(extra)]
    return Context(Task(direction=direction), space, tuple(trials), seed=seed)


def proposals(params, source="llm"):
    return [Proposal(p, source) for p in params]


def test_with_two_finished_trials_candidates_keep_their_order():
    c = context(2)
    given_ = proposals(PLANE.sample(np.random.default_rng(5), 4))
    assert fit_screen(c).pick(given_, 3, np.random.default_rng(0)) == given_[:3]


def test_what_was_tried_failed_or_is_running_is_never_picked():
    failed, running = {"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.2}
    c = context(extra=[(failed, None, "oom"), (running, None, "running")])
    fresh = {"x": 0.9, "y": 0.9}
    picked = fit_screen(c).pick(proposals([c.trials[0].params, failed, running, fresh]), 4, np.random.default_rng(0))
    assert [p.params for p in picked] == [fresh]


def test_no_two_picks_are_alike():
    same = {"x": 0.5, "y": 0.5}
    assert len(fit_screen(context()).pick(proposals([same, dict(same)]), 2, np.random.default_rng(0))) == 1


def test_the_promising_candidate_wins_whoever_proposed_it():
    good, bad = Proposal({"x": 0.3, "y": 0.5}, "llm"), Proposal({"x": 0.95, "y": 0.5}, "gp")
    assert fit_screen(context(30)).pick([bad, good], 1, np.random.default_rng(0)) == [good]


@pytest.mark.parametrize("direction,sign", [("minimize", 1), ("maximize", -1)])
def test_the_direction_of_the_task_decides_what_is_better(direction, sign):
    c = context(30, loss=lambda p: sign * (p["x"] - 0.3) ** 2, direction=direction)
    score = fit_screen(c).score([{"x": 0.3, "y": 0.5}, {"x": 0.95, "y": 0.5}])
    assert score[0] > score[1]


def test_a_batch_is_diverse():
    close = [{"x": 0.30, "y": 0.50}, {"x": 0.3001, "y": 0.5001}, {"x": 0.33, "y": 0.1}]
    c = context(8, loss=lambda p: (p["x"] - 0.3) ** 2 + 0.1 * p["y"])
    picked = fit_screen(c).pick(proposals(close), 2, np.random.default_rng(0))
    assert {p.params["x"] for p in picked} != {0.30, 0.3001}


def test_a_running_trial_makes_its_neighbourhood_less_attractive():
    spot = {"x": 0.31, "y": 0.5}
    before = fit_screen(context(8)).score([spot])[0]
    after = fit_screen(context(8, extra=[({"x": 0.311, "y": 0.5}, None, "running")])).score([spot])[0]
    assert after < before


def test_predictions_are_in_the_metrics_own_units():
    c = context(40, loss=lambda p: 1000 + 500 * p["x"], direction="maximize")
    prediction = fit_screen(c).predict([{"x": 0.2, "y": 0.5}, {"x": 0.8, "y": 0.5}])
    assert prediction.mean == pytest.approx([1100, 1400], abs=25)
    assert (prediction.std > 0).all()


def test_without_a_fit_the_prediction_is_what_was_seen():
    assert math.isnan(fit_screen(context(0)).predict([{"x": 0.2, "y": 0.5}]).mean[0])
    assert fit_screen(context(1, loss=lambda p: 4.0)).predict([{"x": 0.2, "y": 0.5}]).mean[0] == 4.0


def test_failed_trials_lower_the_score_of_their_region_and_no_prediction():
    rng = np.random.default_rng(3)
    failed = [({"x": float(x), "y": float(y)}, None, "failed") for x, y in 0.8 + 0.2 * rng.random((6, 2))]
    spot = {"x": 0.9, "y": 0.9}
    plain, warned = fit_screen(context()), fit_screen(context(extra=failed))
    assert warned.score([spot])[0] < plain.score([spot])[0]
    assert warned.predict([spot]).mean == pytest.approx(plain.predict([spot]).mean)


def test_sensitivities_sum_to_one_and_name_the_parameter_that_matters():
    shares = fit_screen(context(30)).sensitivities()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["x"] > 0.8


def test_sensitivities_are_empty_while_nothing_is_known():
    assert fit_screen(context(2)).sensitivities() == {}
    assert fit_screen(context(6, loss=lambda p: 1.0)).sensitivities() == {}


def test_the_same_context_gets_the_same_scores_from_a_new_fit():
    spots = PLANE.sample(np.random.default_rng(8), 6)
    first = fit_screen(context(15)).score(spots)
    fit_screen(context(4))
    assert np.array_equal(first, fit_screen(context(15)).score(spots))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 10), k=st.integers(0, 6), seed=st.integers(0, 50), constant=st.booleans())
def test_every_space_and_history_gets_finite_scores_and_picks(n, k, seed, constant):
    space = SearchSpace.from_dict(
        {
            "o": {"type": "categorical", "choices": ["a", "b", "c"]},
            "m": {"type": "float", "low": 1e-4, "high": 1, "log": True, "when": {"o": "a"}},
            "fixed": {"type": "int", "low": 2, "high": 2},
            "k": {"type": "int", "low": 1, "high": 3},
        }
    )
    c = context(n, space=space, loss=lambda p: 1.0 if constant else 10.0 ** (p["k"] * 3), seed=seed)
    candidates = space.sample(np.random.default_rng(seed + 1), k)
    screen = fit_screen(c)
    assert np.isfinite(screen.score(candidates)).all()
    assert screen.score(candidates).shape == (k,)
    picked = screen.pick(proposals(candidates), 3, np.random.default_rng(0))
    assert len({space.key(p.params) for p in picked}) == len(picked) <= 3


def test_repeats_among_the_trials_widen_the_spacing_and_fresh_trials_narrow_it():
    assert _spacing(["a", "b", "c"]) == 0
    once, twice = _spacing(["a", "b", "a"]), _spacing(["a", "b", "a", "a"])
    assert 0 < once < twice
    assert _spacing(["a", "b", "a", "a", "c"]) < twice


def test_a_subset_keeps_the_best_and_the_latest():
    losses = np.random.default_rng(0).random(1000)
    kept = _subset(losses, 100)
    assert len(kept) == 100
    assert set(np.argsort(losses)[:50]) <= set(kept)
    assert {999, 998, 980} <= set(kept)


def test_expected_improvement_agrees_with_its_definition():
    mean, std, draws = 0.4, 0.5, np.random.default_rng(0).standard_normal(400_000)
    monte_carlo = np.maximum(0.1 - (mean + std * draws), 0).mean()
    assert log_ei(np.array([mean]), np.array([std]), 0.1)[0] == pytest.approx(np.log(monte_carlo), abs=0.02)


@given(st.floats(-1e6, 1e6))
def test_expected_improvement_is_finite_and_falls_with_the_mean(mean):
    values = log_ei(np.array([mean, mean + max(1.0, abs(mean) * 0.01)]), np.ones(2), 0.0)
    assert np.isfinite(values).all()
    assert values[0] > values[1]


def test_intended_repeats_do_not_look_like_an_objective_that_rounds():
    c = context(12)
    again = tuple(Trial(12 + i, Proposal(c.trials[0].params, "repeat"), c.trials[0].outcome) for i in range(4))
    assert fit_screen(Context(c.task, c.space, (*c.trials, *again)))._spacing == 0.0


def test_the_goal_of_a_noisy_task_is_the_best_expected_value_and_not_the_luckiest():
    c = context(24, extra=[({"x": 0.9, "y": 0.9}, -1.0)])
    noisy = fit_screen(Context(Task(noisy=True), c.space, c.trials))
    assert noisy._best > float(noisy._warp.forward(np.array([-1.0]))[0])


def test_what_was_asked_for_and_answered_by_another_is_never_picked():
    asked = {"x": 0.5, "y": 0.5}
    snapped = Trial(12, Proposal(asked, "gp"), Outcome("ok", 0.1), {"x": 0.4, "y": 0.5})
    c = Context(Task(), PLANE, (*context(12).trials, snapped))
    assert fit_screen(c).pick(proposals([asked, snapped.params]), 2, np.random.default_rng(0)) == []


def test_a_pruned_trial_says_nothing_of_feasibility():
    pruned = [({"x": 0.3 + i / 1000, "y": 0.5}, None, "pruned") for i in range(6)]
    failed = [(p, None, "failed") for p, *_ in pruned]
    near = [{"x": 0.305, "y": 0.52}]
    plain = fit_screen(context(12)).score(near)
    assert fit_screen(context(12, extra=pruned)).score(near) == plain
    assert fit_screen(context(12, extra=failed)).score(near) < plain

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.param import Param
from llmhpo.prior import UNIFORM, Belief, Prior, prior_from_dict
from llmhpo.space import SearchSpace

X = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 10.0}})
LEFT = Prior((Belief("x", 0.8, 1.0, 3.0),))
GRID = (np.arange(2000)[:, None] + 0.5) / 2000


def grid(p: int, n: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).random((n, p))


shares = st.floats(0.0, 1.0)
tens = st.floats(0.0, 10.0)
ranges = st.builds(lambda c, a, b: Belief("x", c, min(a, b), max(a, b)), shares, tens, tens)
trends = st.builds(lambda c, b: Belief("x", c, better=b), shares, st.sampled_from(["lower", "higher"]))  # type: ignore[arg-type]


def test_a_point_about_which_nothing_was_said_is_indifferent(space: SearchSpace) -> None:
    assert Prior((Belief("elsewhere", 0.9, 0.0, 1.0),)).log_density(space, grid(6)) == pytest.approx(0.0)


@settings(deadline=None)
@given(st.lists(ranges | trends, max_size=4))
def test_a_density_has_the_mass_of_one(beliefs: list[Belief]) -> None:
    assert np.exp(Prior(tuple(beliefs)).log_density(X, GRID)).mean() == pytest.approx(1.0, abs=0.02)


@settings(deadline=None)
@given(st.lists(ranges | trends, max_size=4))
def test_nothing_is_ever_cut_off(beliefs: list[Belief]) -> None:
    log_density = Prior(tuple(beliefs)).log_density(X, GRID)
    assert log_density.min() >= np.log(UNIFORM)
    assert np.isfinite(log_density).all()


@settings(deadline=None)
@given(ranges)
def test_one_range_prefers_no_point_by_more_than_a_bounded_ratio(belief: Belief) -> None:
    assert np.ptp(Prior((belief,)).log_density(X, GRID)) < np.log(100.0)


def test_a_range_is_preferred_and_has_soft_shoulders() -> None:
    inside, near, far = LEFT.log_density(X, np.array([[0.2], [0.34], [0.9]]))
    assert inside > 0 > far
    assert far < near < inside


def test_the_bounds_of_a_range_are_in_the_units_of_the_parameter() -> None:
    space = SearchSpace.from_dict({"lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True}})
    prior = Prior((Belief("lr", 0.9, 1e-4, 1e-3),))
    usual, large = prior.log_density(space, np.array([space.to_unit({"lr": 3e-4}), space.to_unit({"lr": 0.05})]))
    assert usual > 0 > large


def test_a_surer_statement_prefers_more() -> None:
    spread = [np.ptp(Prior((Belief("x", c, 1.0, 3.0),)).log_density(X, GRID)) for c in (0.4, 0.6, 0.8)]
    assert spread == sorted(spread)
    assert spread[0] > 0


@pytest.mark.parametrize(
    "belief", [Belief("x", 0.9, 0.0, 10.0), Belief("x", 0.3, 2.0, 8.0), Belief("x", 0.0, 1.0, 2.0)]
)
def test_what_holds_by_chance_as_often_as_it_is_said_to_hold_says_nothing(belief: Belief) -> None:
    assert not belief.informs(X["x"])


def test_a_trend_tilts_gently_to_the_better_end() -> None:
    log_density = Prior((Belief("x", 1.0, better="lower"),)).log_density(X, GRID)
    assert (np.diff(log_density) < 0).all()
    assert np.ptp(log_density) < np.log(10.0)


def test_a_trend_and_a_range_of_one_parameter_join() -> None:
    both = Prior((*LEFT.beliefs, Belief("x", 1.0, better="lower")))
    low, high = both.log_density(X, np.array([[0.12], [0.28]]))
    assert low > high > 0


def test_likely_choices_are_preferred(space: SearchSpace) -> None:
    prior = Prior((Belief("optimizer", 0.8, choices=("adam", "rmsprop")),))
    params = [{"lr": 0.01, "optimizer": o, "batch_size": 32, "layers": 2} for o in ("adam", "rmsprop", "sgd")]
    adam, rmsprop, sgd = prior.log_density(space, np.array([space.to_unit(p) for p in params]))  # type: ignore[arg-type]
    assert adam == rmsprop > 0 > sgd


def test_a_parameter_that_does_not_exist_has_no_say(space: SearchSpace) -> None:
    prior = Prior((Belief("momentum", 0.9, 0.8, 0.9),))
    U = grid(6)
    inactive = np.array(["momentum" not in space.from_unit(u) for u in U])
    log_density = prior.log_density(space, U)
    assert log_density[inactive] == pytest.approx(0.0)
    assert np.ptp(log_density[~inactive]) > 1.0


def test_all_points_of_one_configuration_have_one_density(space: SearchSpace) -> None:
    prior = Prior(
        (Belief("layers", 0.8, 2, 3), Belief("momentum", 0.8, 0.5, 0.7), Belief("batch_size", 0.8, choices=(16,)))
    )
    U = grid(6)
    U[:, 0] = 0.5
    centres = np.array([space.to_unit(space.from_unit(u)) for u in U])
    assert prior.log_density(space, U) == pytest.approx(prior.log_density(space, centres))


def test_samples_lie_where_the_density_is() -> None:
    U = LEFT.sample(X, np.random.default_rng(0), 4000)
    expected = np.exp(LEFT.log_density(X, GRID))[200:600].mean() * 0.2
    assert ((U > 0.1) & (U < 0.3)).mean() == pytest.approx(expected, abs=0.03)
    assert ((U > 0.6).mean()) > 0.5 * UNIFORM * 0.4


def test_samples_are_points_of_the_cube(space: SearchSpace) -> None:
    prior = Prior(
        (Belief("lr", 0.9, 1e-5, 1e-5), Belief("layers", 0.8, 4, 4), Belief("optimizer", 0.9, choices=("sgd",)))
    )
    U = prior.sample(space, np.random.default_rng(0), 1000)
    assert U.shape == (1000, 6)
    assert ((U >= 0.0) & (U <= 1.0)).all()


def test_a_range_on_a_logarithmic_integer_has_its_mass() -> None:
    param = Param(
        "n", SearchSpace.from_dict({"n": {"type": "int", "low": 1, "high": 200, "log": True}})["n"].distribution
    )
    space = SearchSpace([param])
    prior = Prior((Belief("n", 0.9, 150, 200),))
    assert np.exp(prior.log_density(space, GRID)).mean() == pytest.approx(1.0, abs=0.02)


# How much it counts


def weights(losses: np.ndarray, tried: np.ndarray) -> float:
    return LEFT.weight(X, tried, losses, planned=50)


def test_without_data_a_prior_counts_in_full() -> None:
    assert LEFT.weight(X, np.empty((0, 1)), np.empty(0)) == 1.0


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_the_weight_goes_to_zero_with_data_whatever_they_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tried, losses = rng.random((5000, 1)), rng.random(5000)
    assert 0.0 <= weights(losses, tried) <= 5 / 5000


def test_with_data_that_agree_the_weight_falls_as_one_over_n() -> None:
    tried = grid(1, 40)
    losses = -LEFT.log_density(X, tried)
    ten, forty = weights(losses[:10], tried[:10]), weights(losses, tried)
    assert ten == pytest.approx(0.5)
    assert forty == pytest.approx(0.125)


def test_data_that_contradict_silence_a_prior_within_a_few_trials() -> None:
    tried = grid(1, 15)
    assert weights(LEFT.log_density(X, tried), tried) == 0.0


def test_data_that_do_not_tell_lie_between() -> None:
    tried = grid(1, 10)
    agreeing = weights(-LEFT.log_density(X, tried), tried)
    random = np.mean([weights(np.random.default_rng(s).random(10), tried) for s in range(50)])
    assert 0.2 * agreeing < random < 0.8 * agreeing


def test_trials_that_a_prior_does_not_tell_apart_say_nothing_about_it() -> None:
    tried = np.full((4, 1), 0.2)
    assert weights(np.arange(4.0), tried) == 1.0


def test_the_weight_is_that_of_a_longer_study_where_more_trials_are_planned() -> None:
    tried = grid(1, 20)
    losses = -LEFT.log_density(X, tried)
    assert LEFT.weight(X, tried, losses, 200) > LEFT.weight(X, tried, losses, 20)


def test_the_log_weight_is_what_an_acquisition_adds() -> None:
    tried = grid(1, 10)
    losses = -LEFT.log_density(X, tried)
    expected = weights(losses, tried) * LEFT.log_density(X, GRID)
    assert LEFT.log_weight(X, GRID, tried, losses, planned=50) == pytest.approx(expected)


def test_a_silenced_prior_adds_nothing() -> None:
    tried = grid(1, 15)
    assert not LEFT.log_weight(X, GRID, tried, LEFT.log_density(X, tried)).any()


def test_a_prior_comes_back_from_json() -> None:
    prior = Prior(
        (Belief("x", 0.8, 1.0, 3.0), Belief("c", 0.5, choices=("a", None, True, 2)), Belief("x", 1.0, better="lower"))
    )
    assert prior_from_dict(json.loads(json.dumps(asdict(prior)))) == prior


def test_a_category_of_hundreds_of_choices_can_be_believed_about() -> None:
    space = SearchSpace.from_dict({"k": {"type": "categorical", "choices": [f"c{i}" for i in range(300)]}})
    belief = Belief("k", 0.9, choices=("c7",))
    assert belief.informs(space["k"])
    density = Prior((belief,)).log_density(space, np.array([[7.5 / 300], [8.5 / 300]]))
    assert density[0] > density[1]

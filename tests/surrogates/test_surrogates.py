"""The contract of `Surrogate`, on every implementation."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.surrogates.base import CrossValidated
from llmhpo.surrogates.choose import SURROGATES, Chosen
from llmhpo.surrogates.gp import GaussianProcess, _Columns, _negative_log_likelihood
from llmhpo.surrogates.inputwarp import WarpedProcess, _posterior

PLAIN = ((0,), (1,), (2,), (3,))
Make = Callable[..., CrossValidated]


@pytest.fixture(params=list(SURROGATES))
def name(request):
    return request.param


@pytest.fixture
def make(name) -> Make:
    return lambda groups=PLAIN: SURROGATES[name](groups, False)


def smooth(X):
    return np.sin(3 * X[:, 0]) + X[:, 1] ** 2


def data(n, d=4, seed=0):
    X = np.random.default_rng(seed).random((n, d))
    return X, smooth(X)


def mixed(n, seed=0):
    """Two numbers and a category of three, the second choice of which is best."""
    rng = np.random.default_rng(seed)
    X = np.hstack([rng.random((n, 2)), np.eye(3)[rng.integers(3, size=n)]])
    return X, 0.3 * X[:, 0] - X[:, 3]


def test_predictions_have_one_entry_a_row(make):
    X, y = data(20)
    model = make()
    model.fit(X, y)
    prediction = model.predict(np.random.default_rng(1).random((7, 4)))
    assert prediction.mean.shape == prediction.std.shape == (7,)


def test_a_smooth_function_is_learned_from_eighty_points(make):
    model = make()
    model.fit(*data(80))
    X, y = data(300, seed=1)
    assert np.corrcoef(model.predict(X).mean, y)[0, 1] > 0.75


def test_the_better_choice_of_a_category_is_found(make):
    model = make(((0,), (1,), (2, 3, 4)))
    model.fit(*mixed(60))
    X, _ = mixed(200, seed=1)
    mean = model.predict(X).mean
    assert mean[X[:, 3] == 1].mean() < mean[X[:, 3] == 0].mean() - 0.3


def test_the_same_data_give_the_same_predictions(make):
    X, y = data(30)
    first, second = make(), make()
    first.fit(X, y)
    second.fit(*data(11, seed=5))
    second.fit(X, y)
    probe = np.random.default_rng(2).random((20, 4))
    assert np.array_equal(first.predict(probe).mean, second.predict(probe).mean)
    assert np.array_equal(first.predict(probe).std, second.predict(probe).std)


def test_one_point_is_enough(make):
    model = make(((0,), (1,)))
    model.fit(np.array([[0.3, 0.7]]), np.array([5.0]))
    prediction = model.predict(np.random.default_rng(0).random((5, 2)))
    assert np.allclose(prediction.mean, 5.0)
    assert (prediction.std > 0).all()
    assert np.isfinite(model.held_out().mean).all()


def test_constant_targets_are_predicted_as_constant(make):
    model = make()
    model.fit(data(12)[0], np.full(12, -3.0))
    assert np.allclose(model.predict(data(5, seed=3)[0]).mean, -3.0)


@pytest.mark.parametrize("kind", list(SURROGATES))
@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-9, 1.0, 1e9]),
    shift=st.sampled_from([0.0, 1e6]),
)
def test_repeated_rows_and_any_scale_give_finite_predictions(kind, n, seed, scale, shift):
    rng = np.random.default_rng(seed)
    X = np.repeat(np.round(rng.random((n, 3)), 1), 2, axis=0)
    y = rng.standard_normal(2 * n) * scale + shift
    model = SURROGATES[kind](((0,), (1,), (2,)), False)
    model.fit(X, y)
    for prediction in (model.predict(rng.random((10, 3))), model.held_out()):
        assert np.isfinite(prediction.mean).all()
        assert np.isfinite(prediction.std).all()
        assert (prediction.std > 0).all()


def test_predictions_are_in_the_units_of_the_targets(make):
    X, y = data(40)
    plain, scaled = make(), make()
    plain.fit(X, y)
    scaled.fit(X, 1000 * y + 7)
    probe = data(20, seed=4)[0]
    assert np.allclose(scaled.predict(probe).mean, 1000 * plain.predict(probe).mean + 7, rtol=1e-2, atol=20)


def test_two_of_three_noisy_observations_lie_within_one_standard_deviation(make):
    X, y = data(150)
    rng = np.random.default_rng(1)
    model = make()
    model.fit(X, y + 0.2 * rng.standard_normal(len(y)))
    P, truth = data(400, seed=2)
    prediction = model.predict(P)
    std = np.hypot(prediction.std, getattr(model, "noise_std", 0.0))
    within = np.abs(truth + 0.2 * rng.standard_normal(len(P)) - prediction.mean) < std
    assert 0.5 < within.mean() < 0.9


def test_a_row_does_not_help_to_predict_itself(make):
    X, _ = data(60)
    y = np.random.default_rng(7).standard_normal(60)
    model = make()
    model.fit(X, y)
    held_out = model.held_out().mean
    # A fit without leaving out correlates at 0.9; hyperparameters that have seen all rows at up to 0.4.
    assert np.ptp(held_out) < 1e-3 or np.corrcoef(held_out, y)[0, 1] < 0.5


def test_rows_left_out_of_a_smooth_function_are_predicted(make):
    X, y = data(80)
    model = make()
    model.fit(X, y)
    assert np.corrcoef(model.held_out().mean, y)[0, 1] > 0.75


def test_a_few_hundred_trials_of_a_large_space_are_no_trouble(make):
    X, y = data(250, d=14)
    model = make(tuple((j,) for j in range(14)))
    model.fit(X, y)
    P, truth = data(300, d=14, seed=3)
    assert np.corrcoef(model.predict(P).mean, truth)[0, 1] > 0.6


def test_a_fantasy_lowers_variances_nearby_and_no_mean(name, make):
    model = make()
    model.fit(*data(30))
    probe = data(15, seed=9)[0]
    probe[5] = probe[4] + 1e-3
    state = Chosen(name, model, PLAIN).state(probe)
    mean, variance = state.mean.copy(), state.variance.copy()
    assert np.allclose(mean, model.predict(probe).mean)
    state = state.believe(4)
    assert np.array_equal(state.mean, mean)
    assert (state.variance <= variance + 1e-12).all()
    assert (state.variance[4:6] < 0.5 * variance[4:6]).all()


def test_the_process_goes_through_noiseless_points():
    X, y = data(30)
    model = GaussianProcess()
    model.fit(X, y)
    assert np.abs(model.predict(X).mean - y).max() < 0.05


def test_the_process_is_less_sure_far_from_the_points():
    X, y = data(30)
    model = GaussianProcess()
    model.fit(0.3 * X, y)
    near, far = model.predict(0.3 * X[:3]).std, model.predict(np.full((3, 4), 1.0)).std
    assert far.min() > near.max()


def test_the_columns_of_a_category_share_a_length_scale():
    rng = np.random.default_rng(0)
    X = np.hstack([rng.random((20, 1)), np.eye(3)[rng.integers(3, size=20)]])
    model = GaussianProcess([(0,), (1, 2, 3)])
    model.fit(X, X[:, 0] + X[:, 2])
    assert model.hyperparameters.lengths.shape == (2,)


def test_an_irrelevant_parameter_gets_a_longer_length_scale():
    X, _ = data(60)
    model = GaussianProcess()
    model.fit(X, np.sin(6 * X[:, 0]))
    lengths = model.hyperparameters.lengths
    assert lengths[1:].min() > 3 * lengths[0]


def test_the_gradient_of_the_likelihood_is_right():
    X, y = data(12)
    z = (y - y.mean()) / y.std()
    i, j = np.triu_indices(12, 1)
    D = _Columns.of([(0,), (1, 2), (3,)]).pair_distances(X, i, j)
    theta = np.array([-0.3, 0.2, 0.5, 0.1, -3.0])
    _, gradient = _negative_log_likelihood(theta, D, i, j, z)
    for k, step in enumerate(1e-6 * np.eye(5)):
        upper, lower = (_negative_log_likelihood(theta + s * step, D, i, j, z)[0] for s in (1, -1))
        assert gradient[k] == pytest.approx((upper - lower) / 2e-6, abs=1e-4)


def test_a_believed_point_lowers_variances_and_no_mean():
    X, y = data(20)
    model = GaussianProcess()
    model.fit(X, y)
    state = model.state(data(15, seed=9)[0])
    mean, variance = state.mean.copy(), state.variance.copy()
    state = state.believe(4)
    assert np.array_equal(state.mean, mean)
    assert (state.variance <= variance + 1e-12).all()
    assert state.variance[4] < 0.5 * variance[4]


def test_the_gradient_of_the_bent_posterior_is_right():
    X, y = data(12)
    z = (y - y.mean()) / y.std()
    theta = np.array([-0.3, 0.2, 0.5, 0.1, -3.0, 0.2, -0.4, -0.3, 0.6])
    value = _posterior(X, z, [(0,), (1, 2), (3,)], np.array([0, 3]), np.zeros(9), np.full(9, 0.5))
    for k, step in enumerate(1e-6 * np.eye(9)):
        upper, lower = (value(theta + s * step)[0] for s in (1, -1))
        assert value(theta)[1][k] == pytest.approx((upper - lower) / 2e-6, abs=1e-4)


def test_an_axis_that_matters_at_one_end_only_is_bent():
    X, _ = data(60, d=2)
    model = WarpedProcess()
    model.fit(X, np.sin(25 * np.exp(-6 * X[:, 0])))
    bent = model.warp(np.array([[0.0, 0.5], [0.25, 0.5], [0.75, 0.5], [1.0, 0.5]]))[:, 0]
    assert bent[1] - bent[0] > 2 * (bent[3] - bent[2])


def test_bending_keeps_order_and_ends_and_leaves_categories_alone():
    X, y = mixed(40)
    model = WarpedProcess([(0,), (1,), (2, 3, 4)])
    model.fit(X, y + np.exp(3 * X[:, 1]))
    probe = np.tile(X[:1], (11, 1))
    probe[:, 1] = np.linspace(0, 1, 11)
    bent = model.warp(probe)
    assert (np.diff(bent[:, 1]) > 0).all()
    assert bent[[0, -1], 1] == pytest.approx([0.0, 1.0], abs=0.05)
    assert np.array_equal(bent[:, 2:], probe[:, 2:])


def test_left_out_rows_are_predicted_as_a_fit_without_them_would():
    X, y = data(12)
    model, without = GaussianProcess(), GaussianProcess()
    model.fit(X, y)
    z = (y - y.mean()) / y.std()
    left_out = (model.held_out().mean[3] - y.mean()) / y.std()
    rest = np.arange(12) != 3
    without._columns = model._columns
    without._shift, without._scale = 0.0, 1.0
    without._condition(X[rest], z[rest], model.hyperparameters)
    assert left_out == pytest.approx(without.predict(X[3:4]).mean[0], abs=1e-6)

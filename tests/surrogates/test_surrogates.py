"""The contract of `Surrogate`, on every implementation."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.surrogates.base import Surrogate
from llmhpo.surrogates.forest import Forest
from llmhpo.surrogates.gp import GaussianProcess, _Columns, _negative_log_likelihood

IMPLEMENTATIONS: list[Callable[[], Surrogate]] = [GaussianProcess, Forest]
contract = pytest.mark.parametrize("make", IMPLEMENTATIONS, ids=["gp", "forest"])


def smooth(X):
    return np.sin(3 * X[:, 0]) + X[:, 1] ** 2


def data(n, d=4, seed=0):
    X = np.random.default_rng(seed).random((n, d))
    return X, smooth(X)


@contract
def test_predictions_have_one_entry_a_row(make):
    X, y = data(20)
    model = make()
    model.fit(X, y)
    prediction = model.predict(np.random.default_rng(1).random((7, 4)))
    assert prediction.mean.shape == prediction.std.shape == (7,)


@contract
def test_a_smooth_function_is_learned_from_eighty_points(make):
    model = make()
    model.fit(*data(80))
    X, y = data(300, seed=1)
    assert np.corrcoef(model.predict(X).mean, y)[0, 1] > 0.85


@contract
def test_the_same_data_give_the_same_predictions(make):
    X, y = data(30)
    first, second = make(), make()
    first.fit(X, y)
    second.fit(*data(11, seed=5))
    second.fit(X, y)
    probe = np.random.default_rng(2).random((20, 4))
    assert np.array_equal(first.predict(probe).mean, second.predict(probe).mean)
    assert np.array_equal(first.predict(probe).std, second.predict(probe).std)


@contract
def test_one_point_is_enough(make):
    model = make()
    model.fit(np.array([[0.3, 0.7]]), np.array([5.0]))
    prediction = model.predict(np.random.default_rng(0).random((5, 2)))
    assert np.allclose(prediction.mean, 5.0)
    assert (prediction.std > 0).all()


@contract
def test_constant_targets_are_predicted_as_constant(make):
    model = make()
    model.fit(data(12)[0], np.full(12, -3.0))
    assert np.allclose(model.predict(data(5, seed=3)[0]).mean, -3.0)


@contract
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-9, 1.0, 1e9]),
    shift=st.sampled_from([0.0, 1e6]),
)
def test_repeated_rows_and_any_scale_give_finite_predictions(make, n, seed, scale, shift):
    rng = np.random.default_rng(seed)
    X = np.repeat(np.round(rng.random((n, 3)), 1), 2, axis=0)
    y = rng.standard_normal(2 * n) * scale + shift
    model = make()
    model.fit(X, y)
    prediction = model.predict(rng.random((10, 3)))
    assert np.isfinite(prediction.mean).all()
    assert np.isfinite(prediction.std).all()
    assert (prediction.std > 0).all()


@contract
def test_predictions_are_in_the_units_of_the_targets(make):
    X, y = data(40)
    plain, scaled = make(), make()
    plain.fit(X, y)
    scaled.fit(X, 1000 * y + 7)
    probe = data(20, seed=4)[0]
    assert np.allclose(scaled.predict(probe).mean, 1000 * plain.predict(probe).mean + 7, rtol=1e-2, atol=20)


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
    state.believe(4)
    assert np.array_equal(state.mean, mean)
    assert (state.variance <= variance + 1e-12).all()
    assert state.variance[4] < 0.5 * variance[4]

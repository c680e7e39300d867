import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.surrogates.cost import CostModel

GROUPS = ((0,), (1,))


def fitted(X, seconds):
    model = CostModel(GROUPS)
    model.fit(X, seconds)
    return model


def test_nothing_is_known_without_trials():
    cost = CostModel(GROUPS).predict(np.zeros((3, 2)))
    assert (cost.median == 1.0).all()
    assert (cost.spread > 1.0).all()


def test_few_trials_answer_with_their_median():
    cost = fitted(np.eye(2), np.array([10.0, 40.0])).predict(np.zeros((1, 2)))
    assert cost.median[0] == pytest.approx(20.0)


def test_what_takes_long_is_learned_from_thirty_trials():
    rng = np.random.default_rng(0)
    X = rng.random((30, 2))
    model = fitted(X, 10.0 * np.exp(4 * X[:, 0]) * np.exp(0.1 * rng.standard_normal(30)))
    cost = model.predict(np.array([[0.1, 0.5], [0.9, 0.5]]))
    assert cost.median == pytest.approx(10.0 * np.exp([0.4, 3.6]), rel=0.4)
    assert (cost.spread < 2.0).all()


def test_unknown_durations_are_left_out():
    X = np.random.default_rng(0).random((6, 2))
    cost = fitted(X, np.array([3.0, np.nan, 3.0, np.inf, 3.0, 3.0])).predict(X)
    assert cost.median == pytest.approx(np.full(6, 3.0), rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=12), st.integers(0, 99))
def test_durations_are_positive_and_spreads_above_one(seconds, seed):
    rng = np.random.default_rng(seed)
    cost = fitted(rng.random((len(seconds), 2)), np.array(seconds)).predict(rng.random((10, 2)))
    assert (np.isfinite(cost.median) & (cost.median > 0)).all()
    assert (np.isfinite(cost.spread) & (cost.spread > 1)).all()

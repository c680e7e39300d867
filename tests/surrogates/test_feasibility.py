import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.surrogates.feasibility import Feasibility

COLUMNS = ((0,), (1,))


def fitted(ok, X):
    model = Feasibility(COLUMNS)
    model.fit(X, ok)
    return model


def test_all_is_feasible_where_nothing_failed():
    X = np.random.default_rng(0).random((8, 2))
    assert (fitted(np.full(8, True), X).predict(X) == 1.0).all()


def test_an_unfitted_model_holds_all_for_feasible():
    assert (Feasibility(COLUMNS).predict(np.zeros((3, 2))) == 1.0).all()


def test_the_failing_region_is_found():
    X = np.random.default_rng(0).random((40, 2))
    model = fitted(X[:, 0] < 0.7, X)
    assert model.predict(np.array([[0.9, 0.5]]))[0] < 0.35
    assert model.predict(np.array([[0.3, 0.5]]))[0] > 0.8


def test_where_all_failed_the_rest_is_not_ruled_out():
    X = np.random.default_rng(0).random((4, 2))
    p = fitted(np.full(4, False), X).predict(X)
    assert (p > 0).all()
    assert (p < 0.5).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 99))
def test_probabilities_are_probabilities(ok, seed):
    rng = np.random.default_rng(seed)
    p = fitted(np.array(ok), rng.random((len(ok), 2))).predict(rng.random((10, 2)))
    assert ((p > 0) & (p <= 1)).all()

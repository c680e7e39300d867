import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.surrogates.base import Prediction
from llmhpo.surrogates.warp import fit_noisy_warp, fit_warp

losses = st.lists(st.floats(-1e8, 1e8, allow_nan=False), min_size=1, max_size=30).map(np.array)


@settings(max_examples=100, deadline=None)
@given(losses)
def test_scores_are_finite_and_keep_the_order(y):
    scores = fit_warp(y).forward(y)
    assert np.isfinite(scores).all()
    assert (np.diff(scores[np.argsort(y)]) >= -1e-9).all()


@pytest.mark.parametrize("fit", [fit_warp, fit_noisy_warp])
def test_a_spread_of_nearly_nothing_overflows_nothing(fit):
    y = np.array([0.0, 0.0, 9.8e-304, 9.9e-304, 176428.0])
    assert np.isfinite(fit(y).forward(y)).all()


def test_a_diverged_run_does_not_hide_the_differences_among_good_ones():
    y = np.array([0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 1e12])
    scores = fit_warp(y).forward(y)
    assert scores[5] - scores[0] > 0.3 * (scores[6] - scores[5])


def test_backward_undoes_forward():
    y = np.random.default_rng(0).lognormal(0, 3, 40)
    warp = fit_warp(y)
    assert np.allclose(warp.backward(warp.forward(y)), y)


def test_better_than_the_best_stays_better_both_ways():
    y = np.array([1.0, 2.0, 3.0, 5.0, 9.0])
    warp = fit_warp(y)
    assert warp.forward(np.array([0.5]))[0] < warp.forward(y).min()
    assert warp.backward(warp.forward(y).min() - np.ones(1))[0] < 1.0


def test_equal_losses_get_equal_scores():
    assert np.ptp(fit_warp(np.full(4, 7.0)).forward(np.full(4, 7.0))) == 0


def test_an_unwarped_band_is_centred_and_positive():
    warp = fit_warp(np.random.default_rng(0).random(20))
    out = warp.unwarp(Prediction(np.array([0.0, 1.0]), np.array([0.1, 0.5])))
    assert (out.std > 0).all()
    assert out.mean[0] == pytest.approx(warp.backward(np.zeros(1))[0])


@settings(max_examples=100, deadline=None)
@given(losses)
def test_noisy_scores_are_finite_and_keep_the_order(y):
    scores = fit_noisy_warp(y).forward(y)
    assert np.isfinite(scores).all()
    assert (np.diff(scores[np.argsort(y)]) >= -1e-9).all()


def test_one_lucky_value_leaves_the_distances_among_the_good_ones_as_they_are():
    y = np.linspace(0.0, 1.0, 21)
    steps = np.diff(fit_noisy_warp(np.append(y, -0.5)).forward(y[:10]))
    assert np.allclose(steps, steps[0])

from __future__ import annotations

import numpy as np
import pytest

from evals.bench_prior import BUDGET, Function, bowl, run

SEEDS = range(6)


@pytest.fixture(scope="module")
def curves() -> dict[str, np.ndarray]:
    """The best loss so far, averaged over optima, of each arm; (BUDGET,)."""
    optima = [np.random.default_rng([seed, 7]).uniform(0.05, 0.95, 4) for seed in SEEDS]
    return {
        arm: np.mean(
            [np.minimum.accumulate(run(Function(o, bowl), arm, s)) for s, o in zip(SEEDS, optima, strict=True)], axis=0
        )
        for arm in ("none", "good", "wrong")
    }


def test_a_good_prior_helps_early(curves: dict[str, np.ndarray]) -> None:
    assert curves["good"][7] < 0.8 * curves["none"][7]


def test_a_wrong_prior_is_outvoted(curves: dict[str, np.ndarray]) -> None:
    assert curves["wrong"][BUDGET - 1] < 0.2 * curves["none"][4]


def test_every_arm_starts_from_the_same_trials(curves: dict[str, np.ndarray]) -> None:
    assert curves["none"][2] == curves["good"][2] == curves["wrong"][2]

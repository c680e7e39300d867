from itertools import pairwise

import numpy as np
import pytest

from llmhpo.surrogates import choose as choosing
from llmhpo.surrogates.choose import CANDIDATES, SURROGATES, choose, decide, decided_by

GROUPS = ((0,), (1,), (2,))


def smooth(n, seed=0):
    X = np.random.default_rng(seed).random((n, 3))
    return X, np.sin(3 * X[:, 0]) + X[:, 1] ** 2


def steps(n, seed=0):
    """Cliffs along the axes, with a little noise: no process can follow them."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 3))
    return X, 3.0 * (X[:, 0] > 0.5) + 2.0 * ((X[:, 1] > 0.3) & (X[:, 0] < 0.5)) + 0.01 * rng.standard_normal(n)


@pytest.fixture(autouse=True)
def nothing_remembered():
    choosing.forget()


def test_few_rows_are_left_to_the_first_candidate():
    assert decided_by(59) == 0
    assert decide(*steps(59), GROUPS) == CANDIDATES[0]


def test_decisions_are_taken_anew_when_there_are_a_quarter_more_rows():
    taken = sorted({decided_by(n) for n in range(60, 1000)})
    assert taken[0] == 60
    assert all(1.2 < later / earlier <= 1.25 for earlier, later in pairwise(taken))
    assert taken[-1] <= 150


def test_a_smooth_function_is_left_to_the_process():
    assert decide(*smooth(120), GROUPS) == "warped"


def test_cliffs_are_left_to_the_trees():
    assert decide(*steps(150), GROUPS) == "quantile"


def test_a_restart_decides_alike():
    first = decide(*steps(150), GROUPS)
    choosing.forget()
    assert decide(*steps(150), GROUPS) == first


def test_rows_beyond_the_deciding_ones_are_not_looked_at():
    X, z = steps(149)
    other = z.copy()
    other[decided_by(149) :] = 1e3
    assert decide(X, other, GROUPS) == decide(X, z, GROUPS)
    assert len(choosing._decisions) == 1


def test_a_change_of_scale_changes_no_decision():
    X, z = steps(100)
    assert decide(X, np.exp(z), GROUPS) == decide(X, z, GROUPS)
    assert len(choosing._decisions) == 1


def test_the_chosen_surrogate_is_fitted_to_all_rows():
    X, z = smooth(140)
    chosen = choose(X, z, GROUPS)
    alone = SURROGATES[chosen.name](GROUPS, False)
    alone.fit(X, z)
    assert np.array_equal(chosen.predict(X).mean, alone.predict(X).mean)


def test_the_whole_history_decides_where_only_a_part_is_fitted():
    X, z = steps(150)
    chosen = choose(X[:40], z[:40], GROUPS, history=(X, z))
    assert chosen.name == "quantile"


def test_every_surrogate_can_be_asked_for_by_name():
    X, z = smooth(20)
    for name in SURROGATES:
        chosen = choose(X, z, GROUPS, candidates=(name,))
        assert chosen.name == name
        assert chosen.state(X[:3]).variance.shape == (3,)

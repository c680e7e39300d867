from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmhpo.agents.candidates import GLOBAL, candidates
from llmhpo.columns import columns
from llmhpo.prior import Belief, Prior
from llmhpo.space import SearchSpace
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "y": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    }
)
SMALL = SearchSpace.from_dict(
    {"k": {"type": "int", "low": 1, "high": 6}, "f": {"type": "categorical", "choices": [0, 1]}}
)


def history(space: SearchSpace, n: int) -> Context:
    trials = []
    for i, params in enumerate(space.sample(np.random.default_rng(3), n)):
        loss = float(np.sum((space.to_unit(params) - 0.3) ** 2))
        trials.append(Trial(i, Proposal(params, "random"), Outcome("ok", loss)))
    return Context(Task(), space, tuple(trials))


def pool(context: Context):  # type: ignore[no-untyped-def]
    return candidates(context, fit_screen(context), np.random.default_rng(0))


def test_every_generator_has_its_share() -> None:
    found = pool(history(SPACE, 12))
    assert {str(s) for s in found.source} == {"sobol", "neighbour", "cmaes", "gp"}
    assert np.count_nonzero(found.source == "sobol") == GLOBAL


def test_no_candidate_was_tried_and_no_two_are_alike() -> None:
    context = history(SMALL, 5)
    found = pool(context)
    keys = [SMALL.key(SMALL.from_unit(u)) for u in found.U]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set(columns(context).tried)
    assert len(set(keys) | set(columns(context).tried)) == 12


def test_an_exhausted_space_has_no_candidates() -> None:
    every = [SMALL.from_unit([(k + 0.5) / 6, (f + 0.5) / 2]) for k in range(6) for f in range(2)]
    trials = tuple(Trial(i, Proposal(p, "random"), Outcome("ok", float(i))) for i, p in enumerate(every))
    assert len(pool(Context(Task(), SMALL, trials)).U) == 0


def test_climbing_finds_better_points_than_drawing() -> None:
    found = pool(history(SPACE, 20))
    drawn = found.acquisition[found.source != "gp"]
    assert found.acquisition[found.source == "gp"].max() > drawn.max()


def test_the_adapted_draws_lie_nearer_to_the_best_trials_than_the_global_ones() -> None:
    context = history(SPACE, 40)
    found = pool(context)
    best = SPACE.to_unit(context.best.params)  # type: ignore[union-attr]
    off = np.linalg.norm(found.U[:, :2] - best[:2], axis=1)
    assert np.median(off[found.source == "cmaes"]) < 0.6 * np.median(off[found.source == "sobol"])


@pytest.mark.parametrize("weighty", [True, False])
def test_what_the_model_believes_draws_candidates_and_ranks_them_until_trials_outvote_it(weighty: bool) -> None:
    prior = Prior((Belief("x", 0.9, 0.2, 0.4),) if weighty else (Belief("x", 0.9, 0.8, 1.0),))
    context = replace(history(SPACE, 12), budget_left=30, batches=(Batch("warmstart", 0, 5, prior=prior),))
    found = pool(context)
    assert np.count_nonzero(found.source == "prior") > 50
    spread = float(np.ptp(found.log_prior))
    assert spread > 0.3 if weighty else spread < 0.1  # the best of these trials lie near x = 0.3


def test_without_beliefs_nothing_is_added() -> None:
    assert not pool(history(SPACE, 12)).log_prior.any()

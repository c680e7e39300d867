import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.agents.classical import AcquisitionProposer, RandomProposer, TPEProposer, classical_proposals
from llmhpo.space import InvalidParams, SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

CONDITIONAL = SearchSpace.from_dict(
    {
        "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1, "when": {"optimizer": "sgd"}},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "rmsprop"]},
        "nesterov": {"type": "categorical", "choices": [True, False], "when": {"optimizer": "sgd"}},
        "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "batch": {"type": "ordinal", "choices": [16, 32, 64]},
    }
)
ONE = SearchSpace.from_dict({"x": {"type": "float", "low": 0, "high": 1}})
FIXED = SearchSpace.from_dict({"x": {"type": "float", "low": 0, "high": 1}, "f": {"type": "int", "low": 3, "high": 3}})
TINY = SearchSpace.from_dict(
    {"a": {"type": "int", "low": 1, "high": 2}, "b": {"type": "categorical", "choices": [True, False]}}
)
SPACES = {"conditional": CONDITIONAL, "one": ONE, "fixed": FIXED, "tiny": TINY}
PROPOSERS = {p.name: p for p in (RandomProposer(), TPEProposer(), AcquisitionProposer())}

each_proposer = pytest.mark.parametrize("name", PROPOSERS)
GENERATORS = ("sobol", "neighbour", "cmaes", "prior")
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def history(space, n, *, seed=0, fail_every=0, pending=0, value=None):
    """`n` trials: every `fail_every`-th failed, the last `pending` ones running."""
    rng = np.random.default_rng([seed, 99])
    trials = []
    for i, params in enumerate(space.sample(rng, n)):
        outcome = Outcome("ok", float(rng.random()) if value is None else value(params))
        if fail_every and i % fail_every == fail_every - 1:
            outcome = Outcome("failed")
        trials.append(Trial(i, Proposal(params, "test"), None if i >= n - pending else outcome))
    return Context(Task(), space, tuple(trials), seed=seed)


def valid(space, proposals):
    return all(not isinstance(space.coerce(p.params), InvalidParams) for p in proposals)


@each_space
@each_proposer
def test_proposals_are_valid_and_carry_their_source(name, space):
    found = PROPOSERS[name].propose(history(space, 12, fail_every=4, pending=2), 3)
    assert valid(space, found)
    assert all(p.source == name or (name == "gp" and p.source in GENERATORS) for p in found)
    assert len(found) <= 3


@each_proposer
def test_the_same_context_gives_the_same_proposals(name):
    first = PROPOSERS[name].propose(history(CONDITIONAL, 12, pending=1), 2)
    PROPOSERS[name].propose(history(CONDITIONAL, 5), 1)
    assert PROPOSERS[name].propose(history(CONDITIONAL, 12, pending=1), 2) == first


def test_random_proposals_walk_one_sequence_however_they_are_asked():
    at_once = RandomProposer().propose(history(ONE, 2), 3)
    one_by_one = [RandomProposer().propose(history(ONE, 2 + i), 1)[0] for i in range(3)]
    assert at_once == one_by_one


def test_two_seeds_give_two_sequences():
    assert RandomProposer().propose(history(ONE, 0, seed=1), 1) != RandomProposer().propose(history(ONE, 0, seed=2), 1)


@each_space
@pytest.mark.parametrize("n_trials", [0, 1, 4, 9])
def test_the_engine_gives_as_many_as_asked(space, n_trials):
    found = classical_proposals(history(space, n_trials), 3)
    assert len(found) == 3
    assert valid(space, found)


def test_a_batch_of_sixty_four_holds_no_repeats():
    found = classical_proposals(history(CONDITIONAL, 10), 64)
    assert len({CONDITIONAL.key(p.params) for p in found}) == 64


@settings(max_examples=15, deadline=None)
@given(n_trials=st.integers(0, 14), n=st.integers(1, 4), seed=st.integers(0, 20))
def test_nothing_tried_is_proposed_while_there_is_anything_new(n_trials, n, seed):
    context = history(CONDITIONAL, n_trials, seed=seed, fail_every=3, pending=min(2, n_trials))
    tried = {CONDITIONAL.key(t.params) for t in context.trials}
    found = [CONDITIONAL.key(p.params) for p in classical_proposals(context, n)]
    assert not tried & set(found)
    assert len(set(found)) == n


@pytest.mark.parametrize("n_trials", [4, 30])
def test_an_exhausted_space_gives_a_valid_repeat_and_ends(n_trials):
    found = classical_proposals(history(TINY, n_trials), 3)
    assert len(found) == 3
    assert valid(TINY, found)


def test_the_last_untried_configuration_is_found():
    trials = [
        Trial(i, Proposal({"a": a, "b": b}, "test"), Outcome("ok", float(i)))
        for i, (a, b) in enumerate([(1, True), (1, False), (2, True)])
    ]
    assert classical_proposals(Context(Task(), TINY, tuple(trials)), 1)[0].params == {"a": 2, "b": False}


def test_every_configuration_of_a_small_space_is_tried_before_any_is_repeated():
    space = SearchSpace.from_dict(
        {
            "k": {"type": "int", "low": 1, "high": 30, "log": True},
            "s": {"type": "float", "low": 0, "high": 0.2, "step": 0.1},
        }
    )
    trials = ()
    while len(trials) < 90:
        for proposal in classical_proposals(Context(Task(), space, trials), 10):
            trials = (*trials, Trial(len(trials), proposal, Outcome("ok", float(proposal.params["k"]))))
    assert len({space.key(t.params) for t in trials}) == 90


def test_an_engine_whose_trials_all_fail_goes_on():
    found = classical_proposals(history(CONDITIONAL, 12, fail_every=1), 2)
    assert len(found) == 2


def test_a_bowl_is_descended_within_twenty_five_trials():
    space = SearchSpace.from_dict({n: {"type": "float", "low": 0, "high": 1} for n in "abc"})
    trials = ()
    for i in range(25):
        proposal = classical_proposals(Context(Task(), space, trials, seed=3), 1)[0]
        loss = sum((v - 0.62) ** 2 for v in proposal.params.values())
        trials = (*trials, Trial(i, proposal, Outcome("ok", loss)))
    assert min(t.value for t in trials) < 0.01


def test_the_maximum_is_sought_where_the_task_asks_for_it():
    trials = ()
    for i in range(15):
        proposal = classical_proposals(Context(Task(direction="maximize"), ONE, trials), 1)[0]
        trials = (*trials, Trial(i, proposal, Outcome("ok", -abs(proposal.params["x"] - 0.7))))
    assert max(t.value for t in trials) > -0.02


def test_five_thousand_trials_do_not_make_an_ask_slow():
    context = history(CONDITIONAL, 5000)
    start = time.process_time()
    assert classical_proposals(context, 1)
    assert time.process_time() - start < 2.0  # some 0.1 s on a free core; the bound is for a crowded one


def test_the_parzen_estimator_hits_the_points_of_a_grid_exactly() -> None:
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.05}})
    drawn = [p.params for seed in range(20) for p in TPEProposer().propose(history(space, 6, seed=seed), 1)]
    assert {p["x"] for p in drawn} <= {0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3}

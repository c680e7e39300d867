import numpy as np
import pytest

from llmhpo.agents.portfolio import Portfolio
from llmhpo.agents.repeat import repeat_proposal
from llmhpo.space import SearchSpace
from llmhpo.surrogates.incumbent import estimates
from llmhpo.trial import REPEAT, Context, Outcome, Proposal, Task, Trial

PLANE = SearchSpace.from_dict({n: {"type": "float", "low": 0, "high": 1} for n in ("x", "y")})


def run(n, *, noise=0.3, noisy=True, seed=0, budget=None):
    """A study of `n` trials of a noisy bowl, one at a time."""
    rng, portfolio = np.random.default_rng(seed), Portfolio()
    context = Context(Task(noisy=noisy), PLANE, budget_left=budget, seed=seed)
    for number in range(n):
        left = None if budget is None else budget - number
        context = Context(context.task, PLANE, context.trials, left, seed)
        (proposal,) = portfolio.suggest(context, 1)
        value = (proposal.params["x"] - 0.3) ** 2 + proposal.params["y"] ** 2 + noise * rng.standard_normal()
        trial = Trial(number, proposal, Outcome("ok", float(value)))
        context = Context(context.task, PLANE, (*context.trials, trial), left, seed)
    return context


@pytest.fixture(scope="module")
def noisy_study():
    return run(40, budget=40)


def sources(context):
    return [t.proposal.source for t in context.trials]


def test_a_noisy_study_repeats_some_configurations(noisy_study):
    assert 2 <= sources(noisy_study).count(REPEAT) <= 0.12 * 40


def test_the_first_trials_are_never_repeats(noisy_study):
    assert REPEAT not in sources(noisy_study)[:8]


def test_repeats_are_more_frequent_towards_the_end(noisy_study):
    marks = [s == REPEAT for s in sources(noisy_study)]
    assert sum(marks[20:]) >= sum(marks[:20])


def test_a_repeat_is_of_a_configuration_that_was_run(noisy_study):
    for k, trial in enumerate(noisy_study.trials):
        if trial.proposal.source == REPEAT:
            assert trial.params in [t.params for t in noisy_study.trials[:k]]


def test_no_other_source_repeats(noisy_study):
    keys = [PLANE.key(t.params) for t in noisy_study.trials if t.proposal.source != REPEAT]
    assert len(set(keys)) == len(keys)


def test_an_exact_task_has_no_repeats():
    context = run(20, noise=0.0, noisy=False)
    assert repeat_proposal(context) is None
    assert REPEAT not in sources(context)


def test_where_there_is_no_noise_after_all_nothing_is_repeated():
    steep = [(0.05 * k, (0.05 * k - 0.3) ** 2) for k in range(20)]
    trials = [Trial(i, Proposal({"x": x, "y": 0.0}, "t"), Outcome("ok", v)) for i, (x, v) in enumerate(steep)]
    assert repeat_proposal(Context(Task(noisy=True), PLANE, tuple(trials))) is None


def test_a_batch_does_not_run_one_configuration_without_end():
    context = run(30, budget=60)
    batch = Portfolio().suggest(context, 12)
    counts = [sum(p.params == q.params for q in batch) for p in batch if p.source == REPEAT]
    assert len(batch) == 12
    assert max(counts, default=0) <= 6


def test_the_same_context_gives_the_same_repeat(noisy_study):
    copy = Context(noisy_study.task, PLANE, noisy_study.trials, 5, 0)
    assert repeat_proposal(copy) == repeat_proposal(Context(noisy_study.task, PLANE, noisy_study.trials, 5, 0))


def test_the_leader_is_known_better_in_the_end_than_the_others(noisy_study):
    known = estimates(noisy_study)
    assert max(e.n for e in known[:5]) > 1

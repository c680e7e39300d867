import numpy as np
import pytest

from llmhpo.space import SearchSpace
from llmhpo.surrogates.incumbent import estimates, incumbent, settled
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

LINE = SearchSpace.from_dict({"x": {"type": "float", "low": 0, "high": 1}})


def study(values, *, noisy=True, direction="minimize"):
    """Trials of (x, value) pairs."""
    trials = [Trial(i, Proposal({"x": x}, "test"), Outcome("ok", v)) for i, (x, v) in enumerate(values)]
    return Context(Task(direction=direction, noisy=noisy), LINE, tuple(trials))


def lucky(sign=1.0):
    """A bowl around 0.3 with some noise, and one value far out that is nothing but luck."""
    rng = np.random.default_rng(0)
    xs = np.linspace(0.0, 1.0, 25)
    values = [(float(x), sign * (float((x - 0.3) ** 2) + 0.02 * float(rng.standard_normal()))) for x in xs]
    return [*values, (0.78, -sign * 0.1)]


@pytest.mark.parametrize("direction,sign", [("minimize", 1.0), ("maximize", -1.0)])
def test_one_lucky_value_is_not_the_best_of_a_noisy_task(direction, sign):
    best = incumbent(study(lucky(sign), direction=direction))
    assert abs(best.params["x"] - 0.3) < 0.15


def test_an_exact_task_takes_every_value_at_its_word():
    c = study(lucky(), noisy=False)
    assert incumbent(c) is c.best is c.trials[-1]


def test_without_a_trial_that_ended_well_there_is_no_incumbent():
    assert incumbent(study([])) is None
    assert estimates(study([])) == []


def test_runs_of_one_configuration_count_as_one_with_their_mean():
    (first, *_) = [e for e in estimates(study([*lucky(), (0.5, 0.1), (0.5, 0.3)])) if e.trial.params["x"] == 0.5]
    assert (first.n, first.open) == (3, 0)
    assert first.mean == pytest.approx(np.mean([v for x, v in [*lucky(), (0.5, 0.1), (0.5, 0.3)] if x == 0.5]))


def test_with_two_trials_the_mean_of_the_runs_decides():
    c = study([(0.2, 0.0), (0.2, 1.0), (0.7, 0.4)][:2])
    assert estimates(c)[0].value == 0.5


def test_more_runs_leave_less_doubt():
    one = {e.trial.number: e.std for e in estimates(study(lucky()))}
    four = {e.trial.number: e.std for e in estimates(study([*lucky(), *[(0.78, 0.2)] * 3]))}
    assert four[25] < one[25]


def test_a_settled_context_has_each_configuration_once_and_keeps_failures():
    c = study([*lucky(), (0.5, 0.1), (0.5, 0.3)])
    failed = Trial(28, Proposal({"x": 0.9}, "test"), Outcome("failed"))
    c = Context(c.task, c.space, (*c.trials, failed))
    s = settled(c)
    assert len({t.params["x"] for t in s.trials}) == len(s.trials) == 27
    assert s.trials[-1] is failed
    assert s.best.number == incumbent(c).number


def test_a_settled_context_of_an_exact_task_is_the_same():
    c = study(lucky(), noisy=False)
    assert settled(c) is c

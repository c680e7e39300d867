"""Values of a training that diverged, which are finite and have no finite square: they end no study with edits."""

from __future__ import annotations

import math

import pytest

from llmhpo.agents.edit.inherit import with_inheritance
from llmhpo.agents.edit.tree import commission, edit_values, tree
from llmhpo.comparison import interval
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}})
BASE, EDIT = Revision("b" * 40, digest="b"), Revision("e" * 40, "b" * 40, digest="e", source="draft")


def study(*trials: tuple[str, float, float]) -> Context:
    """A context of trials (code, x, value), after two requests for edits of the code as it stood."""
    ended = [
        Trial(i, Proposal({"x": x}, "gp", code=code), Outcome("ok", value, seconds=1.0))
        for i, (code, x, value) in enumerate(trials)
    ]
    batches = (Batch("edit", 0, 1, revisions=(EDIT,), code=BASE.id), Batch("edit", 1, 1, code=BASE.id))
    return Context(Task("t", "loss"), SPACE, tuple(ended), 50, 0, batches, BASE)


@pytest.mark.parametrize("huge", [1e160, 1e200, 1.7e308, -1.7e308])
@pytest.mark.filterwarnings("error")
def test_the_next_edit_is_still_chosen(huge: float) -> None:
    context = study(("", 0.5, 1.0), ("", 0.6, -huge), (EDIT.id, 0.5, huge), (EDIT.id, 0.6, 0.5))
    nodes = tree(context)
    assert all(math.isfinite(value) for _, value in edit_values(context, nodes, ()))
    assert commission(context, nodes, ()) is not None


@pytest.mark.parametrize("huge", [1e200, 1.7e308])
def test_what_is_carried_over_is_finite(huge: float) -> None:
    context = study(("", 0.5, -huge), ("", 0.6, huge), (EDIT.id, 0.5, huge))
    values = [t.value for t in with_inheritance(context, EDIT.id).trials]
    assert all(v is not None and math.isfinite(v) for v in values)


@pytest.mark.parametrize("huge", [1e160, 1e200, 1.7e308])
def test_an_interval_of_runs_of_which_one_diverged_can_be_given(huge: float) -> None:
    found = interval([0.1, huge, 0.2])
    assert found is not None
    assert found.mean == pytest.approx(huge / 3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_intervals_of_ordinary_values_are_those_of_the_t_distribution() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, 2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)

from __future__ import annotations

import numpy as np
import pytest

from llmhpo.agents.outlook import Outlook, outlook, outlook_text
from llmhpo.prompts import rough_tokens
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "depth": {"type": "int", "low": 1, "high": 12},
        "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    }
)


def context(n: int, sense: str = "minimize") -> Context:
    """Best at lr = 0.001 and kind b, whatever the depth."""
    sign = 1.0 if sense == "minimize" else -1.0
    trials = []
    for i, params in enumerate(SPACE.sample(np.random.default_rng(3), n)):
        loss = (np.log10(float(params["lr"])) + 3.0) ** 2 + (params["kind"] != "b")  # type: ignore[arg-type]
        trials.append(Trial(i, Proposal(params, "gp"), Outcome("ok", float(sign * loss))))
    return Context(Task("t", "loss", sense), SPACE, tuple(trials), 20)  # type: ignore[arg-type]


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
def test_the_best_region_is_where_the_best_values_are(sense: str) -> None:
    region = outlook(context(40, sense)).region
    low, high = (float(v) for v in region["lr"])  # type: ignore[arg-type]
    assert 1e-4 < low <= 1e-3 <= high < 1e-2
    assert region["kind"] == ("b",)
    assert "depth" not in region


def test_what_is_expected_there_is_told_in_the_metrics_units_with_its_uncertainty() -> None:
    best = outlook(context(40, "maximize")).best
    assert best is not None
    assert best.mean == pytest.approx(0.0, abs=0.3)
    assert 0.0 <= best.std < 0.5


def test_a_surrogate_that_fits_says_so() -> None:
    skill = outlook(context(40)).skill
    assert skill is not None
    assert skill > 0.8


def test_the_next_point_of_the_classical_optimizer_is_a_new_configuration() -> None:
    known = context(40)
    following = outlook(known).next
    assert following is not None
    assert SPACE.coerce(following.params) == following.params
    assert SPACE.key(following.params) not in {SPACE.key(t.params) for t in known.trials}


def test_without_a_fit_there_is_nothing_to_say() -> None:
    assert outlook(context(2)) == Outlook()
    assert outlook_text(Outlook(), context(2), 200) == ""


@pytest.mark.parametrize("room", [0, 30, 60, 120, 200])
def test_the_text_keeps_to_its_room_in_whole_lines(room: int) -> None:
    known = context(40)
    text, whole = (outlook_text(outlook(known), known, limit) for limit in (room, 10_000))
    assert rough_tokens(text) <= room
    assert set(text.splitlines()) <= set(whole.splitlines())


def test_the_same_trials_give_the_same_view() -> None:
    assert outlook(context(20)) == outlook(context(20))

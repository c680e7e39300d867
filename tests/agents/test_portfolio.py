from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

from llmhpo.agents.consult import Consultant
from llmhpo.agents.portfolio import Portfolio
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Tally, Task, Trial
from llmhpo.usage import Caps, Usage

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
        "y": {"type": "float", "low": 0.0, "high": 1.0},
    }
)


def context(trials: list[tuple[str, float | None]], left: int | None = 20, **kw: object) -> Context:
    """Trials as (source, loss); a loss of None is a failure."""
    made = []
    for i, (source, loss) in enumerate(trials):
        outcome = Outcome("failed") if loss is None else Outcome("ok", loss)
        made.append(Trial(i, Proposal({"x": (i + 1) / 100, "y": 0.5}, source), outcome))
    return Context(Task("t", "loss"), SPACE, tuple(made), left, 0, **kw)  # type: ignore[arg-type]


def batch(kind: str = "warmstart", at: int = 0, n: int = 5) -> Batch:
    proposals = tuple(Proposal({"x": 0.5 + i / 100 + at / 1000, "y": 0.1}, "llm", "why") for i in range(n))
    return Batch(kind, at, n, proposals, Usage(1, 100, 0, 100))


def portfolio(*replies: str) -> Portfolio:
    return Portfolio(Consultant(ScriptedModel(list(replies)), caps=Caps()))


def run(context: Context, n: int) -> list[Proposal]:
    """Suggest trial by trial; every trial ends with the loss x."""
    out = []
    for _ in range(n):
        (proposal,) = portfolio().suggest(context, 1)
        out.append(proposal)
        outcome = Outcome("ok", float(proposal.params["x"]))  # type: ignore[arg-type]
        context = replace(context, trials=(*context.trials, Trial(len(context.trials), proposal, outcome)))
    return out


def test_without_a_model_nothing_is_asked() -> None:
    assert Portfolio().wants(context([])) == 0


def test_a_warm_start_comes_first_and_grows_with_the_budget() -> None:
    assert portfolio().wants(context([], left=16)) == 5
    assert portfolio().wants(context([], left=100)) == 10
    assert portfolio().wants(context([], left=None)) == 10


def test_a_first_batch_is_as_large_when_a_trial_has_ended_already() -> None:
    assert portfolio().wants(context([("random", 1.0)], left=49)) == 10
    assert portfolio().wants(context([("random", 1.0)] * 20, left=49)) == 4


def test_a_study_that_is_nearly_over_asks_for_nothing() -> None:
    assert portfolio().wants(context([], left=1)) == 0


def test_batches_come_more_and_more_rarely() -> None:
    asked, batches = [], [batch()]
    trials: list[tuple[str, float | None]] = []
    for i in range(60):
        trials.append(("llm" if i % 2 else "gp", 1.0))
        if portfolio().wants(context(trials, left=40, batches=tuple(batches))):
            asked.append(i + 1)
            batches.append(batch("propose", i + 1, 4))
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps == sorted(gaps)
    assert 3 <= len(asked) <= 7


def test_a_run_of_25_trials_stays_within_8_requests() -> None:
    reply = json.dumps({"configurations": [{"why": "", "x": 0.01 * i, "y": 0.5} for i in range(1, 11)]})
    model = portfolio(*[reply] * 20)
    current, requests = context([], left=25), 0
    while len(current.trials) < 25:
        if model.wants(current):
            got = model.consult(current)
            requests += got.usage.calls
            current = replace(current, batches=(*current.batches, got))
        (proposal,) = model.suggest(current, 1)
        trial = Trial(len(current.trials), proposal, Outcome("ok", float(proposal.params["x"])))  # type: ignore[arg-type]
        current = replace(current, trials=(*current.trials, trial), budget_left=24 - len(current.trials))
    assert requests <= 8


def test_the_default_is_the_first_trial_whatever_the_model_says() -> None:
    assert run(context([], batches=(batch(),)), 1)[0].source == "default"


def test_a_good_models_first_ideas_are_tried_in_its_order() -> None:
    chosen = [p for p in run(context([("default", 0.9)], batches=(batch(),)), 6) if p.source == "llm"]
    xs = [p.params["x"] for p in chosen]
    assert len(xs) >= 3
    assert xs == sorted(xs)  # type: ignore[type-var]


def test_after_the_first_trials_every_fourth_is_classical() -> None:
    proposals = run(context([("default", 0.9)], batches=(batch(n=40),)), 20)
    for i, proposal in enumerate(proposals, start=1):
        if i > 10 and i % 4 == 3:
            assert proposal.source != "llm"


def test_a_warm_start_that_does_not_disappoint_is_tried_first() -> None:
    sources = [p.source for p in run(context([("default", 0.9)], batches=(batch(n=8),)), 8)]
    assert sources.count("llm") >= 6  # by lot one of the others may come first


def test_a_warm_start_that_disappoints_gives_way_at_the_fourth_trial() -> None:
    trials = context([("default", 0.1), ("llm", 0.9), ("llm", 0.9)], batches=(batch(n=8),))
    assert portfolio().suggest(trials, 1)[0].source != "llm"


def test_a_batch_of_suggestions_has_no_repeats() -> None:
    chosen = portfolio().suggest(context([("default", 0.9)], batches=(batch(),)), 12)
    assert len({SPACE.key(p.params) for p in chosen}) == 12


def test_suggestions_depend_on_the_context_alone() -> None:
    current = context([("default", 0.9), ("llm", 0.5), ("gp", 0.4), ("gp", 0.3)], batches=(batch(),))
    assert portfolio().suggest(current, 4) == portfolio().suggest(current, 4)


def test_fruitless_consultations_double_the_distance() -> None:
    empty = Batch("warmstart", 0, 5, error="no server")
    trials: list[tuple[str, float | None]] = [("gp", 1.0)] * 3
    assert portfolio().wants(context(trials, batches=(empty,))) == 0
    assert portfolio().wants(context([*trials, ("gp", 1.0)], batches=(empty,))) > 0
    twice = (empty, replace(empty, at=4))
    assert portfolio().wants(context([("gp", 1.0)] * 11, batches=twice)) == 0
    assert portfolio().wants(context([("gp", 1.0)] * 12, batches=twice)) > 0


def test_a_plateau_calls_the_model_back_sooner() -> None:
    asked = (replace(batch(), at=8, proposals=batch().proposals[:1]),)
    falling = [("llm", 0.1)] + [("gp", 1.0 - 0.01 * i) for i in range(13)]
    flat: list[tuple[str, float | None]] = [("gp", 1.0), ("llm", 0.1)] + [("gp", 1.0)] * 11
    improving = [("gp", 1.0), *((s, 1.0 - 0.01 * i) for i, (s, _) in enumerate(falling[:12]))]
    assert portfolio().wants(context(flat, batches=asked)) > 0
    assert portfolio().wants(context(improving, batches=asked)) == 0


def test_a_model_that_lost_its_trust_has_no_part_in_the_initial_design() -> None:
    lost: list[tuple[str, float | None]] = [("default", 0.1), ("llm", 0.9), ("llm", 0.9), ("random", 0.2)]
    for number in (4, 5, 6):
        trials = [*lost, *[("random", 0.3)] * (number - 4)]
        (proposal,) = portfolio().suggest(context(trials, batches=(batch(n=8),)), 1)
        assert proposal.source == "random"


def test_a_model_whose_replies_cannot_be_used_is_trusted_less() -> None:
    bad = replace(batch(), tally=Tally("m", "p", asked=10, offered=10, inside=2, valid=2))
    fine = context([("default", 0.9), ("llm", 0.5)], batches=(batch(),))
    assert portfolio()._trust(replace(fine, batches=(bad,))) < portfolio()._trust(fine)

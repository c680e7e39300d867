from __future__ import annotations

from dataclasses import replace

import pytest

from llmhpo.agents.quality import Origin, Quality, has_one_digit, qualities, usable
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Provenance, Tally, Task, Trial
from llmhpo.usage import Usage

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "layers": {"type": "int", "low": 1, "high": 4},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
    }
)
LLM = Origin("llm", "m", "propose.v1")


def proposal(lr: float, origin: Origin = LLM) -> Proposal:
    provenance = Provenance(origin.model, origin.prompt, "hash", 0) if origin.model else None
    return Proposal({"lr": lr, "layers": 4, "kind": "a"}, origin.source, "", provenance)


def batch(*lrs: float, tally: Tally | None = None, prompt: str = LLM.prompt) -> Batch:
    origin = replace_prompt(prompt)
    return Batch("propose", 0, len(lrs), tuple(proposal(lr, origin) for lr in lrs), Usage(1, 900, 0, 100), tally=tally)


def replace_prompt(prompt: str) -> Origin:
    return Origin(LLM.source, LLM.model, prompt)


def context(
    *trials: tuple[Proposal, float | None], batches: tuple[Batch, ...] = (), sense: str = "minimize"
) -> Context:
    made = tuple(
        Trial(i, p, Outcome("failed") if value is None else Outcome("ok", value)) for i, (p, value) in enumerate(trials)
    )
    return Context(Task("t", "loss", sense), SPACE, made, 10, 0, batches)  # type: ignore[arg-type]


def only(found: list[Quality], origin: Origin) -> Quality:
    (quality,) = [q for q in found if q.origin == origin]
    return quality


def test_shares_are_of_what_was_asked_for() -> None:
    tally = Tally("m", "propose.v1", asked=8, offered=6, inside=5, valid=4, repeated=1)
    shares = only(qualities(context(batches=(batch(tally=tally),))), LLM).shares
    assert (shares["valid"], shares["in bounds"], shares["repeated"]) == (4 / 8, 5 / 8, 1 / 4)


def test_a_batch_of_old_has_no_shares_of_what_was_not_counted() -> None:
    shares = only(qualities(context(batches=(batch(0.003),))), LLM).shares
    assert shares["valid"] is None
    assert shares["rounded"] == 1.0


def test_values_at_the_ends_of_a_range_hug_it_and_those_of_few_values_do_not() -> None:
    quality = only(qualities(context(batches=(batch(0.1, 1e-5, 0.0123, 0.0021),))), LLM)
    assert (quality.hugging, quality.numbers) == (2, 4)


def test_a_value_of_one_digit_is_rounded() -> None:
    quality = only(qualities(context(batches=(batch(0.01, 0.00123, 0.05, 3e-5),))), LLM)
    assert (quality.rounded, quality.fine) == (3, 4)


@pytest.mark.parametrize(
    "value, is_round", [(0.001, True), (300, True), (2e-5, True), (0.0, True), (0.15, False), (12, False)]
)
def test_digits_are_counted_as_written(value: float, is_round: bool) -> None:
    assert has_one_digit(value) is is_round


@pytest.mark.parametrize("sense, sign", [("minimize", 1), ("maximize", -1)])
def test_an_improvement_belongs_to_the_trial_that_made_it(sense: str, sign: int) -> None:
    gp = Origin("gp")
    trials = [(proposal(0.1, gp), 5.0), (proposal(0.2), 3.0), (proposal(0.3), 4.0), (proposal(0.4, gp), 2.5)]
    turned = [(p, sign * value) for p, value in trials]
    found = qualities(context(*turned, batches=(batch(0.2, 0.3),), sense=sense))
    assert only(found, LLM).improvement == pytest.approx(2.0)
    assert only(found, gp).improvement == pytest.approx(0.5)


def test_improvement_is_told_for_the_tokens_that_were_really_spent() -> None:
    found = qualities(context((proposal(0.1, Origin("gp")), 5.0), (proposal(0.2), 3.0), batches=(batch(0.2),) * 2))
    assert only(found, LLM).improvement_per_1k_tokens == pytest.approx(1.0)
    assert only(found, Origin("gp")).improvement_per_1k_tokens is None


def test_improvements_add_up_to_the_way_from_the_first_value_to_the_best() -> None:
    values = [4.0, 7.0, None, 3.5, 3.6, 1.0]
    trials = [(proposal(0.01 * i, LLM if i % 2 else Origin("gp")), v) for i, v in enumerate(values, 1)]
    assert sum(q.improvement for q in qualities(context(*trials))) == pytest.approx(3.0)


def test_templates_are_told_apart() -> None:
    found = qualities(context(batches=(batch(0.1), batch(0.2, prompt="propose.v2"))))
    assert [q.origin.prompt for q in found] == ["propose.v1", "propose.v2"]
    assert [q.consultations for q in found] == [1, 1]


def test_a_model_of_which_nothing_was_counted_is_wholly_usable() -> None:
    assert usable(context(batches=(batch(0.1),))) == 1.0


def test_replies_that_cannot_be_used_lower_what_is_usable_and_good_ones_do_not() -> None:
    good = Tally("m", "p", asked=4, offered=4, inside=4, valid=4)
    bad = replace(good, valid=2, repeated=2)
    assert usable(context(batches=(batch(tally=good),))) == 1.0
    assert usable(context(batches=(batch(tally=bad),))) == pytest.approx(0.5)

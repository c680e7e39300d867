from __future__ import annotations

import json

import pytest

from llmhpo.agents import questions
from llmhpo.agents.consult import Consultant
from llmhpo.errors import LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.prior import Belief, Prior
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps, Price, Usage

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
CONTEXT = Context(Task("a task", "loss"), SPACE)


def reply(*xs: object) -> str:
    return json.dumps({"configurations": [{"why": "so", "x": x} for x in xs]})


def ask(
    *replies: str | Exception | Completion, n: int = 2, caps: Caps | None = None, price: Price | None = None
) -> Batch:
    model = ScriptedModel(list(replies), price=price or Price(0, 0))
    question = questions.warmstart(CONTEXT, n, reasons=True)
    return Consultant(model, caps=caps or Caps()).consult(CONTEXT, question)


def values(batch: Batch) -> list[object]:
    return [p.params["x"] for p in batch.proposals]


def test_one_request_gives_a_whole_batch() -> None:
    batch = ask(reply(0.1, 0.2))
    assert values(batch) == [0.1, 0.2]
    assert batch.usage.calls == 1
    assert batch.problems == ()


def test_every_proposal_says_where_it_came_from() -> None:
    proposal = ask(reply(0.1, 0.2)).proposals[0]
    assert proposal.source == "llm"
    assert proposal.rationale == "so"
    assert proposal.provenance is not None
    assert proposal.provenance.prompt == "warmstart.v3"
    assert len(proposal.provenance.prompt_hash) == 12
    assert proposal.provenance.request == 0


def test_every_proposal_bears_its_share_of_the_bill() -> None:
    batch = ask(reply(0.1, 0.2), price=Price(10.0, 10.0))
    shares = [p.provenance for p in batch.proposals if p.provenance is not None]
    assert sum(s.tokens for s in shares) == pytest.approx(batch.usage.tokens)
    assert sum(s.usd or 0 for s in shares) == pytest.approx(batch.usage.usd)


LOW = {"trends": [{"parameter": "x", "better": "lower", "confidence": 0.8}]}
LOWER = Prior((Belief("x", 0.8, better="lower"),))


def stating(beliefs: object, *xs: object) -> str:
    return json.dumps({**json.loads(reply(*xs)), "beliefs": beliefs})


def test_beliefs_come_with_the_batch() -> None:
    batch = ask(stating(LOW, 0.1, 0.2))
    assert batch.prior == LOWER
    assert values(batch) == [0.1, 0.2]


def test_a_reply_without_beliefs_is_as_good_as_ever() -> None:
    batch = ask(reply(0.1, 0.2))
    assert batch.prior is None
    assert batch.problems == ()


def test_bad_beliefs_are_problems_but_no_reason_to_ask_again() -> None:
    batch = ask(stating({"ranges": [7]}, 0.1), reply(0.2, 0.3))
    assert values(batch) == [0.1]
    assert batch.usage.calls == 1
    assert batch.problems == ("beliefs: ranges 1: is not an object",)


def test_beliefs_of_a_reply_whose_configurations_are_bad_are_kept() -> None:
    batch = ask(stating(LOW, 7, 8), reply(0.1, 0.2))
    assert batch.prior == LOWER
    assert values(batch) == [0.1, 0.2]


def test_a_repair_turn_does_not_ask_for_beliefs_again() -> None:
    seen = []

    class Spy(ScriptedModel):
        def complete(self, request):  # type: ignore[no-untyped-def]
            seen.append(request)
            return super().complete(request)

    model = Spy([stating(LOW, 7, 8), reply(0.1, 0.2)])
    Consultant(model, caps=Caps()).consult(CONTEXT, questions.warmstart(CONTEXT, 2, reasons=True))
    assert [list(r.schema["properties"]) for r in seen] == [["configurations", "beliefs"], ["configurations"]]
    assert seen[0].max_tokens > seen[1].max_tokens


def test_beliefs_that_nobody_asked_for_are_left_aside() -> None:
    model = ScriptedModel([stating(LOW, 0.1)])
    batch = Consultant(model, caps=Caps()).consult(CONTEXT, questions.warmstart(CONTEXT, 1, reasons=False))
    assert batch.prior is None
    assert values(batch) == [0.1]


def test_violations_lead_to_one_repair_turn_that_names_them() -> None:
    seen = []

    class Spy(ScriptedModel):
        def complete(self, request):  # type: ignore[no-untyped-def]
            seen.append(request)
            return super().complete(request)

    model = Spy([reply(0.1, 7), reply(0.3, 0.4)])
    batch = Consultant(model, caps=Caps()).consult(CONTEXT, questions.warmstart(CONTEXT, 2, reasons=True))
    assert values(batch) == [0.1, 0.3]
    assert batch.usage.calls == 2
    assert [r.number for r in seen] == [0, 1]
    assert "configuration 2: x = 7" in seen[1].messages[-1].content
    assert batch.proposals[1].provenance is not None
    assert batch.proposals[1].provenance.request == 1


def test_a_repeat_is_a_violation() -> None:
    batch = ask(reply(0.1, 0.1, 0.1), reply(0.1, 0.2), n=3)
    assert values(batch) == [0.1, 0.2]
    assert "configuration 2 repeats another one of the batch" in batch.problems


def test_a_repeat_of_a_trial_is_named() -> None:
    tried = Trial(7, Proposal({"x": 0.5}, "tpe"), Outcome("ok", 1.0))
    context = Context(Task(), SPACE, (tried,))
    model = ScriptedModel([reply(0.5), reply(0.5)])
    batch = Consultant(model, caps=Caps()).consult(context, questions.warmstart(context, 1, reasons=True))
    assert batch.proposals == ()
    assert batch.problems[0] == "configuration 1 repeats trial 7"


def test_a_batch_that_is_mostly_good_is_not_worth_a_repair_turn() -> None:
    batch = ask(reply(0.1, 0.2, 7), n=3)
    assert values(batch) == [0.1, 0.2]
    assert batch.usage.calls == 1


def test_a_reply_that_was_cut_is_said() -> None:
    batch = ask(Completion(reply(0.1)[:-3], Usage(1, 10, 0, 50), "m", "length"), reply(0.2, 0.3))
    assert values(batch) == [0.2, 0.3]
    assert "the reply was cut at 50 tokens" in batch.problems


def test_an_empty_reply_is_paid_for_and_named() -> None:
    batch = ask(Completion("", Usage(1, 10, 0, 50), "m", "length"), "")
    assert batch.usage.tokens > 60
    assert batch.problems[:2] == ("the reply is empty", "the reply was cut at 50 tokens")


def test_there_is_no_second_repair_turn() -> None:
    batch = ask(reply(5, 6), reply(7, 8), reply(0.1, 0.2))
    assert values(batch) == []
    assert batch.usage.calls == 2
    assert len(batch.problems) == 4


def test_more_than_was_asked_for_is_not_taken() -> None:
    assert values(ask(reply(0.1, 0.2, 0.3))) == [0.1, 0.2]


def test_fewer_valid_ones_without_violations_are_taken_as_they_are() -> None:
    batch = ask(reply(0.1))
    assert values(batch) == [0.1]
    assert batch.usage.calls == 1


def test_an_unreachable_model_is_an_error_in_the_batch_and_counts_as_a_request() -> None:
    batch = ask(LLMUnavailableError("no server at http://x"))
    assert batch.error == "no server at http://x"
    assert not batch.fatal
    assert batch.usage.calls == 1


def test_a_refused_key_is_fatal() -> None:
    assert ask(LLMRequestError("401")).fatal


def test_a_repair_turn_that_fails_keeps_what_there_is() -> None:
    batch = ask(reply(0.1, 7), LLMUnavailableError("gone"))
    assert values(batch) == [0.1]
    assert "gone" in batch.problems[-1]


def test_a_refusal_is_said_and_not_argued_with() -> None:
    batch = ask(Completion("I cannot help with that.", Usage(1, 10, 0, 5), "m", "refusal"))
    assert batch.proposals == ()
    assert batch.usage.calls == 1
    assert "refused" in batch.problems[-1]


def test_a_cap_on_tokens_is_checked_with_the_longest_possible_reply() -> None:
    batch = ask(reply(0.1, 0.2), caps=Caps(max_tokens=300))
    assert batch.usage.calls == 0
    assert "max_tokens=300" in batch.error
    assert batch.fatal


def test_a_cap_on_money_is_checked_before_the_request() -> None:
    assert ask(reply(0.1, 0.2), caps=Caps(max_usd=1e-6), price=Price(10, 10)).usage.calls == 0
    assert ask(reply(0.1, 0.2), caps=Caps(max_usd=1.0), price=Price(10, 10)).usage.calls == 1


def test_requests_are_numbered_through_the_study() -> None:
    context = Context(Task(), SPACE, batches=(Batch("warmstart", 0, 2, usage=Usage(calls=1)),))
    model = ScriptedModel([reply(0.1), reply(0.2)])
    batch = Consultant(model, caps=Caps()).consult(context, questions.warmstart(context, 1, reasons=True))
    assert values(batch) == [0.2]


@pytest.mark.parametrize("text", ["", "no", "{}", reply(None)])
def test_garbage_never_raises(text: str) -> None:
    batch = ask(text, text)
    assert batch.proposals == ()
    assert batch.problems or batch.error


def test_a_tally_counts_what_replies_were_worth() -> None:
    batch = ask(reply(0.1, 0.1, 7, "a"), reply(0.2, 0.3), n=4)
    assert batch.tally is not None
    t = batch.tally
    assert (t.asked, t.offered, t.inside, t.valid, t.repeated) == (4 + 3, 6, 4, 4, 1)
    assert (t.model, t.prompt) == ("scripted", "warmstart.v3")


def test_a_reply_that_cannot_be_read_was_asked_for_and_offered_nothing() -> None:
    batch = ask("no", "no", n=2)
    assert batch.tally is not None
    assert (batch.tally.asked, batch.tally.offered) == (4, 0)


def test_without_a_reply_there_is_no_tally() -> None:
    assert ask(LLMUnavailableError("down")).tally is None

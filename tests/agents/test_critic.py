"""The critic looks only where rules were broken, costs less than the first pass, and says what it did."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llmhpo.agents.advice import Advice
from llmhpo.agents.consult import Consultant
from llmhpo.agents.outlook import Expected, Outlook
from llmhpo.agents.questions import propose
from llmhpo.errors import LLMUnavailableError
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0, "doc": "share of memory " * 5}})
TRIALS = (
    *(Trial(i, Proposal({"x": 0.111 + i / 1000}, "gp"), Outcome("ok", 1.0 + i)) for i in range(40)),
    Trial(40, Proposal({"x": 0.97}, "gp"), Outcome("oom", message="out of memory at step 7")),
)
VIEW = Outlook({"x": 1.0}, {"x": (0.1, 0.2)}, Expected({"x": 0.1}, 0.9, 0.1), Expected({"x": 0.2}, 0.8, 0.3), 0.9)
WORDS = "Train a model whose memory is short: keep x below 0.9, or it fails. " * 10
CONTEXT = Context(Task(WORDS, "loss"), SPACE, TRIALS, 20)
BAD = [0.3, 0.95, 0.6, 7]
GOOD = [0.3, 0.95, 0.6, 0.7]


def batch_of(xs: list[float]) -> str:
    return json.dumps({"configurations": [{"why": "a reason of some length, for this is a study", "x": x} for x in xs]})


def drop(*numbers: object) -> str:
    return json.dumps({"drop": [{"number": n, "why": "x is above 0.9"} for n in numbers]})


class Spy(ScriptedModel):
    def __init__(self, *replies: str | Exception | Completion) -> None:
        super().__init__(list(replies))
        self.asked: list[Request] = []

    def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        return super().complete(request)


def consult(model: ScriptedModel, *, critic: bool = True, n: int = 4) -> Batch:
    consultant = Consultant(model, caps=Caps(), advice=Advice(critic=critic))
    return consultant.consult(CONTEXT, propose(CONTEXT, n, reasons=True, view=VIEW))


def values(batch: Batch) -> list[object]:
    return [p.params["x"] for p in batch.proposals]


def test_what_the_model_drops_on_a_second_look_is_not_proposed() -> None:
    batch = consult(Spy(batch_of(BAD), drop(2)))
    assert values(batch) == [0.3, 0.6]
    assert "dropped on a second look: configuration 2: x is above 0.9" in batch.problems


def test_a_batch_without_violations_is_not_looked_at_again() -> None:
    model = Spy(batch_of(GOOD), drop(1))
    assert values(consult(model)) == GOOD
    assert len(model.asked) == 1


def test_by_default_there_is_no_second_look() -> None:
    model = Spy(batch_of(BAD), drop(1))
    assert values(consult(model, critic=False)) == [0.3, 0.95, 0.6]
    assert len(model.asked) == 1


def test_it_is_shown_constraints_violations_failures_and_the_batch() -> None:
    model = Spy(batch_of(BAD), drop())
    consult(model)
    text = model.asked[1].messages[-1].content
    assert all(word in text for word in ("keep x below 0.9", "x = 7", "out of memory at step 7", "2: x 0.95"))


def test_what_it_costs_is_counted_and_kept_apart() -> None:
    model = Spy(batch_of(BAD), drop(2))
    batch = consult(model)
    assert batch.usage.calls == 2
    assert batch.tally is not None
    assert (batch.tally.critic.calls, batch.tally.dropped) == (1, 1)
    first = consult(Spy(batch_of(BAD)), critic=False).usage
    assert batch.tally.critic.tokens == batch.usage.tokens - first.tokens


def test_it_never_costs_more_than_three_quarters_of_the_first_pass() -> None:
    batch = consult(Spy(batch_of(BAD), drop(2)))
    assert batch.tally is not None
    assert 0 < batch.tally.critic.tokens <= 0.75 * (batch.usage.tokens - batch.tally.critic.tokens)


def test_where_it_could_cost_more_it_is_left_out_and_that_is_said() -> None:
    short = Context(Task("t", "loss"), SPACE, TRIALS, 20)
    model = Spy('{"configurations": [{"why": "", "x": 0.2}, {"why": "", "x": 7}]}', drop(1))
    question = propose(short, 2, reasons=True, brief=True)
    question = question.__class__(question.kind, question.prompt, "", "?", 2, reasons=True)
    batch = Consultant(model, caps=Caps(), advice=Advice(critic=True)).consult(short, question)
    assert len(model.asked) <= 2  # the batch, and a repair turn
    assert any(p.startswith("no second look: it could cost") for p in batch.problems)
    assert batch.tally is not None
    assert batch.tally.critic.calls == 0


class Thinker(Spy):
    """Thinks unseen, so long at each request."""

    overhead_tokens = 4000

    def __init__(self, thoughts: list[int], *replies: str) -> None:
        super().__init__(*replies)
        self._thoughts = thoughts

    def complete(self, request: Request) -> Completion:
        completion = super().complete(request)
        thought = self._thoughts.pop(0)
        usage = replace(
            completion.usage, output_tokens=completion.usage.output_tokens + thought, reasoning_tokens=thought
        )
        return replace(completion, usage=usage)


def test_a_model_with_room_for_thoughts_is_taken_to_think_no_longer_than_before() -> None:
    assert values(consult(Thinker([100, 100], batch_of(BAD), drop(2)))) == [0.3, 0.6]


def test_a_second_look_that_was_thought_over_too_long_says_what_it_cost() -> None:
    batch = consult(Thinker([100, 3000], batch_of(BAD), drop(2)))
    (told,) = [p for p in batch.problems if p.startswith("the second look cost")]
    assert batch.tally is not None
    assert f"cost {batch.tally.critic.tokens} tokens" in told


@pytest.mark.parametrize("reply", ["no", "{}", '{"drop": 7}', drop(0, 9, True, "2"), '{"drop": [3]}'])
def test_an_answer_that_makes_no_sense_drops_nothing(reply: str) -> None:
    assert values(consult(Spy(batch_of(BAD), reply))) == [0.3, 0.95, 0.6]


def test_a_critic_that_fails_leaves_the_batch_as_it_is_and_is_paid_for() -> None:
    batch = consult(Spy(batch_of(BAD), LLMUnavailableError("down")))
    assert values(batch) == [0.3, 0.95, 0.6]
    assert batch.error == ""
    assert batch.usage.calls == 2
    assert batch.tally is not None
    assert batch.tally.critic.calls == 1
    assert "the second look failed: down" in batch.problems

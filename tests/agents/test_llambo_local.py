"""LLAMBO's parts on the real SmolLM2: sampled side by side under the schema, scored without writing. Loading it takes seconds."""

from __future__ import annotations

import pytest

from llmhpo.agents.advice import Advice
from llmhpo.agents.consult import Consultant
from llmhpo.agents.llambo import Voice
from llmhpo.agents.questions import propose
from llmhpo.llm.local import LocalModel
from llmhpo.llm.smollm2 import install
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
TRIALS = tuple(
    Trial(i, Proposal({"x": x}, "gp"), Outcome("ok", (x - 0.4) ** 2)) for i, x in enumerate([0.1, 0.52, 0.83])
)
CONTEXT = Context(Task("Tune x", "error"), SPACE, TRIALS, 20)
ADVICE = Advice(proposer="llambo", surrogate="llambo:disc", candidates=3)


@pytest.fixture(scope="module")
def consultant() -> Consultant:
    return Consultant(
        LocalModel(str(install(lambda _: None)), name="smollm2"), caps=Caps(), advice=ADVICE, deadline_s=600
    )


@pytest.fixture(scope="module")
def batch(consultant: Consultant) -> Batch:
    return consultant.consult(CONTEXT, propose(CONTEXT, 2, reasons=False))


def test_all_samples_are_valid_and_ranked_without_trouble(batch: Batch) -> None:
    assert batch.error == ""
    assert batch.problems == ()
    assert batch.tally is not None
    assert (batch.tally.asked, batch.tally.inside, batch.tally.valid) == (3, 3, 3)
    assert 1 <= len(batch.proposals) <= 2


def test_samples_of_one_prompt_are_one_request_and_scores_write_nothing(consultant: Consultant, batch: Batch) -> None:
    voice = Voice(consultant.converse(CONTEXT, "", ""), CONTEXT, ADVICE)
    spread = voice.mark('{"x": 0.1} -> score 20\n{"x": 0.52} -> score 80', '{"x": 0.5}')
    assert spread is not None
    assert spread.p.sum() == pytest.approx(1.0)
    assert voice.talk.usage.output_tokens == 0
    assert batch.usage.calls < 2 + 5 * 3

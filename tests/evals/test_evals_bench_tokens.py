"""The bench of tokens: what it counts, and that a small run keeps the bounds."""

from __future__ import annotations

import json

from evals.bench_tokens import MOST_REQUESTS, MOST_TOKENS, Chatter, measure, row, tokenizer
from evals.tasks import MINI, load
from llmhpo.llm.base import Message, Request
from llmhpo.llm.capabilities import keeps_to

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 4},
        "lr": {"anyOf": [{"type": "number", "minimum": 0.5, "maximum": 1.0}, {"type": "null"}]},
        "kind": {"enum": ["a", "b"]},
        "why": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["n", "lr", "kind", "why"],
    "additionalProperties": False,
}


def ask(text: str) -> Request:
    return Request((Message("user", text),), SCHEMA)


def test_the_chatter_keeps_to_any_schema() -> None:
    chatter = Chatter(0, tokenizer())
    assert all(keeps_to(chatter.complete(ask("?")).text, SCHEMA, bounds=True) for _ in range(20))


def test_replies_to_one_prompt_are_one_request() -> None:
    chatter = Chatter(0, tokenizer())
    replies = [chatter.complete(ask(text)) for text in ("a", "a", "b")]
    assert chatter.shared.calls == 2
    assert chatter.shared.input_tokens == replies[0].usage.input_tokens + replies[2].usage.input_tokens
    assert chatter.shared.output_tokens == sum(r.usage.output_tokens for r in replies)


def test_a_run_of_25_trials_keeps_its_bounds() -> None:
    task = load(MINI, "mini", pattern="hpob/5859*")[0]
    bill = measure(task, 25, 4, tokenizer(), llambo=False)
    for usage in (bill.ours, bill.random):
        assert 1 <= usage.calls <= MOST_REQUESTS
        assert 0 < usage.tokens <= MOST_TOKENS
    assert task.id in row(bill)
    assert json.dumps(bill.ours.calls) in row(bill)

"""Several replies side by side, with the real SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llmhpo.errors import LLMUnavailableError
from llmhpo.llm import smollm2
from llmhpo.llm.base import Message, Request
from llmhpo.llm.local import LocalModel

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"lr": {"type": "number", "minimum": 1e-5, "maximum": 0.1}, "optimizer": {"enum": ["adam", "sgd"]}},
    "required": ["lr", "optimizer"],
    "additionalProperties": False,
}
WORD: dict[str, object] = {
    "type": "object",
    "properties": {"top": {"enum": ["yes", "no"]}},
    "required": ["top"],
    "additionalProperties": False,
}
LONG = "The network has two layers and reads images of digits. Accuracy was 0.91, then 0.93, then 0.95. " * 12


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    model = LocalModel(str(smollm2.install(print)), name="smollm2", device="cpu")
    yield model
    model.close()


def ask(text: str, schema: dict[str, object] | None = None, **kw: float) -> Request:
    return Request((Message("user", text),), schema, **kw)  # type: ignore[arg-type]


def test_every_reply_holds_the_schema_and_they_differ(model: LocalModel) -> None:
    several = model.complete_many(ask("Propose a configuration.", SCHEMA), 6)
    replies = [json.loads(text) for text in several.texts]
    assert len(replies) == 6
    assert all(1e-5 <= r["lr"] <= 0.1 and r["optimizer"] in ("adam", "sgd") for r in replies)
    assert len({r["lr"] for r in replies}) > 1


def test_at_temperature_zero_all_say_what_one_alone_says(model: LocalModel) -> None:
    for request in (ask(LONG, SCHEMA, temperature=0.0), ask("Say a word.", temperature=0.0, max_tokens=8)):
        alone = model.complete(request).text
        assert model.complete_many(request, 3).texts == (alone,) * 3


def test_a_reply_of_one_word_is_drawn_without_a_second_pass(model: LocalModel) -> None:
    texts = model.complete_many(ask("Is 0.9 good?", WORD), 20).texts
    assert {json.loads(text)["top"] for text in texts} == {"yes", "no"}


def test_the_prefix_stays_in_the_cache_for_the_next_request(model: LocalModel) -> None:
    model.complete_many(ask(LONG + "One?", SCHEMA), 3)
    again = model.complete_many(ask(LONG + "Two?", SCHEMA), 3)
    assert again.usage.cached_tokens >= 128
    model.close()
    assert model.complete_many(ask(LONG + "Two?", SCHEMA), 3).texts == again.texts


def test_usage_is_one_request_and_the_tokens_of_all_replies(model: LocalModel) -> None:
    one, five = (model.complete_many(ask("Propose.", WORD), n).usage for n in (1, 5))
    assert (one.calls, five.calls) == (1, 1)
    assert one.input_tokens == five.input_tokens
    assert five.output_tokens >= 5 * (one.output_tokens - 1)


def test_max_tokens_cuts_every_reply(model: LocalModel) -> None:
    several = model.complete_many(ask("Tell a long story.", max_tokens=5), 3)
    assert several.usage.output_tokens <= 15


def test_the_deadline_cuts_between_tokens(model: LocalModel) -> None:
    model.complete_many(ask("Say a word.", max_tokens=2), 1)
    with pytest.raises(LLMUnavailableError, match=r"passed its deadline of 0.6 s .*raise"):
        model.complete_many(ask("Tell a long story.", max_tokens=2000, deadline_s=0.6), 4)

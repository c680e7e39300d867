"""Log-probabilities of given texts, with the real SmolLM2."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from llmhpo.llm import smollm2
from llmhpo.llm.base import Message, Request, Sampler, Scorer
from llmhpo.llm.local import LocalModel


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    model = LocalModel(str(smollm2.install(print)), name="smollm2", device="cpu", dtype="float32")
    yield model
    model.close()


def ask(text: str, begun: str | None = None) -> Request:
    turns = (Message("user", text),)
    return Request(turns if begun is None else (*turns, Message("assistant", begun)))


def test_the_local_model_scores_and_samples(model: LocalModel) -> None:
    assert isinstance(model, Scorer)
    assert isinstance(model, Sampler)


def test_the_true_answer_is_likelier_than_a_false_one(model: LocalModel) -> None:
    asked = ask("What is the capital of France?", "The capital of France is")
    true, false, empty = model.score(asked, [" Paris", " banana", ""]).logprobs
    assert false < true < 0.0 == empty


def test_the_choices_of_one_token_share_at_most_all_of_the_probability(model: LocalModel) -> None:
    asked = ask("Give a digit.", "The digit is ")
    shares = [math.exp(one) for one in model.score(asked, list("0123456789")).logprobs]
    assert 0.5 < sum(shares) <= 1.0

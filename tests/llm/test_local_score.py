"""Log-probabilities of given texts, with the real SmolLM2."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

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


def test_scores_are_those_of_each_text_alone_without_cache(model: LocalModel) -> None:
    asked = ask("The rate was 0.1 and the accuracy 0.93. " * 10)
    texts = [f'{{"rate": {i / 997:.4f}, "units": {i * 37 % 200}}}' for i in range(5)] + ["x"]
    scores = model.score(asked, texts)
    loaded, _ = model._load()
    prompt = model._prompt(asked, loaded).ids
    for text, found in zip(texts, scores.tokens, strict=True):
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model._model(torch.tensor([prompt + ids[:-1]]), use_cache=False, logits_to_keep=len(ids)).logits[0]
        alone = logits.log_softmax(-1)[range(len(ids)), ids].tolist()
        assert found == pytest.approx(alone, abs=1e-4)
    assert scores.usage.calls == 1
    assert model.score(asked, texts[:1]).usage.cached_tokens >= 128


def test_a_reply_says_how_likely_its_tokens_were_among_those_that_the_schema_allows(model: LocalModel) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"digit": {"type": "integer", "minimum": 1, "maximum": 3}},
        "required": ["digit"],
        "additionalProperties": False,
    }
    asked = Request((Message("user", "Give a digit."),), schema, top_logprobs=5)
    done = model.complete(asked)
    assert done.logprobs is not None
    assert "".join(one.token for one in done.logprobs) == done.text
    digit = next(one for one in done.logprobs if one.token in "123")
    assert {token for token, _ in digit.top} == {"1", "2", "3"}
    assert sum(math.exp(value) for _, value in digit.top) == pytest.approx(1.0)
    assert dict(digit.top)[digit.token] == digit.logprob
    assert done.logprobs[0].logprob == 0.0  # forced
    assert model.complete(Request(asked.messages, schema)).logprobs is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu(model: LocalModel) -> None:
    asked = ask("The rate was 0.1 and the accuracy 0.93. " * 20)
    texts = [f"rate {i / 97:.4f}" for i in range(8)]
    gpu = LocalModel(str(smollm2.install(print)), name="gpu", device="cuda", dtype="float32")
    assert gpu.score(asked, texts).logprobs == pytest.approx(model.score(asked, texts).logprobs, abs=1e-2)
    assert gpu.complete(Request(asked.messages, max_tokens=5, temperature=0.0)).text
    gpu.close()

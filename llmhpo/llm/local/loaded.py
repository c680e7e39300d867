"""Weights in memory: token ids in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmhpo.errors import LLMRequestError
from llmhpo.llm.base import JSONSchema
from llmhpo.llm.local.memory import exhausted

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from llmhpo.llm.local.decode import Constraints, Grammar

_PROBE = "Learning rate 0.01 was better than 0.1, and"
LEAST_PIECE = 16  # tokens of a prompt: with a few at a time sums are made in another order
WIDTH = 256  # tokens of a piece where pieces may begin anywhere; they end at multiples of it, or where the prompt ends
_LONG_PROBE = 48
_CLOSE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.06}  # shares of the range of the logits


@dataclass(slots=True)
class Sizes:
    """How much goes through the model at a time. Halved where memory runs out, until the weights are freed."""

    piece: int  # tokens of a prompt
    rows: int  # replies written side by side
    packed: int  # tokens of texts that are scored


class Loaded:
    """A model's weights, what its context holds, and what its architecture allows.

    `branches`: several continuations of one prefix may share a row, each under its own part of the attention mask.
    `keeps`: its cache can be cut back to any prefix. `exact`: a prompt may be read on from any token; on a CPU only where that gives
    the very bits that reading at once gives. All are tried out on a few tokens, not believed from a name.

    Raises: LLMRequestError for an architecture that cannot be read in pieces.
    """

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.tokenizer, self.device = tokenizer, device
        self._model = model
        self._config = config = model.config.get_text_config()
        self.context_tokens = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
        self.vocabulary = int(config.vocab_size)
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        # A CPU reads small pieces nearly as fast, and less is read twice where only whole ones can be reused; a GPU is idle on them.
        self.sizes = Sizes(128, 16, 320) if device == "cpu" else Sizes(512, 16, 1024)
        self._narrow = "logits_to_keep" in inspect.signature(model.forward).parameters
        # A mask of truth values is made into numbers in every layer on a CPU, and not at all by some implementations.
        self._additive = device == "cpu" or config._attn_implementation != "sdpa"
        layers = set(getattr(config, "layer_types", None) or ())
        self._mixed = "sliding_attention" in layers
        self._window = getattr(config, "sliding_window", None) if self._mixed or not layers else None
        self.keeps = layers <= {"full_attention", "sliding_attention"}
        self.branches = False
        self._products = False
        self.exact = device != "cpu"
        self._constraints: Constraints | None = None
        self._probe()

    def grammar(self, schema: JSONSchema) -> Grammar:
        """What a reply may look like; made anew for each reply."""
        from llmhpo.llm.local.decode import Constraints, Grammar

        if self._constraints is None:
            self._constraints = Constraints.of(self.tokenizer, self.vocabulary)
        return Grammar(schema, self._constraints)

    def new_cache(self) -> Any:
        """An empty attention cache."""
        from transformers import DynamicCache

        # Without the configuration all layers keep all positions, which the masks of sliding windows then narrow.
        return DynamicCache() if self.keeps else DynamicCache(config=self._config)

    def forward(
        self,
        ids: Sequence[int],
        cache: Any,
        wanted: Sequence[int],
        sees: NDArray[np.bool_] | None = None,
        places: NDArray[np.int64] | None = None,
    ) -> torch.Tensor:
        """Logits after the tokens at `wanted`, (wanted, vocabulary) on the device; `cache` grows by `ids`.

        Where the tokens do not simply follow what is cached: `places` (cached + ids,) has the position of every token,
        and `sees` (ids, cached + ids) which of them each new one attends to.
        """
        import torch

        more: dict[str, Any] = {}
        at = None if places is None else places[-len(ids) :]
        if sees is None and self._products:
            at = cache.get_seq_length() + np.arange(len(ids))
            # As wide for a token of this place in whichever piece it is read: the order of sums depends on the width.
            places = np.arange(-(-(at[-1] + 1) // WIDTH) * WIDTH)
            sees = at[:, None] >= places
        if sees is not None and places is not None and at is not None:
            more["attention_mask"] = self._masks(sees, at, places)
            more["position_ids"] = torch.from_numpy(at)[None].to(self.device)
        with torch.inference_mode():
            keep = torch.tensor(list(wanted), dtype=torch.long, device=self.device)
            if self._narrow:
                more["logits_to_keep"] = keep
            tokens = torch.tensor([list(ids)], device=self.device)
            logits: torch.Tensor = self._model(input_ids=tokens, past_key_values=cache, use_cache=True, **more).logits[
                0
            ]
            return logits if self._narrow else logits[keep]

    def _masks(self, sees: NDArray[np.bool_], at: NDArray[np.int64], places: NDArray[np.int64]) -> Any:
        if self._window is None:
            return self._mask(sees)
        near = self._mask(sees & (at[:, None] - places[None] < self._window))
        # A model with layers of both kinds takes a mask for each.
        return {"full_attention": self._mask(sees), "sliding_attention": near} if self._mixed else near

    def _mask(self, sees: NDArray[np.bool_]) -> torch.Tensor:
        import torch

        mask = torch.from_numpy(sees)[None, None].to(self.device)
        if not self._additive:
            return mask
        dtype = self._model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=self.device).masked_fill_(~mask, torch.finfo(dtype).min)

    def _probe(self) -> None:
        """Find out on a few tokens whether pieces and branches give what the whole gives.

        Raises: LLMRequestError.
        """
        ids: list[int] = self.tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        prefix, one, other = ids[:-4], ids[-4:-2], ids[-2:]
        whole = [self.forward(prefix + end, self.new_cache(), [len(prefix) + 1]) for end in (one, other)]
        start, cache = len(prefix), self.new_cache()
        try:
            self.forward(prefix, cache, [start - 1])
            follows = self.forward(one, cache, [1])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._refusal(f"{type(error).__name__}: {error}") from error
        if not self._same(follows, whole[0]):
            raise self._refusal("a text read in two pieces gives something else than read at once")
        if self.keeps:
            cut(cache, start)
            self.branches = self._branches_hold(cache, start, one, other, whole)
            if self.branches:
                self._try_products(prefix + one, whole[0])

    def _try_products(self, ids: list[int], whole: torch.Tensor) -> None:
        """Attend by products from now on, where they are faster and give the same to within rounding."""
        import torch

        model, fused = self._model, "sdpa"
        if self.device != "cpu" or model.dtype != torch.bfloat16 or self._config._attn_implementation != fused:
            return
        from llmhpo.llm.local.attention import PRODUCTS

        try:
            model.set_attn_implementation(PRODUCTS)
            self._products = self._config._attn_implementation == PRODUCTS
            holds = self._same(self.forward(ids, self.new_cache(), [len(ids) - 1]), whole)
            self.exact = holds and self._products and self._reads_on()
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if exhausted(error):
                raise
            holds = False
        if not holds:
            model.set_attn_implementation(fused)
            self._products = False
        if self.exact:
            self.sizes.piece = WIDTH

    def _reads_on(self) -> bool:
        """Whether a text that is read on from some token of another leaves the same bits as one read at once."""
        import torch

        ids: list[int] = (self.tokenizer(_PROBE, add_special_tokens=False)["input_ids"] * 8)[:_LONG_PROBE]
        found = []
        for end, start in ((0, 0), (_LONG_PROBE // 2, LEAST_PIECE + 1)):
            cache = self.new_cache()
            if end:
                self.forward(ids[:end], cache, [end - 1])
                cut(cache, start)
            logits = self.forward(ids[start:], cache, [len(ids) - start - 1])
            found.append([logits, *(one for layer in cache.layers for one in (layer.keys, layer.values))])
        return all(torch.equal(a, b) for a, b in zip(*found, strict=True))

    def _branches_hold(
        self, cache: Any, start: int, one: list[int], other: list[int], whole: list[torch.Tensor]
    ) -> bool:
        own = np.kron(np.eye(2, dtype=np.bool_), np.tri(2, dtype=np.bool_))
        sees = np.hstack([np.ones((4, start), dtype=np.bool_), own])
        places = np.concatenate([np.arange(start), [start, start + 1] * 2])
        try:
            found = self.forward(one + other, cache, [1, 3], sees, places)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if exhausted(error):
                raise
            return False
        return all(self._same(found[i : i + 1], whole[i]) for i in range(2))

    def _same(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        close = _CLOSE[str(self._model.dtype).removeprefix("torch.")]
        a, b = a.float(), b.float()
        return bool((a - b).abs().max() <= close * (b.max() - b.min()))

    def _refusal(self, reason: str) -> LLMRequestError:
        return LLMRequestError(
            f"the local engine cannot run a model of type {self._config.model_type!r} ({reason[:200]}); use another model, "
            "or serve this one elsewhere and name it as openai:NAME with base_url"
        )


def cut(cache: Any, length: int) -> None:
    """Forget all but the first `length` tokens; also where a pass that failed has grown some layers only."""
    for layer in cache.layers:
        if (extra := layer.get_seq_length() - length) > 0:
            layer.crop(-extra)

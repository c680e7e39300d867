"""Weights in memory: prompts in, logits out, with the attention cache that requests with one beginning share."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmhpo.errors import LLMUnavailableError
from llmhpo.llm.base import Message

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from llmhpo.llm.decode import Grammar

# The prompt goes through the model in pieces that start at multiples of this, and whole pieces are what the next
# request may reuse: so the sums are made in the same order with and without reuse, and the reply is the same to the bit.
_CHUNK = 128
ENDING = threading.Event()  # set when this program ends: whoever is in torch by then aborts the whole process


@dataclass(frozen=True, slots=True)
class Clock:
    """The end of a request's time."""

    end: float
    deadline_s: float
    name: str

    def check(self, place: str) -> None:
        """Raises: LLMUnavailableError once the time is over, or the program ends."""
        if ENDING.is_set():
            raise LLMUnavailableError(f"the local model {self.name!r} was stopped {place}: the program ends")
        if time.monotonic() > self.end:
            raise self.passed(place)

    def passed(self, place: str) -> LLMUnavailableError:
        """The error that says so."""
        return LLMUnavailableError(
            f"the local model {self.name!r} passed its deadline of {self.deadline_s:g} s {place}; "
            "raise the deadline, ask for fewer configurations, or use a smaller model or a GPU"
        )


class Loaded:
    """Weights in memory, and the attention cache of the last request."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._device = device
        config = model.config.get_text_config()
        self.context_tokens = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
        self._vocabulary = int(config.vocab_size)
        ends = model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._specials = sorted((str(token) for token in tokenizer.all_special_tokens), key=len, reverse=True)
        self._constraints: Constraints | None = None
        self._cache: Any = None
        self._seen: list[int] = []  # tokens whose keys and values `_cache` holds
        self._reusable = 0  # of these, how many went in as whole chunks
        # One query against grouped heads takes torch's bfloat16 kernel 7 times as long without a mask as with one
        # (1.4 and 0.2 ms a layer at 1,400 tokens, torch 2.13 on a Zen 4 core). A sliding window needs its own mask.
        self._mask_one = device == "cpu" and getattr(config, "sliding_window", None) is None

    def grammar(self, schema: dict[str, object]) -> Grammar:
        """What a reply may look like; made anew for each reply."""
        from llmhpo.llm.decode import Grammar

        if self._constraints is None:
            self._constraints = Constraints.of(self.tokenizer, self._vocabulary)
        return Grammar(schema, self._constraints.tokens, self._constraints.digits)

    def logprobs(self, first: NDArray[np.float32], ids: list[int], clock: Clock) -> list[float]:
        """Natural log-probability of each of `ids` after what is in the cache, which stays as it is.

        `first` (vocabulary,) are the logits of the token that follows the cache's end.
        """
        import torch

        clock.check("while it scored")
        if not ids:
            return []
        logits = torch.from_numpy(first)[None]
        if len(ids) > 1:
            cache = copy.deepcopy(self._cache)
            with torch.inference_mode():
                tokens = torch.tensor([ids[:-1]], device=self._device)
                rest = self._model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[0]
            logits = torch.cat([logits, rest.float().cpu()])
        own: list[float] = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()
        return own

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation in the model's chat template, up to where its answer begins."""
        turns = [{"role": message.role, "content": self._plain(message.content)} for message in messages]
        text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
        if self.tokenizer.chat_template:
            from jinja2 import TemplateError

            # A last turn of the assistant is the reply begun.
            begun = bool(turns) and turns[-1]["role"] == "assistant"
            form = {"tokenize": False, "add_generation_prompt": not begun, "continue_final_message": begun}
            try:
                text = self.tokenizer.apply_chat_template(turns, **form)
            except TemplateError:  # some templates refuse a system turn: it goes in front of the first user turn
                system = [turn["content"] for turn in turns if turn["role"] == "system"]
                turns = [turn for turn in turns if turn["role"] != "system"] or [{"role": "user", "content": ""}]
                turns[0]["content"] = "\n\n".join([*system, turns[0]["content"]])
                text = self.tokenizer.apply_chat_template(turns, **form)
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self.tokenizer.chat_template)["input_ids"]
        return ids

    def _plain(self, text: str) -> str:
        for token in self._specials:  # data must not end a turn or open another
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def begin(self, ids: list[int]) -> int:
        """Keep of the cache what a request with this prompt can reuse; the number of tokens."""
        same = next((i for i, (a, b) in enumerate(zip(ids, self._seen, strict=False)) if a != b), len(self._seen))
        kept = min(same, self._reusable, len(ids) - 1) // _CHUNK * _CHUNK
        drop = len(self._seen) - kept
        if kept and all(getattr(layer, "is_croppable", False) for layer in self._cache.layers):
            self._cache.crop(-drop)
        else:
            from transformers import DynamicCache

            kept, self._cache = 0, DynamicCache(config=self._model.config)
        self._seen = self._seen[:kept]
        self._reusable = kept
        return kept

    def read(self, ids: list[int], clock: Clock) -> NDArray[np.float32]:
        """Logits of the token that follows `ids`, (vocabulary,). All but the new end of `ids` is in the cache."""
        while len(self._seen) < len(ids):
            start = len(self._seen)
            whole = start == self._reusable  # reading on from whole chunks: the prompt
            end = min(len(ids), start + _CHUNK) if whole else len(ids)
            clock.check(f"after reading {start} of {len(ids)} tokens")
            try:
                logits = self._forward(ids[start:end])
            except BaseException:  # half of the layers may have grown
                self._seen, self._reusable = [], 0
                raise
            self._seen = ids[:end]
            if whole and end - start == _CHUNK:
                self._reusable = end
        return logits

    def _forward(self, ids: list[int]) -> NDArray[np.float32]:
        import torch

        mask: torch.Tensor | None = None
        if len(ids) == 1 and self._mask_one:
            mask = torch.ones((1, 1, 1, len(self._seen) + 1), dtype=torch.bool)
        with torch.inference_mode():
            tokens = torch.tensor([ids], device=self._device)
            output = self._model(
                input_ids=tokens, attention_mask=mask, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
            logits: NDArray[np.float32] = output.logits[0, -1].float().cpu().numpy()
        return logits

    def branches(self, n: int, clock: Clock) -> Callable[[list[int]], NDArray[np.float32]]:
        """A reader of `n` continuations of what is in the cache, which itself stays as it is.

        It takes one token a row and returns the logits that follow, (n, vocabulary).
        """
        import torch

        cache: Any = None

        def read(tokens: list[int]) -> NDArray[np.float32]:
            nonlocal cache
            clock.check("while it wrote its replies")
            if cache is None:  # not before it is needed: a reply of one word needs none
                cache = copy.deepcopy(self._cache)
                cache.batch_repeat_interleave(n)
            mask: torch.Tensor | None = None
            if self._mask_one:
                mask = torch.ones((n, 1, 1, cache.get_seq_length() + 1), dtype=torch.bool)
            with torch.inference_mode():
                rows = torch.tensor(tokens, device=self._device)[:, None]
                output = self._model(input_ids=rows, attention_mask=mask, past_key_values=cache, use_cache=True)
                logits: NDArray[np.float32] = output.logits[:, -1].float().cpu().numpy()
            return logits

        return read


@dataclass(frozen=True, slots=True)
class Constraints:
    """What every grammar of one tokenizer shares; it takes half a second to make."""

    tokens: Any
    digits: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int) -> Constraints:
        """Of a tokenizer and the size of the model's vocabulary."""
        from llguidance.hf import from_tokenizer

        from llmhpo.llm.decode import leading_digits

        tokens = from_tokenizer(tokenizer, n_vocab=vocabulary)
        return cls(tokens, leading_digits(tokens))

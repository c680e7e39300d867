"""What was read before: the attention caches of prompts, kept so that the next prompt costs its new tokens only."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmhpo.llm.local.clock import Clock
from llmhpo.llm.local.loaded import LEAST_PIECE, Loaded, cut
from llmhpo.llm.local.memory import exhausted, give_back

if TYPE_CHECKING:
    import torch

# Prompts go through the model in pieces. Where the bits of a token depend on its place in a piece, pieces start at multiples of one
# size, and whole ones are what the next request may reuse: so on a CPU the reply is the same with and without reuse.
_MOST = 4  # prompts of different kinds take turns in a study; 1,500 tokens are 35 MB for SmolLM2, 200 MB for 8B


@dataclass(slots=True)
class Prefix:
    """A text in a cache. `whole`: how many of its tokens may be reused."""

    ids: list[int]
    cache: Any
    whole: int = 0
    logits: Any = None  # (vocabulary,) after the last of the ids


class Prefixes:
    """The prompts read last, the most recent one at the end."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._kept: list[Prefix] = []

    def read(self, ids: Sequence[int], clock: Clock) -> tuple[Prefix, int]:
        """These tokens in a cache, and how many of them were there already. The prefix is good until the next call.

        Where memory runs out, all other prompts are forgotten and the pieces halved.
        Raises: LLMUnavailableError (deadline), or what the device raises where no memory is left even so.
        """
        ids = list(ids)
        while True:
            prefix, kept = self._begin(ids)
            try:
                self._read_on(prefix, ids, clock)
            except (MemoryError, RuntimeError) as error:
                if not exhausted(error) or (self._loaded.sizes.piece <= LEAST_PIECE and not self._kept):
                    raise
            else:
                if self._loaded.keeps:
                    self._kept = [*self._kept, prefix][-_MOST:]
                return prefix, kept
            if not self._kept:
                self._loaded.sizes.piece //= 2
            self._kept.clear()
            del prefix
            give_back(self._loaded.device)

    def forget(self) -> None:
        """Free all caches."""
        self._kept.clear()

    def _begin(self, ids: list[int]) -> tuple[Prefix, int]:
        """Take the kept prompt that shares most with these; it stays as it is where less than half of it would remain."""
        piece = self._loaded.sizes.piece
        best, kept = None, 0
        for prefix in reversed(self._kept):
            shared = min(shared_length(ids, prefix.ids), prefix.whole, len(ids) - 1)
            if self._loaded.exact:
                shared = min(shared, len(ids) - LEAST_PIECE)
                gap = -shared % piece
                shared -= LEAST_PIECE - gap if 0 < gap < LEAST_PIECE else 0
            else:
                shared = shared // piece * piece
            if shared > kept:
                best, kept = prefix, shared
        if best is None or not self._loaded.keeps:
            return Prefix([], self._loaded.new_cache()), 0
        if 2 * kept < best.whole:
            best = Prefix(best.ids[:kept], _copied(best.cache, kept))
        else:
            self._kept.remove(best)
            cut(best.cache, kept)
        return Prefix(best.ids[:kept], best.cache, kept), kept

    def _read_on(self, prefix: Prefix, ids: list[int], clock: Clock) -> None:
        piece = self._loaded.sizes.piece
        logits: torch.Tensor | None = None
        while (start := len(prefix.ids)) < len(ids):
            end = min(len(ids), start // piece * piece + piece)
            clock.check(f"after reading {start} of {len(ids)} tokens")
            wanted = [end - start - 1] if end == len(ids) else []  # the vocabulary is a large part of a small model
            logits = self._loaded.forward(ids[start:end], prefix.cache, wanted)
            prefix.ids = ids[:end]
            if end % piece == 0 or (self._loaded.exact and end - start >= LEAST_PIECE):
                prefix.whole = end
        assert logits is not None  # at least the last token was read
        prefix.logits = logits[0]


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _copied(cache: Any, length: int) -> Any:
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    cut(other, length)
    for layer in other.layers:
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    return other

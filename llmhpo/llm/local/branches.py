"""Continuations of one prefix, which is in the cache once: a tree of tokens in one row, or where the architecture does
not allow that, one after the other on copies."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llmhpo.llm.local.loaded import Loaded, cut
from llmhpo.llm.local.prefixes import Prefix

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

ROOT = -1  # the parent of what follows the prefix


class Branches(Protocol):
    """Tokens after a prefix, numbered from 0 in the order in which they came; each has a parent before it, or ROOT."""

    def grow(self, tokens: Sequence[int], parents: Sequence[int], wanted: Sequence[int]) -> torch.Tensor:
        """Add tokens; the logits after those of them at `wanted` (places in `tokens`), (wanted, vocabulary)."""
        ...

    def close(self) -> None:
        """Leave the prefix as it was."""
        ...


def branch(loaded: Loaded, prefix: Prefix) -> Branches:
    """Branches from the end of `prefix`, of the kind that the model allows."""
    return Packed(loaded, prefix) if loaded.branches else Separate(loaded, prefix)


class Packed:
    """All branches in one row: each token attends to the prefix and to its own ancestors.

    The prefix is neither computed nor stored again, and rows that have several tokens to say take one pass.
    """

    def __init__(self, loaded: Loaded, prefix: Prefix) -> None:
        self._loaded, self._cache = loaded, prefix.cache
        self._start = len(prefix.ids)
        self._depths: list[int] = []
        self._sees = np.zeros((0, 0), dtype=np.bool_)  # room for more than there are

    def grow(self, tokens: Sequence[int], parents: Sequence[int], wanted: Sequence[int]) -> torch.Tensor:
        """See `Branches.grow`."""
        before = len(self._depths)
        after = before + len(tokens)
        self._make_room(after)
        for i, parent in enumerate(parents, before):
            if parent >= 0:
                self._sees[i] = self._sees[parent]
            self._sees[i, i] = True
            self._depths.append(0 if parent < 0 else self._depths[parent] + 1)
        sees = np.ones((len(tokens), self._start + after), dtype=np.bool_)
        sees[:, self._start :] = self._sees[before:after, :after]
        places = np.concatenate([np.arange(self._start), self._start + np.array(self._depths, dtype=np.int64)])
        return self._loaded.forward(tokens, self._cache, wanted, sees, places)

    def close(self) -> None:
        """See `Branches.close`."""
        cut(self._cache, self._start)

    def _make_room(self, n: int) -> None:
        if n > (room := len(self._sees)):
            more = max(n, 2 * room)
            grown: NDArray[np.bool_] = np.zeros((more, more), dtype=np.bool_)
            grown[:room, :room] = self._sees
            self._sees = grown


class Separate:
    """Each branch on a copy of the prefix's cache. A branch goes on from its end only: no fork but at the prefix."""

    def __init__(self, loaded: Loaded, prefix: Prefix) -> None:
        self._loaded, self._cache = loaded, prefix.cache
        self._ends: list[Any] = []  # of each token the cache that ends with it, until its branch goes on

    def grow(self, tokens: Sequence[int], parents: Sequence[int], wanted: Sequence[int]) -> torch.Tensor:
        """See `Branches.grow`."""
        import torch

        before = len(self._ends)
        runs: list[list[int]] = []  # each goes on from one place
        for i, parent in enumerate(parents):
            if i > 0 and parent == before + i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        self._ends += [None] * len(tokens)
        found: dict[int, torch.Tensor] = {}
        for run in runs:
            parent = parents[run[0]]
            cache = copy.deepcopy(self._cache) if parent < 0 else self._ends[parent]
            assert cache is not None  # a fork
            local = [i - run[0] for i in run if i in wanted]
            logits = self._loaded.forward([tokens[i] for i in run], cache, local)
            found |= {run[0] + i: one for i, one in zip(local, logits, strict=True)}
            if parent >= 0:
                self._ends[parent] = None
            self._ends[before + run[-1]] = cache
        return torch.stack([found[i] for i in wanted])

    def close(self) -> None:
        """See `Branches.close`."""
        self._ends.clear()

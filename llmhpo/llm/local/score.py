"""Log-probabilities of given texts after one prefix, which is read once; so is what the texts begin with in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmhpo.llm.local.branches import ROOT, branch
from llmhpo.llm.local.clock import Clock
from llmhpo.llm.local.loaded import Loaded, cut
from llmhpo.llm.local.memory import exhausted, give_back
from llmhpo.llm.local.prefixes import Prefix, shared_length

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class _Tree:
    """Texts that begin alike share nodes. A node is a token that another follows: the last ones need no pass."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, text: Sequence[int], shares: bool) -> list[int]:
        """The node before each token of `text`."""
        at, before = ROOT, []
        for token in text:
            before.append(at)
            if len(before) == len(text):
                break
            if not shares or (at, token) not in self.children:
                self.tokens.append(token)
                self.parents.append(at)
                self.children[at, token] = len(self.tokens) - 1
            at = self.children[at, token]
        return before


def score(texts: Sequence[list[int]], prefix: Prefix, loaded: Loaded, clock: Clock) -> list[list[float]]:
    """Natural log-probability of each token of each text. Where memory runs out, smaller groups go on.

    Raises: LLMUnavailableError (deadline), or what the device raises where not even one text has room.
    """
    import torch

    common = _common(texts) if loaded.branches else []
    if not common:
        return _score_all(texts, prefix, loaded, clock)
    try:
        logits = loaded.forward(common, prefix.cache, range(len(common)))
        first = _own(torch.cat([prefix.logits[None], logits[:-1]]), range(len(common)), common)
        longer = Prefix([*prefix.ids, *common], prefix.cache, logits=logits[-1])
        rest = _score_all([text[len(common) :] for text in texts], longer, loaded, clock)
    finally:
        cut(prefix.cache, len(prefix.ids))
    return [first + one for one in rest]


def _score_all(texts: Sequence[Sequence[int]], prefix: Prefix, loaded: Loaded, clock: Clock) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    order = sorted(range(len(texts)), key=lambda i: tuple(texts[i]))  # neighbours begin alike
    while order:
        clock.check("while it scored")
        n = _group(texts, order, loaded.sizes.packed)
        try:
            logprobs = _score_group([texts[i] for i in order[:n]], prefix, loaded)
        except (MemoryError, RuntimeError) as error:
            if not exhausted(error) or n == 1:
                raise
        else:
            found |= zip(order, logprobs, strict=False)
            order = order[n:]
            continue
        loaded.sizes.packed = sum(len(texts[i]) for i in order[:n]) // 2
        give_back(loaded.device)
    return [found[i] for i in range(len(texts))]


def _group(texts: Sequence[Sequence[int]], order: Sequence[int], most: int) -> int:
    """How many texts go together: as many as have `most` tokens, at least one."""
    total = 0
    for n, i in enumerate(order):
        total += len(texts[i])
        if total > most and n:
            return n
    return len(order)


def _score_group(texts: Sequence[Sequence[int]], prefix: Prefix, loaded: Loaded) -> list[list[float]]:
    tree = _Tree()
    before = [tree.add(text, loaded.branches) for text in texts]
    asked = [
        (node, token) for row, text in zip(before, texts, strict=True) for node, token in zip(row, text, strict=True)
    ]
    later = [(node, token) for node, token in asked if node != ROOT]
    firsts = [token for node, token in asked if node == ROOT]
    first = iter(_own(prefix.logits[None], [0] * len(firsts), firsts))
    rest: Iterator[float] = iter(())
    branches = branch(loaded, prefix)
    try:
        if tree.tokens:
            logits = branches.grow(tree.tokens, tree.parents, range(len(tree.tokens)))
            rest = iter(_own(logits, [node for node, _ in later], [token for _, token in later]))
    finally:
        branches.close()
    return [[next(first if node == ROOT else rest) for node in row] for row in before]


def _own(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Of each of `tokens` its log-probability in its row of `logits` (rows, vocabulary)."""
    logprobs = logits.float().log_softmax(-1)  # one fused pass; a sum of exponentials alone takes three
    own: list[float] = logprobs[list(rows), list(tokens)].tolist()
    return own


def _common(texts: Sequence[list[int]]) -> list[int]:
    """What all texts begin with."""
    if len(texts) < 2:
        return []
    first = min(texts)
    return first[: shared_length(first, max(texts))]

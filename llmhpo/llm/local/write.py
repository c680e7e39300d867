"""Replies to one prompt, written side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmhpo.llm.base import Finish, TokenLogprob
from llmhpo.llm.local.branches import ROOT, Branches, branch
from llmhpo.llm.local.clock import Clock
from llmhpo.llm.local.decode import Grammar, draw
from llmhpo.llm.local.loaded import LEAST_PIECE, Loaded
from llmhpo.llm.local.memory import exhausted, give_back
from llmhpo.llm.local.prefixes import Prefix

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a reply is written. `closing`: the tokens that end a thought, where it begins with one."""

    limit: int  # tokens of the reply, without its thought
    temperature: float
    ends: frozenset[int]
    closing: tuple[int, ...] = ()
    thought: int = 0  # tokens of the thought at most
    top: int = 0  # alternatives a token whose log-probabilities are kept


class Row:
    """One reply under way. `said`: its tokens, beginning with those that were read with the prompt."""

    def __init__(
        self, grammar: Grammar | None, said: Sequence[int], manner: Manner, rng: np.random.Generator, tokenizer: Any
    ) -> None:
        self.said: list[int] = []
        self.thought = 0
        self.finish: Finish | None = None
        self.logprobs: list[TokenLogprob] = []
        self.path: list[int] = []  # what follows the prefix: thought and reply
        self.fed = 0  # how much of the path went through the model
        self.tip = ROOT
        self._grammar, self._manner, self._rng, self._tokenizer = grammar, manner, rng, tokenizer
        self._thinks = bool(manner.closing)
        self._allowed: NDArray[np.int64] | None = None
        for token in said:
            self._say(token, None)
        self._check()

    @property
    def text(self) -> str:
        """The reply, without its thought."""
        form = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self._tokenizer.decode(self.said, **form))

    def prepare(self) -> None:
        """Find out what may come next; while a GPU is at work on the logits, this costs no time."""
        bound = self._grammar is not None and not self._thinks
        self._allowed = self._grammar.allowed(self.said) if bound and self._grammar is not None else None

    def take(self, logits: Logits) -> None:
        """Draw the next token from `logits` (vocabulary,), and add what must follow it."""
        token = draw(logits, self._allowed, self._manner.temperature, self._rng)
        if self._thinks:
            self._think(token)
            return
        if token in self._manner.ends:
            self.finish = "stop"
            return
        self.path.append(token)
        self._say(token, logits)
        if self._grammar is not None:
            self._grammar.say(token)
            self._follow(self._grammar.forced())
        self._check()

    def _follow(self, forced: Sequence[int]) -> None:
        for token in forced:
            self.path.append(token)
            self._say(token, None)

    def _say(self, token: int, logits: Logits | None) -> None:
        self.said.append(token)
        if self._manner.top:
            self.logprobs.append(self._logprob(token, logits))

    def _logprob(self, token: int, logits: Logits | None) -> TokenLogprob:
        """Among what the schema allowed; a forced token is certain."""
        word = self._tokenizer.decode
        if logits is None:
            return TokenLogprob(word([token]), 0.0, ((word([token]), 0.0),))
        ids = np.arange(len(logits)) if self._allowed is None else self._allowed
        scores = logits[ids].astype(np.float64)
        scores -= scores.max()
        scores -= np.log(np.exp(scores).sum())
        best = np.argsort(-scores, kind="stable")[: self._manner.top]
        top = tuple((word([int(ids[i])]), float(scores[i])) for i in best)
        return TokenLogprob(word([token]), float(scores[ids == token][0]), top)

    def _check(self) -> None:
        limit = self._manner.limit
        if self._grammar is not None and self._grammar.ended and len(self.said) <= limit:
            self.finish = "stop"
        elif len(self.said) >= limit:
            del self.said[limit:], self.logprobs[limit:]
            self.finish = "length"

    def _think(self, token: int) -> None:
        closing = self._manner.closing
        self.thought += 1
        if token not in self._manner.ends:
            self.path.append(token)
        over = token in self._manner.ends or self.thought >= self._manner.thought
        mark = str(self._tokenizer.decode(closing)).strip()
        closed = mark in str(self._tokenizer.decode(self.path[-len(closing) - 4 :]))
        if not (over or closed):
            return
        self._thinks = False
        if not closed:
            self.path += closing
        if self._grammar is not None:
            self._follow(self._grammar.forced())


def write(rows: Sequence[Row], prefix: Prefix, loaded: Loaded, clock: Clock) -> None:
    """Write all rows to their ends. Where memory runs out, half as many go on side by side; what was said stays.

    Raises: LLMUnavailableError (deadline), or what the device raises where not even one row has room.
    """
    sizes = loaded.sizes
    while waiting := [row for row in rows if row.finish is None]:
        group = waiting[: sizes.rows]
        try:
            _write_group(group, prefix, loaded, clock)
        except (MemoryError, RuntimeError) as error:
            if not exhausted(error) or (len(group) == 1 and sizes.piece <= LEAST_PIECE):
                raise
        else:
            continue
        if len(group) == 1:
            sizes.piece //= 2
        sizes.rows = max(1, len(group) // 2)
        give_back(loaded.device)


def _write_group(rows: Sequence[Row], prefix: Prefix, loaded: Loaded, clock: Clock) -> None:
    branches = branch(loaded, prefix)
    for row in rows:
        row.tip, row.fed = ROOT, 0
    fed = 0
    try:
        while live := [row for row in rows if row.finish is None]:
            clock.check(f"after writing {fed} tokens")
            going = [row for row in live if row.path]
            logits, more = _advance(going, branches, fed, loaded.sizes.piece)
            fed += more
            for row in live:
                row.prepare()
            for row in live:
                if row not in going:  # its first token follows the prompt
                    row.take(prefix.logits.float().cpu().numpy())
            for row, own in zip(going, () if logits is None else logits.float().cpu().numpy(), strict=True):
                row.take(own)
    finally:
        branches.close()


def _advance(rows: Sequence[Row], branches: Branches, fed: int, most: int) -> tuple[torch.Tensor | None, int]:
    """Put through the model what the rows have said since; the logits after their last tokens, and how many these were."""
    import torch

    tokens: list[int] = []
    parents: list[int] = []
    wanted: list[int] = []
    for row in rows:
        for token in row.path[row.fed :]:
            tokens.append(token)
            parents.append(row.tip)
            row.tip = fed + len(tokens) - 1
        row.fed = len(row.path)
        wanted.append(len(tokens) - 1)
    found = []
    for start in range(0, len(tokens), most):  # more than one round where rows begin again
        end = min(start + most, len(tokens))
        here = [i - start for i in wanted if start <= i < end]
        found.append(branches.grow(tokens[start:end], parents[start:end], here))
    return torch.cat(found) if found else None, len(tokens)

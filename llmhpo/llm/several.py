"""Several replies to one request of a local model: the prompt is read once, then all replies are written side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llmhpo.llm.decode import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from llmhpo.llm.decode import Grammar

    Logits = NDArray[np.float32]


class Row:
    """One of the replies. `said` holds its tokens, beginning with those that were read with the prompt."""

    def __init__(self, grammar: Grammar | None, said: Sequence[int], ends: set[Any], rng: np.random.Generator) -> None:
        self.said = list(said)
        self.stopped = False
        self._grammar, self._ends, self._rng = grammar, ends, rng
        self._forced: list[int] = []
        self._check()

    def say(self, logits: Logits, temperature: float) -> None:
        """Take the next token: the one that the schema forces, else one drawn from `logits` (vocabulary,)."""
        if self._forced:
            self.said.append(self._forced.pop(0))
        else:
            allowed = None if self._grammar is None else self._grammar.allowed(self.said)
            token = draw(logits, allowed, temperature, self._rng)
            if token in self._ends:
                self.stopped = True
                return
            self.said.append(token)
            if self._grammar is not None:
                self._grammar.say(token)
        self._check()

    def _check(self) -> None:
        if self._grammar is None or self._forced:
            return
        self._forced = self._grammar.forced()
        if self._grammar.ended:  # the rest needs no pass through the model
            self.said += self._forced
            self._forced, self.stopped = [], True


def write(
    rows: Sequence[Row], logits: Logits, read: Callable[[list[int]], Logits], limit: int, temperature: float
) -> None:
    """Write all rows to their ends, or to `limit` tokens.

    `logits` (vocabulary,) follow the prompt; `read` takes one token a row and returns the next logits (rows, vocabulary).
    """
    following: Logits = np.broadcast_to(logits, (len(rows), len(logits)))
    for _ in range(limit):
        for row, own in zip(rows, following, strict=True):
            if not row.stopped:
                row.say(own, temperature)
        if all(row.stopped for row in rows):
            return
        following = read([row.said[-1] if row.said else 0 for row in rows])

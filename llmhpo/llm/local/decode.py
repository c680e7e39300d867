"""Decoding under a JSON schema: which tokens may come next, which must, and the draw of one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from llmhpo.errors import LLMRequestError
from llmhpo.llm.base import JSONSchema

_TIGHT = {"whitespace_flexible": False}  # a small model would fill the reply with blanks
_TAIL_TOKENS = 24
# A number that is long enough: four significant digits in a fraction, twelve decimals, sixteen digits, two of exponent.
_LONG_NUMBER = re.compile(rb"(?:\.0*[1-9]\d{3}|[1-9]\d*\.\d{3}|\.\d{12}|\d{16}|\d[eE][+-]?\d{2})$")


@dataclass(frozen=True, slots=True)
class Constraints:
    """What every grammar of one tokenizer shares; it takes half a second to make."""

    tokens: LLTokenizer
    digits: NDArray[np.bool_]  # (vocabulary,): which tokens begin with a digit

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int) -> Constraints:
        """Of a tokenizer and the size of the model's vocabulary."""
        from llguidance.hf import from_tokenizer

        tokens = from_tokenizer(tokenizer, n_vocab=vocabulary)
        begins = [tokens.decode_bytes([i])[:1].isdigit() for i in range(tokens.vocab_size)]
        return cls(tokens, np.array(begins, dtype=np.bool_))


class Grammar:
    """What a reply of one schema may look like, token by token.

    Tokens that the schema forces (keys, punctuation) come from `forced` without a pass through the model. Numbers end
    after a few digits wherever the range lets them, as small models would go on for dozens.
    """

    def __init__(self, schema: JSONSchema, constraints: Constraints) -> None:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_TIGHT)
        self._tokens, self._digits = constraints.tokens, constraints.digits
        self._matcher = LLMatcher(self._tokens, grammar, log_level=0)
        self._bits = allocate_token_bitmask(1, self._tokens.vocab_size)
        self._check("the JSON schema of the request cannot be turned into a grammar")

    def forced(self) -> list[int]:
        """Tokens that must come next, taken as said."""
        forced: list[int] = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
            self._check("the grammar refuses its own tokens")
        return forced

    def allowed(self, said: Sequence[int]) -> NDArray[np.int64]:
        """Ids of the tokens that may come next, given all that was said so far."""
        fill_next_token_bitmask(self._matcher, self._bits)
        self._check("the grammar gave up")
        legal = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")[: len(self._digits)].view(np.bool_)
        if _LONG_NUMBER.search(self._tokens.decode_bytes(list(said[-_TAIL_TOKENS:]))):
            shorter = legal & ~self._digits
            legal = shorter if shorter.any() else legal
        return np.flatnonzero(legal)

    def say(self, token: int) -> None:
        """Take a token that the model chose."""
        self._matcher.consume_token(token)
        self._check("the grammar refuses a token that it allowed")

    @property
    def ended(self) -> bool:
        """Whether the reply is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def _check(self, what: str) -> None:
        if self._matcher.is_error():
            raise LLMRequestError(f"{what}: {self._matcher.get_error().splitlines()[0][:300]}; simplify the schema")


def draw(
    logits: NDArray[np.float32], allowed: NDArray[np.int64] | None, temperature: float, rng: np.random.Generator
) -> int:
    """One token id by its probability at this temperature; the likeliest at 0. `logits` (vocabulary,)."""
    scores = (logits if allowed is None else logits[allowed]).astype(np.float64)
    if temperature > 0:
        weights = np.exp((scores - scores.max()) / temperature).cumsum()
        at = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        at = min(at, len(scores) - 1)
    else:
        at = int(scores.argmax())
    return at if allowed is None else int(allowed[at])

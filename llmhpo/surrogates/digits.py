"""Numbers in a language model's mouth: two digits, their distribution from samples or log-probabilities, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from llmhpo.llm.base import TokenLogprob
from llmhpo.surrogates.base import Array

LOW, HIGH = 10, 99  # two digits whatever the number, and no leading zero, which JSON forbids
_BEST_AT, _WORST_AT = 80.0, 20.0  # of what was seen: there is room beyond both
_EXPANDED = 3  # first digits whose second digits are looked at
_ENOUGH = 0.9  # of the probability


@dataclass(frozen=True, slots=True)
class Scale:
    """Targets, lower better, as marks from 10 to 99, higher better: the best seen is 80, the worst 20."""

    best: float
    worst: float

    @classmethod
    def of(cls, y: Array) -> Self:
        """The scale of finite targets `y` (n,), n >= 1; where all are equal, they stand in the middle of a span of 1."""
        best, worst = float(y.min()), float(y.max())
        return cls(best, worst) if worst > best else cls(best - 0.5, best + 0.5)

    @property
    def step(self) -> float:
        """What one mark is worth, in the units of the targets."""
        return (self.worst - self.best) / (_BEST_AT - _WORST_AT)

    def mark(self, y: float) -> int:
        """The mark of a target, rounded and held within 10 to 99."""
        return round(min(float(HIGH), max(float(LOW), _BEST_AT - (y - self.best) / self.step)))

    def target(self, mark: float) -> float:
        """The target that has this mark."""
        return self.best + (_BEST_AT - mark) * self.step


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution over marks: a mixture of uniform pieces, each from `low` to `low + width` with probability `p`, (k,) each.

    A piece of width 0 is a point.
    """

    low: Array
    width: Array
    p: Array

    @property
    def mean(self) -> float:
        """Its mean."""
        return float(self.p @ (self.low + self.width / 2))

    @property
    def std(self) -> float:
        """Its standard deviation, that within pieces included."""
        middle = self.low + self.width / 2
        return math.sqrt(max(0.0, float(self.p @ (self.width**2 / 12 + (middle - self.mean) ** 2))))


def of_samples(marks: Sequence[float]) -> Spread | None:
    """Each sample as likely as the others; None without any."""
    n = len(marks)
    return Spread(np.array(marks, dtype=float), np.zeros(n), np.full(n, 1.0 / n)) if n else None


def mixed(spreads: Sequence[Spread]) -> Spread | None:
    """All of them, each with the same weight; None without any."""
    if not spreads:
        return None
    low, width, p = (np.concatenate([getattr(s, name) for s in spreads]) for name in ("low", "width", "p"))
    return Spread(low, width, p / len(spreads))


def of_tokens(tokens: Sequence[TokenLogprob]) -> Spread | None:
    """From the tokens of a reply that holds one mark, and the alternatives at each of its digits; None where it holds none.

    The probability of a digit is shared among the digits that could stand in its place. Where another than the one that was said
    is taken, what would follow is not known, and every second digit is as likely.
    """
    pieces: dict[str, float] = {}
    prefix, mass = "", 1.0
    for token in tokens:
        said = _digits(token.token, 2 - len(prefix))
        if said is None:
            if prefix:
                break
            continue
        likely: dict[str, float] = {}
        for text, logprob in (dict(token.top) | {token.token: token.logprob}).items():
            if (digits := _digits(text, 2 - len(prefix))) is not None and (prefix + digits)[0] != "0":
                likely[digits] = likely.get(digits, 0.0) + math.exp(logprob)
        total = sum(likely.values())
        if said not in likely or total <= 0.0:
            return None
        for digits, p in likely.items():
            pieces[prefix + digits] = pieces.get(prefix + digits, 0.0) + mass * p / total
        prefix, mass = prefix + said, mass * likely[said] / total
        if len(prefix) == 2:
            break
        del pieces[prefix]  # what follows says how it is shared out
    return _spread(pieces) if len(prefix) == 2 else None


def of_scores(score: Callable[[Sequence[str]], Sequence[float]], *, digit_by_digit: bool) -> Spread:
    """From the log-probabilities that `score` gives to texts as the mark, relative to each other.

    Where the model writes `digit_by_digit`, first digits are scored first, and only the likeliest ones with their second digits;
    else all two-digit numbers at once.
    """
    if not digit_by_digit:
        marks = [str(mark) for mark in range(LOW, HIGH + 1)]
        return _spread(dict(zip(marks, _softmax(score(marks)), strict=True)))
    firsts = [str(digit) for digit in range(1, 10)]
    likely = dict(zip(firsts, _softmax(score(firsts)), strict=True))
    ranked = sorted(firsts, key=lambda digit: -likely[digit])
    count = 1 + sum(sum(likely[d] for d in ranked[:k]) < _ENOUGH for k in range(1, _EXPANDED))
    pieces = {digit: likely[digit] for digit in ranked[count:]}
    for first in ranked[:count]:
        texts = [f"{first}{second}" for second in range(10)]
        pieces |= {t: likely[first] * p for t, p in zip(texts, _softmax(score(texts)), strict=True)}
    return _spread(pieces)


def _spread(pieces: dict[str, float]) -> Spread:
    """Digits with their probabilities as pieces: one digit stands for ten marks, two for one."""
    low = np.array([float(text) * 10 ** (2 - len(text)) for text in pieces])
    width = np.array([0.0 if len(text) == 2 else 9.0 for text in pieces])
    p = np.array(list(pieces.values()))
    return Spread(low, width, p / p.sum())


def _softmax(logprobs: Sequence[float]) -> list[float]:
    values = np.asarray(logprobs, dtype=float)
    weights = np.exp(values - values.max())
    return list(map(float, weights / weights.sum()))


def _digits(token: str, most: int) -> str | None:
    """The digits that a token begins with after what is no part of a number; None where there are none, or more than `most`."""
    text = token.lstrip(' \n\t":')
    count = next((i for i, c in enumerate(text) if not "0" <= c <= "9"), len(text))
    return text[:count] if 0 < count <= most else None

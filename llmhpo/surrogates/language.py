"""A language model as a surrogate: it reads the trials as examples and is asked about one configuration at a time.

Source: Liu, Astorga, Seedat and van der Schaar, "Large Language Models to Enhance Bayesian Optimization", ICLR 2024
(arXiv 2402.03921): section 5 (discriminative) and appendix B (generative). Numbers are two-digit marks here (`digits.Scale`), and
where the model tells log-probabilities one answer gives a distribution instead of one of many samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np

from llmhpo.param import Param, ParamValue
from llmhpo.prompts import escape, rough_tokens
from llmhpo.space import Params, SearchSpace
from llmhpo.surrogates.base import Array, Prediction
from llmhpo.surrogates.digits import Scale, Spread, mixed

TOP = 0.25  # of the trials: tau of appendix B
_LEAST_STD = 0.5  # marks
_DIGITS = 4
_EXAMPLE_TOKENS = 700


class Oracle(Protocol):
    """Puts a question about one configuration to a model, within the bill of a consultation."""

    def mark(self, examples: str, query: str) -> Spread | None:
        """The marks that the model gives `query`; None where it gave none."""
        ...

    def chance(self, examples: str, query: str) -> float | None:
        """The probability, in [0, 1], that `query` is among the best; None where the model said neither yes nor no."""
        ...


class DiscriminativeSurrogate:
    """Predicts the target: mean and standard deviation of the marks that the model gives. It keeps the trials, and asks when it predicts."""

    def __init__(self, oracle: Oracle, space: SearchSpace, rng: np.random.Generator, *, orders: int = 1) -> None:
        self._oracle, self._space, self._rng, self._orders = oracle, space, rng, orders
        self._scale = Scale(0.0, 1.0)
        self._lines: list[str] = []

    def fit(self, X: Array, y: Array) -> None:
        """See `Surrogate`: the examples, as many as there is room for, the best and the latest first of all."""
        self._scale = Scale.of(y)
        kept = _kept(X, y, self._space)
        self._lines = [f"{in_words(p)} -> score {self._scale.mark(v)}" for p, v in kept]
        self._prior = Prediction(np.array([y.mean()]), np.array([max(float(y.std()), self._scale.step)]))

    def predict(self, X: Array) -> Prediction:
        """See `Surrogate`. A configuration that the model says nothing about gets mean and spread of what was fitted."""
        mean, std = np.repeat(self._prior.mean, len(X)), np.repeat(self._prior.std, len(X))
        for i, params in enumerate(decode(X, self._space)):
            query = in_words(params)
            said = mixed(
                [s for e in _orders(self._lines, self._orders, self._rng) if (s := self._oracle.mark(e, query))]
            )
            if said is not None:
                mean[i] = self._scale.target(said.mean)
                std[i] = max(said.std, _LEAST_STD) * self._scale.step
        return Prediction(mean, std)


class GenerativeSurrogate:
    """Predicts whether a configuration is among the best quarter of those that were fitted."""

    def __init__(self, oracle: Oracle, space: SearchSpace, rng: np.random.Generator, *, orders: int = 1) -> None:
        self._oracle, self._space, self._rng, self._orders = oracle, space, rng, orders
        self._lines: list[str] = []

    def fit(self, X: Array, y: Array) -> None:
        """See `Surrogate`: the examples, each with its class."""
        bar = float(np.quantile(y, TOP))
        self._lines = [f"{in_words(p)} -> {'yes' if v <= bar else 'no'}" for p, v in _kept(X, y, self._space)]
        good, rest = y[y <= bar], y[y > bar]
        rest = rest if len(rest) else good
        self._means = float(good.mean()), float(rest.mean())
        self._variances = float(good.var()), float(rest.var())
        self._base = len(good) / len(y)

    def probability(self, X: Array) -> Array:
        """Of being among the best quarter, (m,) in [0, 1]; the share of those where the model said nothing."""
        found = np.full(len(X), self._base)
        for i, params in enumerate(decode(X, self._space)):
            query = in_words(params)
            said = [self._oracle.chance(e, query) for e in _orders(self._lines, self._orders, self._rng)]
            if known := [p for p in said if p is not None]:
                found[i] = float(np.mean(known))
        return found

    def predict(self, X: Array) -> Prediction:
        """See `Surrogate`: the mixture of what the best quarter and the others have come to; its order is that of `probability`."""
        p = self.probability(X)
        (good, rest), (within_good, within_rest) = self._means, self._variances
        variance = p * within_good + (1 - p) * within_rest + p * (1 - p) * (good - rest) ** 2
        return Prediction(p * good + (1 - p) * rest, np.sqrt(np.maximum(variance, 1e-18)))


def _kept(X: Array, y: Array, space: SearchSpace) -> list[tuple[Params, float]]:
    """Rows as examples, in the order of the trials: the best half and the latest half of what there is room for."""
    rows = list(zip(decode(X, space), map(float, y), strict=True))
    each = max(rough_tokens(in_words(params)) + 8 for params, _ in rows)
    most = max(3, _EXAMPLE_TOKENS // each)
    best = list(np.argsort(y, kind="stable")[: (most + 1) // 2])
    latest = [i for i in range(len(y) - 1, -1, -1) if i not in best][: most // 2]
    return [rows[i] for i in sorted([*best, *latest])]


def _orders(lines: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """The examples in `n` random orders: what stands last counts more to a model than it should."""
    return ["\n".join(lines[i] for i in rng.permutation(len(lines))) for _ in range(n)]


def in_words(params: Params) -> str:
    """A configuration as JSON on one line, numbers with four significant digits."""
    shown = {name: float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for name, v in params.items()}
    return escape(json.dumps(shown, ensure_ascii=False))


def decode(X: Array, space: SearchSpace) -> list[Params]:
    """The configurations at encoded rows (n, d): the inverse of `SearchSpace.encode`, for rows that it gave."""
    found = []
    for row in X:
        raw: dict[str, object] = {}
        for param, columns in zip(space.params, space.groups, strict=True):
            values = row[list(columns)]
            raw[param.name] = (
                param.choices[int(values.argmax())] if len(columns) > 1 else _value(param, float(values[0]))
            )
        found.append(cast("Params", space.drop_inactive(raw)))
    return found


def _value(param: Param, feature: float) -> ParamValue:
    """The inverse of `Param.to_feature`."""
    if param.choices:
        return param.choices[round(feature * (len(param.choices) - 1))]
    d = param.distribution
    low, high = float(d.low), float(d.high)  # type: ignore[attr-defined]
    value = low * (high / low) ** feature if param.log else low + feature * (high - low)
    step = getattr(d, "step", None)
    value = min(high, max(low, low + round((value - low) / step) * step if step and not param.log else value))
    return param.cast(round(value) if isinstance(d.low, int) else value)  # type: ignore[attr-defined]


MakeSurrogate = Callable[[Oracle, SearchSpace, np.random.Generator], DiscriminativeSurrogate | GenerativeSurrogate]
LANGUAGE_SURROGATES: dict[str, MakeSurrogate] = {
    "llambo:disc": DiscriminativeSurrogate,
    "llambo:gen": GenerativeSurrogate,
}

"""How long a trial will take: learned from those that ended, well or not. No proposer asks it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmhpo.surrogates.base import Array
from llmhpo.surrogates.gp import GaussianProcess, some

_MIN_TRIALS = 4
_MAX_TRIALS = 250
_SHORTEST = 1e-3  # seconds; what takes less takes no time
_UNKNOWN_SPREAD = 3.0


class Cost(NamedTuple):
    """Predicted duration: the median in seconds, and the factor above and below it that holds two trials in three."""

    median: Array
    spread: Array


class CostModel:
    """Seconds of a trial over the encoded space: a Gaussian process on their logarithms.

    Below four trials it answers with their median, without any with one second: then only ratios mean something.
    A trial stopped by a limit of time counts as having taken that long, so durations beyond the limit are not learned.

    Source: for expected improvement per second, Snoek, Larochelle and Adams, NeurIPS 2012, section 3.2.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self._groups = groups
        self._process: GaussianProcess | None = None
        self._median, self._spread = 1.0, _UNKNOWN_SPREAD

    def fit(self, X: Array, seconds: Array) -> None:
        """Fit to `X` (n, d) and the `seconds` (n,) of ended trials; rows whose seconds are not finite are left out."""
        X, seconds = np.asarray(X, dtype=float), np.asarray(seconds, dtype=float)
        known = np.flatnonzero(np.isfinite(seconds))
        known = known[some(len(known), _MAX_TRIALS)]
        logs = np.log(np.maximum(seconds[known], _SHORTEST))
        self._process = None
        self._median, self._spread = 1.0, _UNKNOWN_SPREAD
        if len(known):
            self._median = float(np.exp(np.median(logs)))
        if len(known) >= _MIN_TRIALS:
            self._process = GaussianProcess(self._groups, noisy=True)
            self._process.fit(X[known], logs)
            self._lowest, self._highest = float(logs.min()) - np.log(10.0), float(logs.max()) + np.log(10.0)

    def predict(self, X: Array) -> Cost:
        """Median and spread, each (m,), at `X` (m, d); within a factor of ten of what was seen."""
        if self._process is None:
            return Cost(np.full(len(X), self._median), np.full(len(X), self._spread))
        prediction = self._process.predict(X)
        std = np.sqrt(prediction.std**2 + self._process.noise_std**2)
        return Cost(np.exp(np.clip(prediction.mean, self._lowest, self._highest)), np.exp(std))

"""Posteriors that take fantasies, for surrogates that have none of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from llmhpo.surrogates.base import Array, Prediction

_LENGTH = 0.25  # of the unit range, times sqrt(parameters): how far a fantasy reaches
_LEARNED = 0.9  # of the variance at the point itself


class KernelState:
    """Predictions at m fixed points; `believe` gives those where one was observed at its own mean: variances are lower around it.

    What a Gaussian process does exactly, done with a fixed kernel: a forest does not know how alike two points are.
    """

    def __init__(self, prediction: Prediction, X: Array, groups: Sequence[Sequence[int]]) -> None:
        self.mean, self.variance = prediction.mean, prediction.std**2
        weight = np.empty(X.shape[1])
        for columns in groups:  # two different choices are as far apart as the ends of a range
            weight[list(columns)] = 1.0 if len(columns) == 1 else np.sqrt(0.5)
        self._scale = weight / (_LENGTH * np.sqrt(len(groups)))
        self._X = X

    @property
    def std(self) -> Array:
        """Standard deviations, (m,)."""
        return np.sqrt(self.variance)

    def believe(self, j: int) -> KernelState:
        """The predictions where point `j` was observed at its mean."""
        return self.after(self._X[j : j + 1])

    def after(self, X: Array) -> KernelState:
        """The predictions where all of the points `X` (k, d) were observed at their means."""
        square = cdist(self._X * self._scale, X * self._scale, "sqeuclidean")
        state = copy.copy(self)
        state.variance = self.variance * np.prod(1.0 - _LEARNED * np.exp(-square), axis=1)
        return state

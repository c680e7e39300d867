"""Posteriors that take fantasies, for surrogates that have none of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmhpo.surrogates.base import Array, Prediction

_LENGTH = 0.25  # of the unit range, times sqrt(parameters): how far a fantasy reaches
_LEARNED = 0.9  # of the variance at the point itself


class KernelState:
    """Predictions at m fixed points; `believe` takes one as observed at its own mean and lowers the variances around it.

    What a Gaussian process does exactly, done with a fixed kernel: a forest does not know how alike two points are.
    """

    def __init__(self, prediction: Prediction, X: Array, groups: Sequence[Sequence[int]]) -> None:
        self.mean, self.variance = prediction.mean, prediction.std**2
        weight = np.empty(X.shape[1])
        for columns in groups:  # two different choices are as far apart as the ends of a range
            weight[list(columns)] = 1.0 if len(columns) == 1 else np.sqrt(0.5)
        self._scaled = X * (weight / (_LENGTH * np.sqrt(len(groups))))

    @property
    def std(self) -> Array:
        """Standard deviations, (m,)."""
        return np.sqrt(self.variance)

    def believe(self, j: int) -> None:
        """Take point `j` as observed at its mean."""
        square = ((self._scaled - self._scaled[j]) ** 2).sum(axis=1)
        self.variance = self.variance * (1.0 - _LEARNED * np.exp(-square))

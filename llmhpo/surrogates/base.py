"""What every surrogate model looks like: numbers in, numbers with uncertainty out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Mean and standard deviation, each (n,)."""

    mean: Array
    std: Array


class Posterior(Protocol):
    """Predictions at m fixed points that take fantasies: what a batch is chosen with."""

    @property
    def mean(self) -> Array:
        """Means, (m,)."""
        ...

    @property
    def variance(self) -> Array:
        """Variances, (m,)."""
        ...

    def believe(self, j: int) -> Posterior:
        """The predictions where point `j` was observed at its own mean: variances fall, means stay."""
        ...


class Surrogate(Protocol):
    """A regression model with uncertainty. Lower `y` is better everywhere behind this door."""

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) in [0, 1], as `SearchSpace.encode` gives it, and finite `y` (n,)."""
        ...

    def predict(self, X: Array) -> Prediction:
        """Predict at `X` (m, d), in the units of the `y` that was fitted."""
        ...


class CrossValidated(Surrogate, Protocol):
    """A surrogate that can say how it would have predicted the rows it was fitted to."""

    def held_out(self) -> Prediction:
        """Predictions (n,) of the fitted observations, noise included, each made without the row itself."""
        ...

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


class Surrogate(Protocol):
    """A regression model with uncertainty. Lower `y` is better everywhere behind this door."""

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) in [0, 1], as `SearchSpace.encode` gives it, and finite `y` (n,)."""
        ...

    def predict(self, X: Array) -> Prediction:
        """Predict at `X` (m, d), in the units of the `y` that was fitted."""
        ...

"""A tree-structured Parzen estimator's density ratio as a regression model: where do good trials lie more densely?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from llmhpo.surrogates.base import Array, Prediction

Index = npt.NDArray[np.int64]
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the trials that count as good; the logarithms of the ratios are averaged
_BANDWIDTH = 0.5  # of the unit range, for one point; shrinks as n^(-1 / (p + 4)), Scott's rule
_OTHER_CHOICE = 0.35  # density at another choice of a category, relative to that at the same


class Density:
    """Trials are split into good and bad, each part is smoothed by kernels, and the ratio of the two is the score.

    The ratio alone only ranks. To predict, the targets are regressed on the leave-one-out scores of the fitted rows by
    a straight line that never falls: the mean is that line, the variance the line's residual, growing towards the
    variance of all targets where there are no rows nearby. A uniform component in both densities draws the score to 0
    there. A fit is a function of the data alone.

    Source: Bergstra, Bardenet, Bengio and Kegl, NeurIPS 2011, section 4; joint kernels over all parameters as in BOHB,
    Falkner, Klein and Hutter, ICML 2018.
    """

    def __init__(self, groups: Sequence[Sequence[int]] | None = None) -> None:
        self._groups = None if groups is None else tuple(tuple(g) for g in groups)

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,)."""
        self._X, self._y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        self._parts = []
        order = np.argsort(self._y, kind="stable")
        n = len(order)
        for share in _SHARES:
            k = min(max(1, round(share * n)), n)
            self._parts.append((self._kernel(order[:k]), self._kernel(order[k:])))
        self._nearby = self._kernel(np.arange(n))
        self._score, self._evidence = self._scores(self._X, left_out=True)
        self._line()

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation of an observation at `X` (m, d)."""
        return self._at(*self._scores(np.asarray(X, dtype=float), left_out=False))

    def held_out(self) -> Prediction:
        """Leave-one-out predictions of the fitted rows, (n,); only the line has seen them."""
        return self._at(self._score, self._evidence)

    def _line(self) -> None:
        y, score = self._y, self._score
        self._middle, self._centre = float(y.mean()), float(score.mean())
        off = score - self._centre
        power = float(off @ off)
        slope = float(off @ (y - self._middle)) / power if power > 1e-12 else 0.0
        n = len(y)
        self._slope = max(0.0, slope) * (1.0 - 1.0 / n)
        residual = y - self._middle - self._slope * off
        self._total = float(y.var())
        self._residual = float(residual @ residual) / max(1, n - 2)
        self._floor = 1e-6 * np.sqrt(self._total) + 1e-12

    def _at(self, score: Array, evidence: Array) -> Prediction:
        mean = self._middle + self._slope * (score - self._centre)
        variance = self._residual + max(0.0, self._total - self._residual) / (1.0 + evidence)
        return Prediction(mean, np.sqrt(variance) + self._floor)

    def _kernel(self, rows: Index) -> _Kernel:
        groups = self._groups or tuple((j,) for j in range(self._X.shape[1]))
        return _Kernel.of(self._X, rows, groups)

    def _scores(self, X: Array, *, left_out: bool) -> tuple[Array, Array]:
        """Logarithm of bad over good (m,), and the number of rows nearby (m,)."""
        score = np.zeros(len(X))
        for good, bad in self._parts:
            score += bad.log_density(X, left_out=left_out) - good.log_density(X, left_out=left_out)
        return score / len(self._parts), self._nearby.rows_nearby(X, left_out=left_out)


class _Kernel(NamedTuple):
    """One Parzen estimator: `points` (k, d) in units of the bandwidths, `log_peak` (k,) the kernels' densities there."""

    rows: Index
    points: Array
    log_peak: Array
    factor: Array  # (d,): one over the bandwidth

    @classmethod
    def of(cls, X: Array, rows: Index, groups: Sequence[Sequence[int]]) -> _Kernel:
        h = _BANDWIDTH * max(1, len(rows)) ** (-1.0 / (len(groups) + 4))
        factor, log_peak = np.empty(X.shape[1]), np.zeros(len(rows))
        for columns in groups:
            if len(columns) == 1:
                x = X[rows, columns[0]]
                factor[columns[0]] = 1.0 / h
                log_peak -= np.log(h * np.sqrt(2.0 * np.pi) * (ndtr((1.0 - x) / h) - ndtr(-x / h)))
            else:  # two one-hot rows that differ are sqrt(2) apart
                factor[list(columns)] = np.sqrt(-np.log(_OTHER_CHOICE))
                log_peak += np.log(len(columns) / (1.0 + (len(columns) - 1) * _OTHER_CHOICE))
        return cls(rows, X[rows] * factor, log_peak, factor)

    def log_density(self, X: Array, *, left_out: bool) -> Array:
        """Against the uniform density, (m,); with `left_out` row i of `X` is fitted row i and does not count."""
        total = 1.0 + np.exp(self._log_relative(X, left_out=left_out)) @ np.exp(self.log_peak)
        n = len(self.rows) + 1.0 - (np.isin(np.arange(len(X)), self.rows) if left_out else 0.0)
        out: Array = np.log(total) - np.log(n)
        return out

    def rows_nearby(self, X: Array, *, left_out: bool) -> Array:
        """Rows nearby, each counted by its kernel relative to the peak, (m,)."""
        out: Array = np.exp(self._log_relative(X, left_out=left_out)).sum(axis=1)
        return out

    def _log_relative(self, X: Array, *, left_out: bool) -> Array:
        Z = X * self.factor
        log_k: Array = Z @ self.points.T - 0.5 * (Z * Z).sum(1)[:, None] - 0.5 * (self.points * self.points).sum(1)
        np.minimum(log_k, 0.0, out=log_k)
        if left_out:
            log_k[self.rows, np.arange(len(self.rows))] = -np.inf
        return log_k

"""Conformalised quantile regression: intervals that hold what they promise, whatever the noise looks like."""

from __future__ import annotations

import numpy as np

from llmhpo.surrogates.base import Array, Prediction
from llmhpo.surrogates.forest import Forest, Index, Mask

_LEVELS = (0.159, 0.5, 0.841)  # a normal distribution's mean minus, at, and plus one standard deviation
_COVERAGE = 0.682


class QuantileForest:
    """The quantiles of the rows that share leaves with a point, with a conformal correction of the outer two.

    The mean is the average of the three quantiles `_LEVELS`, the standard deviation half the width of the corrected
    interval. The correction is the one at which the interval would have covered its share of the fitted rows, each
    judged by trees that have not seen it (out-of-bag in the place of a split, so that no row is lost). The guarantee of
    coverage is for exchangeable rows; those of an optimizer are not, so it is a calibration rather than a promise.

    Source: Salinas, Golebiowski, Klein, Seeger and Archambeau, ICML 2023 (arXiv 2305.03623), section 3, with
    quantile forests (Meinshausen, JMLR 2006) in the place of gradient boosting: 9 ms against 515 ms of scikit-learn's three at 100 rows.
    """

    def __init__(self, n_trees: int = 32, min_leaf: int = 3) -> None:
        self._forest = Forest(n_trees=n_trees, min_leaf=min_leaf)

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,)."""
        X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        self._forest.fit(X, y)
        self._order = np.argsort(y, kind="stable")
        self._sorted = y[self._order]
        self._floor = 1e-6 * float(y.std()) + 1e-12
        self._held_out = self._quantiles(self._forest.leaf_of_row, ~self._forest.inside)
        low, _, high = self._held_out
        miss = np.sort(np.maximum(low - y, y - high))
        self._correction = float(miss[min(len(y) - 1, int(np.ceil(_COVERAGE * (len(y) + 1))) - 1)])

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation of an observation at `X` (m, d)."""
        return self._summary(self._quantiles(self._forest.leaves(np.asarray(X, dtype=float))))

    def interval(self, X: Array) -> tuple[Array, Array]:
        """Lower and upper end, each (m,), of the corrected interval that holds 68 % of the observations."""
        low, _, high = self._quantiles(self._forest.leaves(np.asarray(X, dtype=float)))
        middle, half = 0.5 * (low + high), self._half_width(low, high)
        return middle - half, middle + half

    def held_out(self) -> Prediction:
        """What the trees that have not seen a fitted row predict there, (n,); only the correction has seen it."""
        return self._summary(self._held_out)

    def _half_width(self, low: Array, high: Array) -> Array:
        half = 0.5 * (high - low)
        out: Array = np.maximum(half + self._correction, 0.1 * half) + self._floor
        return out

    def _summary(self, quantiles: Array) -> Prediction:
        return Prediction(quantiles.mean(axis=0), self._half_width(quantiles[0], quantiles[2]))

    def _quantiles(self, leaf: Index, counted: Mask | None = None) -> Array:
        """The quantiles `_LEVELS` at points by their leaves (trees, m), (3, m); only trees that are `counted` (trees, m)."""
        from scipy.sparse import csr_array  # a tenth of a second that other surrogates need not wait

        forest, n_trees, m = self._forest, *leaf.shape
        trees = np.ones(leaf.shape) if counted is None or not counted.any(axis=0).all() else counted.astype(float)
        share = trees / trees.sum(axis=0)
        n_nodes = len(forest.leaf_size)
        point = csr_array((share.T.ravel(), leaf.T.ravel(), np.arange(0, m * n_trees + 1, n_trees)), shape=(m, n_nodes))
        size = np.maximum(forest.leaf_size, 1)
        inside = forest.inside
        leaf_of, row = forest.leaf_of_row[inside], np.broadcast_to(np.argsort(self._order), inside.shape)[inside]
        member = csr_array((1.0 / size[leaf_of], (leaf_of, row)), shape=(n_nodes, len(self._sorted)))
        cumulated = np.cumsum((point @ member).toarray(), axis=1)
        last = len(self._sorted) - 1
        return np.array([self._sorted[np.minimum((cumulated < level).sum(axis=1), last)] for level in _LEVELS])

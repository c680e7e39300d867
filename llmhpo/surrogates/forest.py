"""A forest of extremely randomised trees, all grown at once: a second opinion with steps where the process has slopes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmhpo.surrogates.base import Array, Prediction

Index = npt.NDArray[np.int64]


class Forest:
    """Regression by averaging trees whose splits are the best of a few drawn at random.

    A fit is a function of the data alone. The spread is that between trees plus that within leaves; far from the data
    it does not grow, which is the forest's weakness as a guide to exploration.

    Source: Geurts, Ernst and Wehenkel 2006; spread after Hutter, Xu, Hoos and Leyton-Brown 2014, equation 8.
    """

    def __init__(self, n_trees: int = 64, n_splits: int = 4, min_leaf: int = 2, max_depth: int = 12) -> None:
        self._n_trees, self._n_splits, self._min_leaf, self._max_depth = n_trees, n_splits, min_leaf, max_depth

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,)."""
        X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        rng = np.random.default_rng([len(X), X.shape[1]])
        # Nodes of all trees in one list: node k < n_trees is the root of tree k. A leaf points to itself.
        node = np.repeat(np.arange(self._n_trees), len(X))  # of each (tree, row)
        row = np.tile(np.arange(len(X)), self._n_trees)
        n_nodes = self._n_trees
        feature, threshold, child = [np.zeros(n_nodes, int)], [np.full(n_nodes, np.inf)], [np.arange(n_nodes)]
        level_start = 0
        for _ in range(self._max_depth):
            width = n_nodes - level_start
            split = _best_split(X, y, row, node - level_start, width, self._n_splits, self._min_leaf, rng)
            live = np.flatnonzero(split.gain > 0)
            if len(live) == 0:
                break
            children = np.full(width, -1)
            children[live] = n_nodes + 2 * np.arange(len(live))
            feature[-1][live], threshold[-1][live] = split.feature[live], split.threshold[live]
            child[-1][live] = children[live]
            inside = children[node - level_start] >= 0
            node, row = node[inside], row[inside]
            local = node - level_start
            node = children[local] + (X[row, split.feature[local]] > split.threshold[local])
            level_start, n_nodes = n_nodes, n_nodes + 2 * len(live)
            feature.append(np.zeros(2 * len(live), int))
            threshold.append(np.full(2 * len(live), np.inf))
            child.append(np.arange(level_start, n_nodes))
        self._feature, self._threshold = np.concatenate(feature), np.concatenate(threshold)
        self._child = np.concatenate(child)
        leaf = self._leaves(X).ravel()
        values = np.tile(y, self._n_trees)
        count = np.maximum(np.bincount(leaf, minlength=n_nodes), 1)
        self._mean = np.bincount(leaf, values, n_nodes) / count
        self._variance = np.bincount(leaf, (values - self._mean[leaf]) ** 2, n_nodes) / count
        self._floor = 1e-6 * float(y.std()) + 1e-12

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation at `X` (m, d)."""
        leaf = self._leaves(np.asarray(X, dtype=float))
        means = self._mean[leaf]
        variance = means.var(axis=0) + self._variance[leaf].mean(axis=0)
        return Prediction(means.mean(axis=0), np.sqrt(variance) + self._floor)

    def _leaves(self, X: Array) -> Index:
        """The leaf of each row in each tree, (trees, m)."""
        node = np.repeat(np.arange(self._n_trees)[:, None], len(X), axis=1)
        column = np.arange(len(X))[None, :]
        for _ in range(self._max_depth):
            right = X[column, self._feature[node]] > self._threshold[node]
            node = self._child[node] + right
        return node


class _Split:
    __slots__ = ("feature", "gain", "threshold")

    def __init__(self, feature: Index, threshold: Array, gain: Array) -> None:
        self.feature, self.threshold, self.gain = feature, threshold, gain


def _best_split(
    X: Array, y: Array, row: Index, local: Index, width: int, n_splits: int, min_leaf: int, rng: np.random.Generator
) -> _Split:
    """For each of `width` nodes the best of `n_splits` random splits; gain 0 where there is none worth making."""
    best = _Split(np.zeros(width, int), np.full(width, np.inf), np.zeros(width))
    total = np.bincount(local, minlength=width)
    sums = np.bincount(local, y[row], width)
    for _ in range(n_splits):
        feature = rng.integers(X.shape[1], size=width)
        x = X[row, feature[local]]
        low, high = np.full(width, np.inf), np.full(width, -np.inf)
        np.minimum.at(low, local, x)
        np.maximum.at(high, local, x)
        finite = total > 0
        threshold = np.where(finite, low, 0.0) + rng.random(width) * np.where(finite, high - low, 0.0)
        left = x <= threshold[local]
        n_left = np.bincount(local[left], minlength=width)
        sum_left = np.bincount(local[left], y[row[left]], width)
        n_right, sum_right = total - n_left, sums - sum_left
        fits = (n_left >= min_leaf) & (n_right >= min_leaf)
        gain = (
            sum_left**2 / np.maximum(n_left, 1) + sum_right**2 / np.maximum(n_right, 1) - sums**2 / np.maximum(total, 1)
        )
        better = fits & (gain > best.gain + 1e-12)
        best.feature[better], best.threshold[better], best.gain[better] = (
            feature[better],
            threshold[better],
            gain[better],
        )
    return best

"""A forest of extremely randomised trees, all grown at once: a second opinion with steps where the process has slopes.

Own code because the measured table of `evals/bench_surrogates.py` says so: scikit-learn's `ExtraTreesRegressor` and
`RandomForestRegressor` with as many trees predict about as well and take 1.6 to 4 times as long (22 and 30 ms against 11 at
100 rows with 2,500 candidates), most of it spent on making a Python object a tree. An ask must stay below 60 ms in all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmhpo.surrogates.base import Array, Prediction

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_LEFT_OUT = 0.25  # of the rows, from each tree


class Forest:
    """Regression by averaging trees whose splits are the best of a few drawn at random.

    A fit is a function of the data alone. The spread is that between trees plus that within leaves; far from the data
    it does not grow, which is the forest's weakness as a guide to exploration. Each tree leaves out a quarter of the
    rows, so that `held_out` has predictions of every row by trees that have not seen it.

    Source: Geurts, Ernst and Wehenkel 2006; spread after Hutter, Xu, Hoos and Leyton-Brown 2014, equation 8.
    """

    def __init__(self, n_trees: int = 32, n_splits: int = 8, min_leaf: int = 2, max_depth: int = 12) -> None:
        self._n_trees, self._n_splits, self._min_leaf, self._max_depth = n_trees, n_splits, min_leaf, max_depth

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,)."""
        X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        rng = np.random.default_rng([len(X), X.shape[1]])
        self._y = y
        self._inside = _rows_of_trees(len(X), self._n_trees, rng)
        self._grow(X, y, rng)
        self.leaf_of_row = self.leaves(X)
        n_nodes = len(self._child)
        leaf = self.leaf_of_row[self._inside]
        values = np.broadcast_to(y, self._inside.shape)[self._inside]
        self.leaf_size = np.bincount(leaf, minlength=n_nodes)
        count = np.maximum(self.leaf_size, 1)
        self._mean = np.bincount(leaf, values, n_nodes) / count
        self._variance = np.bincount(leaf, (values - self._mean[leaf]) ** 2, n_nodes) / count
        self._floor = 1e-6 * float(y.std()) + 1e-12

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation at `X` (m, d)."""
        leaf = self.leaves(np.asarray(X, dtype=float))
        means = self._mean.take(leaf)
        mean = means.mean(axis=0)
        variance = np.maximum(np.einsum("ij,ij->j", means, means) / len(means) - mean**2, 0.0)
        variance += self._variance.take(leaf).mean(axis=0)
        return Prediction(mean, np.sqrt(variance) + self._floor)

    def held_out(self) -> Prediction:
        """What the trees that have not seen a fitted row predict there, (n,)."""
        unseen = ~self._inside
        if not unseen.any(axis=0).all():  # one row
            return Prediction(np.full(len(self._y), self._y.mean()), np.full(len(self._y), self._y.std() + self._floor))
        weight = unseen / unseen.sum(axis=0)
        means = self._mean[self.leaf_of_row]
        mean = (weight * means).sum(axis=0)
        variance = (weight * ((means - mean) ** 2 + self._variance[self.leaf_of_row])).sum(axis=0)
        return Prediction(mean, np.sqrt(variance) + self._floor)

    def leaves(self, X: Array) -> Index:
        """The leaf of each row of `X` (m, d) in each tree, (trees, m)."""
        m, d = X.shape
        flat = np.ascontiguousarray(X).ravel()
        start = np.tile(np.arange(m) * d, self._n_trees)
        node = np.repeat(np.arange(self._n_trees), m)
        for _ in range(self._depth):
            right = flat.take(start + self._feature.take(node)) > self._threshold.take(node)
            node = self._child.take(node) + right
        return node.reshape(self._n_trees, m)

    @property
    def inside(self) -> Mask:
        """Which rows each tree was grown from, (trees, n)."""
        return self._inside

    def _grow(self, X: Array, y: Array, rng: np.random.Generator) -> None:
        # Nodes of all trees in one list: node k < n_trees is the root of tree k. A leaf points to itself.
        node, row = (k.astype(np.int64) for k in np.nonzero(self._inside))  # of each (tree, row)
        n_nodes = self._n_trees
        feature, threshold, child = [np.zeros(n_nodes, int)], [np.full(n_nodes, np.inf)], [np.arange(n_nodes)]
        level_start, self._depth = 0, 0
        for _ in range(self._max_depth):
            width = n_nodes - level_start
            split = _best_split(X, y, row, node - level_start, width, self._n_splits, self._min_leaf, rng)
            live = np.flatnonzero(split.gain > 0)
            if len(live) == 0:
                break
            self._depth += 1
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


class _Split(NamedTuple):
    feature: Index
    threshold: Array
    gain: Array


def _rows_of_trees(n: int, n_trees: int, rng: np.random.Generator) -> Mask:
    """Which rows each tree sees, (trees, n): every tree leaves out the same number, every row nearly as many trees."""
    out = int(_LEFT_OUT * n) if n >= 4 else (1 if n > 1 else 0)
    inside = np.ones((n_trees, n), dtype=bool)
    if out:
        needed = -(-n_trees * out // n)
        order = np.concatenate([rng.permutation(n) for _ in range(needed + 1)])[: n_trees * out]
        inside[np.repeat(np.arange(n_trees), out), order] = False
    return inside


def _best_split(
    X: Array, y: Array, row: Index, local: Index, width: int, n_splits: int, min_leaf: int, rng: np.random.Generator
) -> _Split:
    """For each of `width` nodes the best of `n_splits` random splits; gain 0 where there is none worth making."""
    best = _Split(np.zeros(width, int), np.full(width, np.inf), np.zeros(width))
    order = np.argsort(local, kind="stable")  # rows of one node side by side: minima by `reduceat`
    local, row = local[order], row[order]
    total = np.bincount(local, minlength=width)
    values = y[row]
    sums = np.bincount(local, values, width)
    filled = np.flatnonzero(total)
    starts = np.cumsum(total[filled]) - total[filled]
    base = sums**2 / np.maximum(total, 1)
    for _ in range(n_splits):
        feature = rng.integers(X.shape[1], size=width)
        x = X[row, feature[local]]
        low, high = np.zeros(width), np.zeros(width)
        low[filled], high[filled] = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
        threshold = low + rng.random(width) * (high - low)
        left = x <= threshold[local]
        n_left = np.bincount(local, left, width)
        sum_left = np.bincount(local, left * values, width)
        n_right, sum_right = total - n_left, sums - sum_left
        fits = (n_left >= min_leaf) & (n_right >= min_leaf)
        gain = sum_left**2 / np.maximum(n_left, 1) + sum_right**2 / np.maximum(n_right, 1) - base
        better = fits & (gain > best.gain + 1e-12)
        for kept, new in zip(best, (feature, threshold, gain), strict=True):
            kept[better] = new[better]
    return best

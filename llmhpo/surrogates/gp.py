"""A Gaussian process small enough to fit at every ask: ARD Matern-5/2, MAP hyperparameters, analytic gradients.

Own numerics because the measured table of `evals/bench_gp.py` says so: equal fits at a fraction of BoTorch's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize

from llmhpo.surrogates.base import Array, Prediction

Index = npt.NDArray[np.int64]
_SQRT5 = np.sqrt(5.0)
# Gaussian priors on the logarithms, for targets of unit variance: (mean, standard deviation).
_LENGTH_PRIOR = (np.log(0.5), 0.8)  # the mean grows with sqrt(d) on top
_SIGNAL_PRIOR = (0.0, 0.7)
_NOISE_PRIOR = (np.log(1e-3), 1.5)
_LEARNED_NOISE_PRIOR = (np.log(0.1), 1.5)  # where the task is said to be noisy
LENGTH_BOUNDS = (np.log(5e-3), np.log(300.0))
SIGNAL_BOUNDS = (np.log(0.05), np.log(20.0))
NOISE_BOUNDS = (np.log(1e-6), np.log(1.0))
_MAX_ITERATIONS = 30
_MAX_FITTED = 150  # points that hyperparameters are fitted to; beyond, more cost time and change little


class Hyperparameters(NamedTuple):
    """Length-scales, one a parameter (p,), and the variances of signal and noise, for targets of unit variance."""

    lengths: Array
    signal: float
    noise: float


class GaussianProcess:
    """Regression with uncertainty on up to a few hundred points.

    `groups` lists the columns of each parameter (`SearchSpace.groups`): the columns of one category share a length-scale
    and count half, so that two different choices are 1 apart. Without `groups` each column is a parameter. A fit is a
    function of the data alone. It costs O(n^3): hand it a subset of large data. With `noisy` the noise is learned from a
    wide prior; else it is taken for small.

    Source: length-scale priors that grow with sqrt(d), Hvarfner, Hellsten and Nardi, ICML 2024 (arXiv 2402.02229).
    """

    def __init__(self, groups: Sequence[Sequence[int]] | None = None, *, noisy: bool = False) -> None:
        self._noisy = noisy
        self._groups = None if groups is None else tuple(tuple(g) for g in groups)

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,); n = 1, repeated rows and constant `y` are fine."""
        X = np.asarray(X, dtype=float)
        z = self._standardise(X, y)
        few = some(len(z), _MAX_FITTED)
        self._condition(X, z, _fit_hyperparameters(self._columns, X[few], z[few], noisy=self._noisy))

    def fit_known(self, X: Array, y: Array, hyperparameters: Hyperparameters) -> None:
        """Fit to `X` (n, d) and finite `y` (n,) with hyperparameters found elsewhere."""
        X = np.asarray(X, dtype=float)
        self._condition(X, self._standardise(X, y), hyperparameters)

    def _standardise(self, X: Array, y: Array) -> Array:
        """Targets of unit variance (n,)."""
        y = np.asarray(y, dtype=float)
        groups = self._groups if self._groups is not None else tuple((j,) for j in range(X.shape[1]))
        self._columns = _Columns.of(groups)
        self._shift = float(y.mean())
        spread = float(y.std())
        self._scale = spread if spread > 1e-12 * max(1.0, abs(self._shift)) else 1.0
        z: Array = (y - self._shift) / self._scale
        return z

    def _condition(self, X: Array, z: Array, hyperparameters: Hyperparameters) -> None:
        self.hyperparameters, self._z = hyperparameters, z
        self._scaled = self._columns.scale(X, hyperparameters.lengths)
        K = self._kernel_scaled(self._scaled, self._scaled)
        K[np.diag_indices_from(K)] += self.hyperparameters.noise
        self._L = _cholesky(K)
        self._alpha = solve_triangular(
            self._L,
            solve_triangular(self._L, self._z, lower=True, check_finite=False),
            lower=True,
            trans=1,
            check_finite=False,
        )

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation of the noiseless function at `X` (m, d)."""
        state = self.state(X)
        return Prediction(state.mean, np.sqrt(state.variance))

    def held_out(self) -> Prediction:
        """Leave-one-out predictions of the fitted observations, (n,); only the hyperparameters have seen them.

        Source: Rasmussen and Williams 2006, equation 5.12.
        """
        inverse = np.diag(lapack.dpotri(self._L, lower=1)[0])
        mean = self._shift + self._scale * (self._z - self._alpha / inverse)
        return Prediction(mean, self._scale / np.sqrt(inverse))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of an observation, in the units of `y`."""
        return self._scale * float(np.sqrt(self.hyperparameters.noise))

    def state(self, X: Array) -> State:
        """The posterior at `X` (m, d), in a form that takes further observations without a new fit."""
        scaled, K, V = self._whitened(X)
        variance = np.maximum(self.hyperparameters.signal - np.einsum("ij,ij->j", V, V), 1e-10)
        return State(self, scaled, self._shift + self._scale * (self._alpha @ K), variance * self._scale**2, V)

    def points(self, X: Array) -> tuple[Array, Array]:
        """Points `X` (k, d) as `State.after` takes them: scaled, (k, d), and their whitened covariances with the data, (n, k)."""
        scaled, _, V = self._whitened(X)
        return scaled, V

    def _whitened(self, X: Array) -> tuple[Array, Array, Array]:
        scaled = self._columns.scale(np.asarray(X, dtype=float), self.hyperparameters.lengths)
        K = self._kernel_scaled(self._scaled, scaled)
        return scaled, K, solve_triangular(self._L, K, lower=True, check_finite=False)

    def _kernel_scaled(self, A: Array, B: Array) -> Array:
        # In place: arrays of this size are else returned to the system and fetched again, at three times the time.
        s = A @ B.T
        s *= -10.0
        s += 5.0 * (A * A).sum(axis=1)[:, None]
        s += 5.0 * (B * B).sum(axis=1)
        np.maximum(s, 0.0, out=s)  # 5 r^2
        K: Array = s / 3.0
        np.sqrt(s, out=s)
        K += s
        K += 1.0
        np.negative(s, out=s)
        np.exp(s, out=s)
        K *= s
        K *= self.hyperparameters.signal
        return K


class State:
    """Posterior at m fixed points; `believe` gives that where one of them was observed at its own mean (a fantasy).

    Such an observation leaves every mean as it is and lowers the variances only, so a batch costs no refit.

    Source: kriging believer, Ginsbourger, Le Riche and Carraro 2010.
    """

    def __init__(self, gp: GaussianProcess, scaled: Array, mean: Array, variance: Array, V: Array) -> None:
        self.mean, self.variance = mean, variance
        self._gp, self._scaled, self._V = gp, scaled, V

    @property
    def std(self) -> Array:
        """Standard deviations, (m,)."""
        return np.sqrt(self.variance)

    def believe(self, j: int) -> State:
        """The posterior where point `j` was observed at its mean."""
        return self.after(self._scaled[j : j + 1], self._V[:, j : j + 1])

    def after(self, scaled: Array, V: Array) -> State:
        """The posterior where all of k points were observed at their means, given as `GaussianProcess.points` gives them."""
        gp = self._gp
        own = gp._kernel_scaled(scaled, scaled) - V.T @ V
        diagonal = np.diag_indices_from(own)
        own[diagonal] = np.maximum(own[diagonal], 1e-10) + gp.hyperparameters.noise
        cross = gp._kernel_scaled(scaled, self._scaled) - V.T @ self._V
        v = solve_triangular(_cholesky(own), cross, lower=True, check_finite=False)
        variance = np.maximum(self.variance - np.einsum("ij,ij->j", v, v) * gp._scale**2, 1e-10 * gp._scale**2)
        return State(gp, self._scaled, self.mean, variance, np.vstack([self._V, v]))


class _Columns:
    """How columns form parameters: which parameter a column belongs to, and its weight in the squared distance."""

    def __init__(self, owner: Array, weight: Array, count: int) -> None:
        self.owner, self.weight, self.count = owner.astype(int), weight, count

    @classmethod
    def of(cls, groups: Sequence[Sequence[int]]) -> _Columns:
        width = max(c for g in groups for c in g) + 1
        owner, weight = np.zeros(width), np.ones(width)
        for p, columns in enumerate(groups):
            owner[list(columns)] = p
            weight[list(columns)] = 1.0 if len(columns) == 1 else np.sqrt(0.5)
        return cls(owner, weight, len(groups))

    def scale(self, X: Array, lengths: Array) -> Array:
        scaled: Array = X * (self.weight / lengths[self.owner])
        return scaled

    def pair_distances(self, X: Array, i: Index, j: Index) -> Array:
        """Squared distance of each pair in each parameter, (p, pairs)."""
        W = (X * self.weight).T
        D = np.zeros((self.count, len(i)))
        for column, p in zip(W, self.owner, strict=True):
            D[p] += (column[i] - column[j]) ** 2
        return D


def prior(p: int, *, noisy: bool) -> tuple[Array, Array]:
    """Means and standard deviations of the logarithms of `p` length-scales, of signal and of noise, each (p + 2,)."""
    noise = _LEARNED_NOISE_PRIOR if noisy else _NOISE_PRIOR
    means = np.array([_LENGTH_PRIOR[0] + 0.5 * np.log(p)] * p + [_SIGNAL_PRIOR[0], noise[0]])
    return means, np.array([_LENGTH_PRIOR[1]] * p + [_SIGNAL_PRIOR[1], noise[1]])


def some(n: int, limit: int) -> Index:
    """Indices of at most `limit` of `n` points: all of them, or a sample that is the same each time."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(n).choice(n, limit, replace=False))


def _cholesky(K: Array) -> Array:
    """Lower factor of `K`, with as little jitter as it takes."""
    jitter = 0.0
    for exponent in range(-10, 1):
        L, info = lapack.dpotrf(K + jitter * np.eye(len(K)) if jitter else K, lower=1, clean=1)
        if info == 0:
            return L  # type: ignore[no-any-return]
        jitter = 10.0**exponent
    raise AssertionError("a kernel matrix with unit jitter is positive definite")


def _fit_hyperparameters(columns: _Columns, X: Array, z: Array, *, noisy: bool) -> Hyperparameters:
    """Maximum a posteriori in the logarithms, by L-BFGS from the prior's mean."""
    i, j = (k.astype(np.int64) for k in np.triu_indices(len(z), 1))
    D = columns.pair_distances(X, i, j)
    p = columns.count
    means, widths = prior(p, noisy=noisy)
    bounds = [LENGTH_BOUNDS] * p + [SIGNAL_BOUNDS, NOISE_BOUNDS]
    if len(z) > 1:

        def objective(theta: Array) -> tuple[float, Array]:
            value, gradient = _negative_log_likelihood(theta, D, i, j, z)
            off = (theta - means) / widths
            return value + 0.5 * float(off @ off), gradient + off / widths

        found = minimize(
            objective,
            means,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": _MAX_ITERATIONS, "ftol": 1e-4},
        )
        means = found.x
    return Hyperparameters(np.exp(means[:p]), float(np.exp(means[p])), float(np.exp(means[p + 1])))


def _negative_log_likelihood(theta: Array, D: Array, i: Index, j: Index, z: Array) -> tuple[float, Array]:
    """Value and gradient in the logarithms of lengths (p,), signal and noise; `D` (p, pairs) squared distances."""
    p, n = len(D), len(z)
    weights = np.exp(-2.0 * theta[:p])
    signal, noise = float(np.exp(theta[p])), float(np.exp(theta[p + 1]))
    s = _SQRT5 * np.sqrt(weights @ D)
    e = np.exp(-s)
    correlation = (1.0 + s + s * s / 3.0) * e
    K = np.zeros((n, n), order="F")
    K[j, i] = signal * correlation
    K[np.diag_indices(n)] = signal + noise
    L, info = lapack.dpotrf(K, lower=1, clean=0)
    if info != 0:
        K[np.diag_indices(n)] += 1e-6
        L, info = lapack.dpotrf(K, lower=1, clean=0)
        if info != 0:
            return 1e10, np.zeros_like(theta)
    alpha = lapack.dpotrs(L, z, lower=1)[0]
    inverse = lapack.dpotri(L, lower=1)[0]
    value = 0.5 * float(z @ alpha) + float(np.log(np.diag(L)).sum())
    off = inverse[j, i] - alpha[j] * alpha[i]
    trace = float(np.diag(inverse).sum() - alpha @ alpha)
    gradient = np.empty_like(theta)
    gradient[:p] = weights * (D @ (off * ((5.0 / 3.0) * signal) * (1.0 + s) * e))
    gradient[p] = signal * (0.5 * trace + float(off @ correlation))
    gradient[p + 1] = 0.5 * noise * trace
    return value, gradient

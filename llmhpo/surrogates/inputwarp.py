"""A Gaussian process on bent axes: a learning rate may matter much at one end of its range and little at the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack
from scipy.optimize import minimize

from llmhpo.surrogates.base import Array, Prediction
from llmhpo.surrogates.gp import (
    LENGTH_BOUNDS,
    NOISE_BOUNDS,
    SIGNAL_BOUNDS,
    GaussianProcess,
    Hyperparameters,
    State,
    prior,
    some,
)

Index = npt.NDArray[np.int64]
_BEND_PRIOR = 0.35  # standard deviation of the logarithms of both exponents, around 0: an axis that is not bent
_BEND_BOUNDS = (-2.0, 2.0)
_MAX_ITERATIONS = 20
_MAX_FITTED = 150  # points that hyperparameters are fitted to
_EDGE = 1e-6  # positions are kept that far from 0 and 1, where slopes are infinite


class InputWarp(NamedTuple):
    """The map x -> 1 - (1 - x^a)^b of some columns of [0, 1] onto itself; `a`, `b` (w,), both 1 where nothing bends.

    Source: Kumaraswamy's distribution function, as in Snoek, Swersky, Zemel and Adams, ICML 2014.
    """

    columns: Index
    a: Array
    b: Array

    def __call__(self, X: Array) -> Array:
        """Bent positions of `X` (n, d)."""
        out = np.array(X, dtype=float)
        out[:, self.columns] = 1.0 - (1.0 - np.clip(out[:, self.columns], _EDGE, 1.0 - _EDGE) ** self.a) ** self.b
        return out


class WarpedProcess:
    """`GaussianProcess` after an `InputWarp`, whose exponents are found together with the other hyperparameters.

    Columns of categories, and those with fewer than three values among the fitted rows, are left as they are.
    A fit is a function of the data alone.

    Source: maximum a posteriori with a log-normal prior on the exponents, as HEBO does it (Cowen-Rivers et al., JAIR
    2022, arXiv 2012.03826, section 4.1).
    """

    def __init__(self, groups: Sequence[Sequence[int]] | None = None, *, noisy: bool = False) -> None:
        self._noisy = noisy
        self._groups = None if groups is None else tuple(tuple(g) for g in groups)
        self._process = GaussianProcess(groups)

    def fit(self, X: Array, y: Array) -> None:
        """Fit to `X` (n, d) and finite `y` (n,); n = 1, repeated rows and constant `y` are fine."""
        self.fit_known(X, y, self.tune(X, y))

    def tune(self, X: Array, y: Array) -> tuple[InputWarp, Hyperparameters]:
        """The most probable warp and hyperparameters given `X` (n, d) and finite `y` (n,), without a fit."""
        X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        groups = self._groups if self._groups is not None else tuple((j,) for j in range(X.shape[1]))
        few = some(len(y), _MAX_FITTED)
        spread = float(y.std())
        z = (y - y.mean()) / (spread if spread > 1e-12 * max(1.0, abs(float(y.mean()))) else 1.0)
        return _fit(X[few], z[few], groups, noisy=self._noisy)

    def fit_known(self, X: Array, y: Array, tuned: tuple[InputWarp, Hyperparameters]) -> None:
        """Fit to `X` (n, d) and finite `y` (n,) with what `tune` gave, for these data or others."""
        self.warp, self.hyperparameters = tuned
        self._process.fit_known(self.warp(np.asarray(X, dtype=float)), np.asarray(y, dtype=float), self.hyperparameters)

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation of the noiseless function at `X` (m, d)."""
        return self._process.predict(self.warp(X))

    def state(self, X: Array) -> State:
        """The posterior at `X` (m, d), in a form that takes further observations without a new fit."""
        return self._process.state(self.warp(X))

    def points(self, X: Array) -> tuple[Array, Array]:
        """See `GaussianProcess.points`."""
        return self._process.points(self.warp(X))

    def held_out(self) -> Prediction:
        """Leave-one-out predictions of the fitted observations, (n,); only the hyperparameters have seen them."""
        return self._process.held_out()

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of an observation, in the units of `y`."""
        return self._process.noise_std


def _fit(X: Array, z: Array, groups: Sequence[Sequence[int]], *, noisy: bool) -> tuple[InputWarp, Hyperparameters]:
    """The most probable warp and hyperparameters for targets `z` of unit variance."""
    p = len(groups)
    columns = np.array([g[0] for g in groups if len(g) == 1 and len(np.unique(X[:, g[0]])) > 2], dtype=np.int64)
    w = len(columns)
    means, widths = prior(p, noisy=noisy)
    means, widths = np.append(means, np.zeros(2 * w)), np.append(widths, np.full(2 * w, _BEND_PRIOR))
    if len(z) > 1:
        found = minimize(
            _posterior(X, z, groups, columns, means, widths),
            means,
            jac=True,
            method="L-BFGS-B",
            bounds=[LENGTH_BOUNDS] * p + [SIGNAL_BOUNDS, NOISE_BOUNDS] + [_BEND_BOUNDS] * (2 * w),
            options={"maxiter": _MAX_ITERATIONS, "ftol": 1e-4},
        )
        means = found.x
    values = np.exp(means)
    warp = InputWarp(columns, values[p + 2 : p + 2 + w], values[p + 2 + w :])
    return warp, Hyperparameters(values[:p], float(values[p]), float(values[p + 1]))


def _posterior(
    X: Array, z: Array, groups: Sequence[Sequence[int]], columns: Index, means: Array, widths: Array
) -> Callable[[Array], tuple[float, Array]]:
    """Negative logarithm of the posterior density and its gradient, in the logarithms of lengths, signal, noise, a, b."""
    p, w, d = len(groups), len(columns), X.shape[1]
    weight, owner = np.ones(d), np.zeros((p, d))
    for k, group in enumerate(groups):
        weight[list(group)] = 1.0 if len(group) == 1 else np.sqrt(0.5)
        owner[k, list(group)] = 1.0
    log_x = np.log(np.clip(X[:, columns], _EDGE, 1.0 - _EDGE))
    bent = np.array(X, dtype=float)

    def value_and_gradient(theta: Array) -> tuple[float, Array]:
        a, b = np.exp(theta[p + 2 : p + 2 + w]), np.exp(theta[p + 2 + w :])
        power = np.exp(a * log_x)
        rest = np.maximum(1.0 - power, 1e-12)
        tail = rest**b
        bent[:, columns] = 1.0 - tail
        scale = weight * (np.exp(-theta[:p]) @ owner)
        found = _likelihood(bent * scale, z, float(np.exp(theta[p])), float(np.exp(theta[p + 1])))
        if found is None:
            return 1e10, np.zeros_like(theta)
        value, by_point, by_signal, by_noise = found
        by_bent = by_point[:, columns] * scale[columns]
        gradient = np.concatenate(
            [
                -owner @ (bent * scale * by_point).sum(axis=0),
                [by_signal, by_noise],
                a * (by_bent * (b * (tail / rest) * power * log_x)).sum(axis=0),
                -b * (by_bent * tail * np.log(rest)).sum(axis=0),
            ]
        )
        off = (theta - means) / widths
        return value + 0.5 * float(off @ off), gradient + off / widths

    return value_and_gradient


class _Gradient(NamedTuple):
    value: float
    by_point: Array  # (n, d)
    by_log_signal: float
    by_log_noise: float


def _likelihood(Z: Array, z: Array, signal: float, noise: float) -> _Gradient | None:
    """Negative log-likelihood of targets at scaled points `Z` (n, d), and its gradient; None where it has no factor.

    The gradient by the points costs two products with an (n, n) matrix, however many parameters bend and stretch them.
    All is done in place: arrays of this size are else returned to the system and fetched again, at twice the time.
    """
    n = len(z)
    square = (Z * Z).sum(axis=1)
    s = Z @ Z.T
    s *= -10.0
    s += 5.0 * square[:, None]
    s += 5.0 * square
    np.maximum(s, 0.0, out=s)
    K = s * (signal / 3.0)
    np.sqrt(s, out=s)
    slope = np.exp(-s)  # becomes signal * (1 + s) exp(-s)
    K *= slope
    s += 1.0
    slope *= s
    slope *= signal
    K += slope
    K[np.diag_indices(n)] = signal + noise
    L, info = lapack.dpotrf(K.T, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        return None
    alpha = lapack.dpotrs(L, z, lower=1)[0]
    value = 0.5 * float(z @ alpha) + float(np.log(np.diag(L)).sum())
    pull = lapack.dpotri(L, lower=1, overwrite_c=1)[0]
    trace = float(np.trace(pull) - alpha @ alpha)
    pull -= np.outer(alpha, alpha)
    pull *= slope.T
    moved = (5.0 / 3.0) * blas.dsymm(1.0, pull, np.column_stack([Z, np.ones(n)]), lower=1)
    by_point = moved[:, :-1] - moved[:, -1:] * Z
    return _Gradient(value, by_point, 0.5 * (n - float(z @ alpha) - noise * trace), 0.5 * noise * trace)

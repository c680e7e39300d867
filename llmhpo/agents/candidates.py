"""Where the classical engine looks: points of the unit cube from several generators, to be ranked together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llmhpo.columns import Columns, columns, row_bytes
from llmhpo.space import SearchSpace
from llmhpo.surrogates.screen import Field, Screen
from llmhpo.trial import Context
from llmhpo.view import View, view_of

Array = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]

GLOBAL = 1024  # a space with fewer configurations is listed whole
_LOCAL = 512
_ADAPTED = 128
_FROM_PRIOR = 128
_INCUMBENTS = 5
_MOST_RANKED = 250
_CLIMB_ROUNDS, _CLIMB_STARTS, _CLIMB_STEPS = 3, 8, 24
_CROWD, _CROWD_EACH = 384, 96  # candidates for many, of all generators together and of each alone
_ELITE, _SPREAD = 0.2, 0.1  # gamma and alpha of the warm start of CMA-ES
_FEWEST_FOR_CMA = 5


class Pool(NamedTuple):
    """Candidates: points of the unit cube (m, p), their encoding (m, d), who generated each (m,); acquisition and what the
    prior adds to it, (m,) each."""

    U: Array
    X: Array
    source: Names
    acquisition: Array
    log_prior: Array


def candidates(context: Context, screen: Screen, rng: np.random.Generator) -> Pool:
    """Points of all generators with their acquisition; none tried before, no two alike. The screen must have a fit.

    "sobol": everywhere; "neighbour": near the best trials; "cmaes": a CMA-ES warm-started with the trials; "prior": where
    the model's words say; "gp": hill climbing on the acquisition from the best of all these.
    """
    space = context.space
    moves, table = _Moves(space), columns(context)
    best = table.units[table.results.ok[table.results.ranked[:_MOST_RANKED]]]
    starts = best[np.minimum(rng.geometric(0.4, _LOCAL) - 1, min(len(best), _INCUMBENTS) - 1)]
    drawn = {
        "sobol": everywhere(space, rng),
        "neighbour": moves.neighbours(starts, rng),
        "cmaes": _adapted(best, len(table.results.ok), moves, rng),
    }
    if context.prior is not None:
        drawn["prior"] = context.prior.sample(space, rng, _FROM_PRIOR)
    names = np.repeat(list(drawn), [len(U) for U in drawn.values()])
    newcomers = _Newcomers(table, screen, view_of(context))
    pool = newcomers.pool(np.vstack(list(drawn.values())), names)
    for _ in range(_CLIMB_ROUNDS):
        if len(pool.U) == 0:
            break
        top = np.argsort(-pool.acquisition - pool.log_prior, kind="stable")[:_CLIMB_STARTS]
        steps = moves.neighbours(np.repeat(pool.U[top], _CLIMB_STEPS, axis=0), rng)
        climbed = newcomers.pool(steps, np.full(len(steps), "gp"))
        pool = Pool(*(np.concatenate(pair) for pair in zip(pool, climbed, strict=True)))
    return pool


class Crowd(NamedTuple):
    """Candidates for many: the most promising of a pool, their rows as bytes, and what is known of them without pending trials."""

    pool: Pool
    rows: list[bytes]
    field: Field


def crowd(context: Context, screen: Screen, rng: np.random.Generator) -> Crowd:
    """Candidates that serve all asks until the next trial ends: they hang on ended trials alone."""
    pool = candidates(context, screen.without_pending(), rng)
    order = np.argsort(-pool.acquisition - pool.log_prior, kind="stable")
    kept = order[:_CROWD]
    for name in np.unique(pool.source):
        kept = np.append(kept, order[pool.source[order] == name][:_CROWD_EACH])
    kept = np.unique(kept)
    pool = Pool(pool.U[kept], pool.X[kept], pool.source[kept], pool.acquisition[kept], pool.log_prior[kept])
    return Crowd(pool, row_bytes(pool.X), screen.field(pool.X))


def everywhere(space: SearchSpace, rng: np.random.Generator) -> Array:
    """Every configuration of a small space in random order, a scrambled Sobol sequence of a large one; (m, p)."""
    if space.size > GLOBAL:
        from scipy.stats import qmc

        points: Array = qmc.Sobol(len(space), rng=rng).random(GLOBAL)
        return points
    grid = np.stack(np.meshgrid(*(param.value_units() for param in space.params), indexing="ij"), axis=-1).reshape(
        -1, len(space)
    )
    return rng.permutation(grid)


class _Moves:
    """Steps within a space: how fine its parameters are, and which have no order."""

    def __init__(self, space: SearchSpace) -> None:
        self.cells = np.array([p.size for p in space.params], dtype=float)
        self.categories = np.array([bool(p.choices) and not p.ordered for p in space.params])

    def neighbours(self, U: Array, rng: np.random.Generator) -> Array:
        """One neighbour a row: a few coordinates moved, by a scale drawn anew, at least one grid cell, categories redrawn."""
        m, p = U.shape
        move = rng.random((m, p)) < min(1.0, 1.5 / p)
        move[np.arange(m), rng.integers(p, size=m)] = True
        scale = np.maximum(10.0 ** rng.uniform(-2.3, -0.5, size=(m, 1)), 0.8 / self.cells)
        moved = _reflected(U + scale * rng.standard_normal((m, p)))
        moved = np.where(self.categories, rng.random((m, p)), moved)
        return np.where(move, moved, U)


def _reflected(U: Array) -> Array:
    U = np.abs(U)
    return np.clip(np.where(U > 1.0, 2.0 - U, U), 0.0, 1.0)


def _adapted(ranked: Array, n: int, moves: _Moves, rng: np.random.Generator) -> Array:
    """Draws of a CMA-ES that starts from the best of `n` trials, the very best first; categories are those of good trials.

    Source: warm-started CMA-ES, Nomura, Watanabe, Akimoto, Ozaki and Onishi, AAAI 2021, equations 5 and 6.
    """
    p = ranked.shape[1]
    if n < _FEWEST_FOR_CMA:
        return np.empty((0, p))
    elite = ranked[: max(3, round(_ELITE * n))]
    centre = elite.mean(axis=0)
    covariance = (elite - centre).T @ (elite - centre) / len(elite) + _SPREAD**2 * np.eye(p)
    U = _reflected(rng.multivariate_normal(centre, covariance, size=_ADAPTED, method="cholesky"))
    return np.where(moves.categories, elite[rng.integers(len(elite), size=_ADAPTED)], U)


class _Newcomers:
    """Makes pools of what is new: neither tried before nor in an earlier pool."""

    def __init__(self, table: Columns, screen: Screen, view: View) -> None:
        self._space, self._screen, self._view = table.space, screen, view
        self._tried, self._seen = table.rows if screen.sees_pending else table.ended_rows, set[bytes]()

    def pool(self, U: Array, names: Names) -> Pool:
        """Candidates at the rows of `U` (m, p) that are new, generated by `names` (m,)."""
        U = self._view.units(U)
        X = self._space.encode_unit(U)
        keep = []
        for k, row in enumerate(row_bytes(X)):
            if row not in self._seen and row not in self._tried:
                self._seen.add(row)
                keep.append(k)
        U, X, names = U[keep], X[keep], names[keep]
        return Pool(U, X, names, self._screen.score_encoded(X), self._screen.log_prior(U))

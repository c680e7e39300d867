"""The screen: ranks whatever was proposed, by whomever, with one acquisition function."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.special import ndtri

from llmhpo.columns import Columns, columns
from llmhpo.space import Params
from llmhpo.surrogates.acquisition import log_ei
from llmhpo.surrogates.base import Array, Posterior, Prediction
from llmhpo.surrogates.choose import Chosen, choose
from llmhpo.surrogates.feasibility import Feasibility
from llmhpo.surrogates.warp import Warp, fit_noisy_warp, fit_warp
from llmhpo.trial import REPEAT, Context, Proposal
from llmhpo.trust import credit

MIN_FINISHED = 3
_FEWEST_TO_JUDGE = 5
_MAX_POINTS = 250
_NORMAL_QUANTILES = ndtri((np.arange(256) + 0.5) / 256)
_STAGE_GROWTH = 1.1
_FIRST_SPACING, _GROW, _SHRINK = 0.05, 1.5, 0.93

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Screen:
    """What the trials so far say about configurations not yet tried.

    Without a fit (fewer than `MIN_FINISHED` trials ended well) every score is 0, predictions are what little is known,
    and `pick` keeps the order of its candidates. A screen keeps no state: the same questions get the same answers.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._table = context, columns(context)
        table, noisy = self._table, context.task.noisy
        counted = table.keys if REPEAT not in table.sources else list(compress(table.keys, ~table.of(REPEAT)))
        self._spacing = _spacing(counted) if len(set(counted)) < len(counted) else 0.0
        self.pending, self.sees_pending = table.encoded[list(table.open)], True
        learned = table.results.once(("learned", noisy), lambda: _Learned(table, noisy=noisy))
        self._losses, self._feasibility, self._model = table.results.losses, learned.feasibility, learned.model
        self._prior_weight = self._weigh_prior()
        if learned.model is not None:
            self._warp, self._X, self._z, self._best = learned.warp, learned.X, learned.z, learned.best

    @property
    def fitted(self) -> bool:
        """Whether enough trials ended well for a fit."""
        return self._model is not None

    def without_pending(self) -> Screen:
        """The same where running trials are left out of account."""
        blind = copy.copy(self)
        blind.pending, blind.sees_pending, blind._spacing = self.pending[:0], False, 0.0
        return blind

    def score(self, configurations: Sequence[Params]) -> Array:
        """Logarithm of expected improvement times feasibility times prior, (n,), higher is better; 0 without a fit.

        Improvement is counted on the warped scale; pending trials count as observed at their predicted means. The prior is
        what the model said in words, as far as the trials have not outvoted it.
        """
        if self._model is None or not configurations:
            return np.zeros(len(configurations))
        return self.score_encoded(self._context.space.encode(configurations)) + self._log_prior_of(configurations)

    def score_encoded(self, X: Array) -> Array:
        """`score` of encoded configurations (n, d), without the prior."""
        if self._model is None or len(X) == 0:
            return np.zeros(len(X))
        return _Batch(self, self.field(X)).score()

    def field(self, X: Array) -> Field:
        """Encoded configurations (n, d) as candidates that may be ranked more than once. The screen must have a fit."""
        assert self._model is not None
        return Field(X, self._model.state(X), self._feasibility.log_weight(X))

    def log_prior(self, U: Array) -> Array:
        """What the prior adds to the score at points `U` (n, p) of the unit cube, (n,); 0 where nothing was said."""
        prior = self._context.prior
        if prior is None or self._prior_weight <= 0.0 or len(U) == 0:
            return np.zeros(len(U))
        return self._prior_weight * prior.log_density(self._context.space, U)

    def _log_prior_of(self, configurations: Sequence[Params]) -> Array:
        if self._context.prior is None:
            return np.zeros(len(configurations))
        return self.log_prior(np.array([self._context.space.to_unit(c) for c in configurations]))

    def _weigh_prior(self) -> float:
        """The exponent of the prior: it falls with every trial, faster where trials contradict, and with the model's credit."""
        context = self._context
        if context.prior is None:
            return 0.0
        planned = None if context.budget_left is None else len(context.trials) + context.budget_left
        table, prior = self._table, context.prior
        weight = table.results.once(
            ("prior", prior, planned),
            lambda: prior.weight(context.space, table.units[table.results.ok], table.results.losses, planned),
        )
        return weight * credit(context)

    def predict(self, configurations: Sequence[Params]) -> Prediction:
        """Prediction in the metric's own units: the median, and half the width of the band of one standard deviation.

        Without a fit: mean and spread of what was seen; NaN where nothing was.
        """
        n = len(configurations)
        if self._model is None:
            seen = self._losses if len(self._losses) else np.array([np.nan])
            loss = Prediction(np.full(n, seen.mean()), np.full(n, seen.std()))
        else:
            loss = self._warp.unwarp(self._model.predict(self._context.space.encode(configurations)))
        return Prediction(loss.mean if self._context.task.direction == "minimize" else -loss.mean, loss.std)

    def expected_loss(self, X: Array) -> Array:
        """The surrogate's mean on its warped scale at encoded configurations (n, d), (n,); lower is better. The screen must have a fit.

        A configuration that will fail has one all the same: see `score_encoded` for what takes that into account.
        """
        assert self._model is not None
        return self._model.predict(X).mean

    def skill(self) -> float | None:
        """Rank correlation, in [-1, 1], of what is predicted of each trial without it with what came; None for few trials."""
        if self._model is None or len(self._z) < _FEWEST_TO_JUDGE:
            return None
        from scipy.stats import rankdata  # half a second that nobody waits for but the model's thread

        predicted, came = (rankdata(v) for v in (self._model.model.held_out().mean, self._z))
        if predicted.std() == 0.0 or came.std() == 0.0:
            return None
        return float(np.corrcoef(predicted, came)[0, 1])

    def gain(self, X: Array) -> Array:
        """Expected improvement on the best in the metric's units, failures allowed for, of encoded configurations (n, d); (n,).

        The acquisition counts on the warped scale; here the posterior's quantiles are turned back into losses, one by one.
        """
        assert self._model is not None
        prediction = self._model.predict(X)
        losses = self._warp.backward(prediction.mean[:, None] + prediction.std[:, None] * _NORMAL_QUANTILES)
        best = float(self._warp.backward(np.array([self._best]))[0])
        feasible: Array = np.exp(self._feasibility.log_weight(X))
        gains: Array = np.maximum(best - losses, 0.0).mean(axis=1) * feasible
        return gains

    def pick(self, candidates: Sequence[Proposal], n: int, rng: np.random.Generator) -> list[Proposal]:
        """At most `n` of the candidates: none tried or pending, no two alike, best and mutually diverse first.

        Each pick is a fantasy for the next. `rng` breaks exact ties.
        """
        fresh: dict[str, Proposal] = {}
        for proposal in candidates:
            key = self._context.space.key(proposal.params)
            if key not in self._table.tried:
                fresh.setdefault(key, proposal)
        proposals = list(fresh.values())
        if self._model is None or len(proposals) <= 1:
            return proposals[:n]
        field = self.field(self._context.space.encode([p.params for p in proposals]))
        bonus = self._log_prior_of([p.params for p in proposals])
        return [proposals[k] for k in self.pick_encoded(field, bonus, n, rng)]

    def pick_encoded(
        self, field: Field, bonus: Array, n: int, rng: np.random.Generator, left: Mask | None = None
    ) -> list[int]:
        """Rows of `field` (m candidates) that `pick` would choose, in its order; repeats are not looked for.

        `bonus` (m,) is added to the scores of `score_encoded`; `left` (m,) says which may be chosen: all, where it is None.
        """
        batch = _Batch(self, field)
        left = np.ones(len(field.X), dtype=bool) if left is None else left.copy()
        picked: list[int] = []
        while len(picked) < n and left.any():
            score = np.where(left, batch.score() + bonus, -np.inf)
            ties = np.flatnonzero(score == score.max())
            k = int(ties[0] if len(ties) == 1 else rng.choice(ties))
            picked.append(k)
            left[k] = False
            if len(picked) < n:
                batch.believe(k)
        return picked

    def sensitivities(self) -> dict[str, float]:
        """Share of each parameter in the variance of the predicted mean; {} when unknown. Sums to 1.

        The variance along one parameter while the others are held, averaged over where they are held.
        """
        if self._model is None:
            return {}
        space = self._context.space
        levels, held = 8, np.random.default_rng(0).random((32, len(space)))
        shares = np.zeros(len(space))
        for p in range(len(space)):
            U = np.tile(held, (levels, 1))
            U[:, p] = np.repeat((np.arange(levels) + 0.5) / levels, len(held))
            shares[p] = self._model.predict(space.encode_unit(U)).mean.reshape(levels, -1).var(axis=0).mean()
        total = float(shares.sum())
        if not total > 1e-12:
            return {}
        return {name: float(share / total) for name, share in zip(space.names, shares, strict=True)}


class Field(NamedTuple):
    """Candidates `X` (m, d) and what hangs on ended trials alone: their posterior, and the weight of feasibility (m,)."""

    X: Array
    posterior: Posterior
    log_feasible: Array


class _Learned:
    """What trials that have ended say: the same for all screens between which none has.

    `tuned` rows: see `_tuning_rows`.
    """

    def __init__(self, table: Columns, *, noisy: bool) -> None:
        results, groups = table.results, table.space.groups
        self.feasibility = Feasibility(groups)
        self.model: Chosen | None = None
        ended, failed = results.ended[~results.pruned], results.failed[~results.pruned]
        if failed.any():  # a pruned trial ran well: it was only not worth its end
            keep = _subset(-failed.astype(float), _MAX_POINTS)
            self.feasibility.fit(table.encoded[ended[keep]], ~failed[keep])
        ok, losses = results.ok, results.losses
        if len(ok) < MIN_FINISHED:
            return
        keep = _subset(losses, _MAX_POINTS)
        make = fit_noisy_warp if noisy else fit_warp
        self.warp: Warp = make(losses)
        self.X, self.z = table.encoded[ok[keep]], self.warp.forward(losses[keep])
        first = (table.encoded[ok[:_MAX_POINTS]], losses[:_MAX_POINTS])  # more than any decision asks for
        rows = _tuning_rows(losses)
        tuned_on = (
            None
            if rows is None
            else (table.encoded[ok[rows]], make(losses[: _stage(len(losses))]).forward(losses[rows]))
        )
        self.model = choose(self.X, self.z, groups, noisy=noisy, history=first, tuned_on=tuned_on)
        # The luckiest of noisy values is no goal: what is to be improved on is the best expected one.
        self.best = float((self.model.predict(self.X).mean if noisy else self.z).min())


class _Batch:
    """Candidates under one screen, with pending trials and earlier picks as fantasies."""

    def __init__(self, screen: Screen, field: Field) -> None:
        assert screen._model is not None
        self._field = field
        self._state, self._best, self._log_feasible = field.posterior, screen._best, field.log_feasible
        if screen._spacing > 0:
            nearest = cdist(field.X, screen._X, "sqeuclidean").min(axis=1)
            self._log_feasible = self._log_feasible + np.log1p(-np.exp(-nearest / screen._spacing**2 - 1e-6))
        if len(screen.pending):
            self._state = screen._model.after(self._state, screen.pending)
            self._best = min(self._best, float(screen._model.predict(screen.pending).mean.min()))

    def score(self) -> Array:
        state = self._state
        return log_ei(state.mean, np.sqrt(state.variance), self._best) + self._log_feasible

    def believe(self, k: int) -> None:
        self._state = self._state.believe(k)
        self._best = min(self._best, float(self._state.mean[k]))


def _stage(n: int) -> int:
    """How many of `n` finished trials, the first ones, hyperparameters are found from: all up to 250, then in steps of a tenth."""
    m = float(_MAX_POINTS)
    while int(m * _STAGE_GROWTH) <= n:
        m *= _STAGE_GROWTH
    return min(n, int(m))


def _tuning_rows(losses: Array) -> Index | None:
    """Which finished trials hyperparameters are found from; None where it is all of them.

    They change little with one trial in a hundred and cost more than all the rest: so they hold until there are a tenth more trials.
    """
    m = _stage(len(losses))
    return None if m <= _MAX_POINTS else _subset(losses[:m], _MAX_POINTS)


def _subset(losses: Array, limit: int) -> Index:
    """Indices of at most `limit` points, in order: the best half, the latest quarter, the rest at random (fixed seed)."""
    n = len(losses)
    if n <= limit:
        return np.arange(n)
    chosen = np.zeros(n, dtype=bool)
    chosen[np.argsort(losses, kind="stable")[: limit // 2]] = True
    chosen[n - limit // 4 :] = True
    rest = np.random.default_rng(n).permutation(np.flatnonzero(~chosen))
    chosen[rest[: limit - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def _spacing(keys: Sequence[str]) -> float:
    """The radius around a trial within which a new one would be answered as a repeat; 0 while none was.

    Proposals are never repeats, so a repeat among the trials says that the objective rounds: it was asked for one
    configuration and told of another (a table of evaluated rows, a job that snaps its arguments). How coarsely cannot
    be seen, so the radius grows with each repeat and shrinks with each trial that is none.
    """
    seen: set[str] = set()
    radius, repeats = _FIRST_SPACING, 0
    for key in keys:
        if key in seen:
            repeats += 1
            radius = min(radius * _GROW, 1.0)
        elif repeats:
            radius = max(radius * _SHRINK, _FIRST_SPACING)
        seen.add(key)
    return radius if repeats else 0.0


_last: list[tuple[Context, Screen]] = []


def fit_screen(context: Context) -> Screen:
    """The screen of a context; asked again about the same object it answers from memory."""
    for known, screen in _last[:1]:
        if known is context:
            return screen
    screen = Screen(context)
    _last[:] = [(context, screen)]
    return screen

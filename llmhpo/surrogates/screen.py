"""The screen: ranks whatever was proposed, by whomever, with one acquisition function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import ndtri

from llmhpo.space import Params
from llmhpo.surrogates.acquisition import log_ei
from llmhpo.surrogates.base import Array, Posterior, Prediction
from llmhpo.surrogates.choose import Chosen, choose
from llmhpo.surrogates.feasibility import Feasibility
from llmhpo.surrogates.warp import Warp, fit_noisy_warp, fit_warp
from llmhpo.trial import REPEAT, Context, Proposal
from llmhpo.trust import credit

MIN_FINISHED = 3
_MAX_POINTS = 250
_NORMAL_QUANTILES = ndtri((np.arange(256) + 0.5) / 256)
_FIRST_SPACING, _GROW, _SHRINK = 0.05, 1.5, 0.93


class Screen:
    """What the trials so far say about configurations not yet tried.

    Without a fit (fewer than `MIN_FINISHED` trials ended well) every score is 0, predictions are what little is known,
    and `pick` keeps the order of its candidates. A screen keeps no state: the same questions get the same answers.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        space, trials = context.space, context.trials
        self._tried = context.tried
        self._spacing = _spacing([space.key(t.params) for t in trials if t.proposal.source != REPEAT])
        self._feasibility = Feasibility(space.groups)
        self._model: Chosen | None = None
        self.encoded = space.encode([t.params for t in trials])
        self.proposed = space.encode([t.proposal.params for t in trials if t.evaluated is not None])
        self._pending = self.encoded[[k for k, t in enumerate(trials) if t.outcome is None]]
        ok = np.array([k for k, t in enumerate(trials) if t.value is not None], dtype=int)
        self._losses = np.array([context.task.loss(t.value) for t in context.finished if t.value is not None])
        self._prior_weight = self._weigh_prior()
        if any(t.outcome is not None and t.outcome.status != "pruned" for t in context.failed):
            # a pruned trial ran well: it was only not worth its end
            ended = np.array(
                [k for k, t in enumerate(trials) if t.outcome is not None and t.outcome.status != "pruned"]
            )
            failed = np.array([trials[k].value is None for k in ended])
            keep = _subset(-failed.astype(float), _MAX_POINTS)
            self._feasibility.fit(self.encoded[ended[keep]], ~failed[keep])
        if len(ok) >= MIN_FINISHED:
            keep = _subset(self._losses, _MAX_POINTS)
            self._warp: Warp = (fit_noisy_warp if context.task.noisy else fit_warp)(self._losses)
            self._X, z = self.encoded[ok[keep]], self._warp.forward(self._losses[keep])
            everything = (self.encoded[ok], self._losses)
            self._model = choose(self._X, z, space.groups, noisy=context.task.noisy, history=everything)
            # The luckiest of noisy values is no goal: what is to be improved on is the best expected one.
            self._best = float((self._model.predict(self._X).mean if context.task.noisy else z).min())

    @property
    def fitted(self) -> bool:
        """Whether enough trials ended well for a fit."""
        return self._model is not None

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
        return _Batch(self, X).score()

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
        tried = np.array([context.space.to_unit(t.params) for t in context.finished])
        weight = context.prior.weight(context.space, tried.reshape(-1, len(context.space)), self._losses, planned)
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
            if key not in self._tried:
                fresh.setdefault(key, proposal)
        proposals = list(fresh.values())
        if self._model is None or len(proposals) <= 1:
            return proposals[:n]
        X = self._context.space.encode([p.params for p in proposals])
        return [proposals[k] for k in self.pick_encoded(X, self._log_prior_of([p.params for p in proposals]), n, rng)]

    def pick_encoded(self, X: Array, bonus: Array, n: int, rng: np.random.Generator) -> list[int]:
        """Rows of `X` (m, d) that `pick` would choose, in its order; repeats are not looked for.

        `bonus` (m,) is added to the scores of `score_encoded`.
        """
        assert self._model is not None
        batch = _Batch(self, X)
        left = np.ones(len(X), dtype=bool)
        picked: list[int] = []
        while len(picked) < min(n, len(X)):
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


class _Batch:
    """Candidates under one screen, with pending trials and earlier picks as fantasies."""

    def __init__(self, screen: Screen, X: Array) -> None:
        assert screen._model is not None
        pending = screen._pending
        self._state: Posterior = screen._model.state(np.vstack([pending, X]))
        self._skip = len(pending)
        self._best = screen._best
        self._log_feasible = screen._feasibility.log_weight(X)
        if screen._spacing > 0:
            nearest = cdist(X, screen._X, "sqeuclidean").min(axis=1)
            self._log_feasible += np.log1p(-np.exp(-nearest / screen._spacing**2 - 1e-6))
        for j in range(self._skip):
            self._state.believe(j)
            self._best = min(self._best, float(self._state.mean[j]))

    def score(self) -> Array:
        state, skip = self._state, self._skip
        return log_ei(state.mean[skip:], np.sqrt(state.variance[skip:]), self._best) + self._log_feasible

    def believe(self, k: int) -> None:
        self._state.believe(self._skip + k)
        self._best = min(self._best, float(self._state.mean[self._skip + k]))


def _subset(losses: Array, limit: int) -> list[int]:
    """Indices of at most `limit` points, in order: the best half, the latest quarter, the rest at random (fixed seed)."""
    n = len(losses)
    if n <= limit:
        return list(range(n))
    chosen = set(np.argsort(losses, kind="stable")[: limit // 2].tolist()) | set(range(n - limit // 4, n))
    rest = np.random.default_rng(n).permutation([k for k in range(n) if k not in chosen])
    chosen |= set(rest[: limit - len(chosen)].tolist())
    return sorted(chosen)


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

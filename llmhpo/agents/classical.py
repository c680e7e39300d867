"""The classical engine: proposers without a language model, and how they are put together."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from llmhpo.agents.base import generator
from llmhpo.param import Param, ParamValue
from llmhpo.space import Params, SearchSpace
from llmhpo.surrogates.screen import MIN_FINISHED, Screen, fit_screen
from llmhpo.trial import Context, Proposal, Trial

Array = npt.NDArray[np.float64]

N_INITIAL = 8  # 3 and 5 were worse at 25 and 50 trials, 10 worse at 10 (half a and the tasks that are not core)
_TPE_FROM, _TPE_EVERY = 24, 6
_TPE_TRIALS = 1000  # the latest; its time grows with them
_GLOBAL = 1024
_LOCAL = 512
_SPARE = 64
_CLIMB_ROUNDS, _CLIMB_STARTS, _CLIMB_STEPS = 3, 8, 24


class RandomProposer:
    """A scrambled Sobol sequence: proposal k of a study is its point k, whatever was asked before."""

    name = "random"

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """The next `n` points of the sequence, counted from the number of trials."""
        return [Proposal(context.space.from_unit(u), self.name) for u in _sobol(context, n)]


def _sobol(context: Context, n: int) -> Array:
    from scipy.stats import qmc  # half a second that a study of known configurations need not wait

    sequence = qmc.Sobol(len(context.space), scramble=True, rng=np.random.default_rng([context.seed, 1]))
    if context.trials:
        sequence.fast_forward(len(context.trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "balance needs powers of 2": a walk along the sequence has none
        points: Array = sequence.random(n)
    return points


class AcquisitionProposer:
    """Maximises the screen's acquisition: global candidates, neighbours of the best trials, hill climbing."""

    name = "gp"

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """The best `n` points found, each with the earlier ones as fantasies; [] while the screen has no fit."""
        screen = fit_screen(context)
        if not screen.fitted:
            return []
        rng = generator(context, self.name)
        U, X = _candidates(context, screen, rng)
        if len(U) == 0:
            return []
        return [Proposal(context.space.from_unit(U[k]), self.name) for k in screen.pick_encoded(X, n, rng)]


def _candidates(context: Context, screen: Screen, rng: np.random.Generator) -> tuple[Array, Array]:
    """Points of the unit cube and their encoding: none tried, no two alike."""
    space = context.space
    cells = np.array([p.size for p in space.params], dtype=float)
    categories = np.array([bool(p.choices) and not p.ordered for p in space.params])
    loss = context.task.loss
    finished = sorted(context.finished, key=lambda t: (loss(t.value or 0.0), t.number))
    incumbents = np.array([space.to_unit(t.params) for t in finished[:5]])
    starts = incumbents[np.minimum(rng.geometric(0.4, _LOCAL) - 1, len(incumbents) - 1)]
    seen = {*_row_bytes(screen.encoded), *_row_bytes(screen.proposed)}
    U = np.vstack([_everywhere(space, rng), _neighbours(starts, cells, categories, rng)])
    U, X = _fresh(space, U, seen)
    score = screen.score_encoded(X)
    for _ in range(_CLIMB_ROUNDS):
        if len(U) == 0:
            break
        top = np.argsort(-score, kind="stable")[:_CLIMB_STARTS]
        steps = _neighbours(np.repeat(U[top], _CLIMB_STEPS, axis=0), cells, categories, rng)
        V, Y = _fresh(space, steps, seen)
        U, X, score = np.vstack([U, V]), np.vstack([X, Y]), np.concatenate([score, screen.score_encoded(Y)])
    return U, X


def _everywhere(space: SearchSpace, rng: np.random.Generator) -> Array:
    """Every configuration of a small space in random order, uniform points of a large one."""
    if space.size > _GLOBAL:
        return rng.random((_GLOBAL, len(space)))
    centres = [_centres(param) for param in space.params]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, len(space))
    return rng.permutation(grid)


def _centres(param: Param) -> list[float]:
    """The positions in [0, 1] of all values of a discrete parameter."""
    d = param.distribution
    if isinstance(d, IntDistribution | FloatDistribution):
        return [param.to_unit(param.cast(d.low + k * (d.step or 0))) for k in range(int(param.size))]
    return [param.to_unit(choice) for choice in param.choices]


def _fresh(space: SearchSpace, U: Array, seen: set[bytes]) -> tuple[Array, Array]:
    """Rows of `U` whose encoding is new, and their encoding; they are added to `seen`."""
    X = space.encode_unit(U)
    keep = []
    for k, row in enumerate(_row_bytes(X)):
        if row not in seen:
            seen.add(row)
            keep.append(k)
    return U[keep], X[keep]


def _row_bytes(X: Array) -> list[bytes]:
    return [row.tobytes() for row in np.round(X, 9) + 0.0]


def _neighbours(U: Array, cells: Array, categories: npt.NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """One neighbour a row: a few coordinates moved, by a scale drawn anew, at least one grid cell, categories redrawn."""
    m, p = U.shape
    move = rng.random((m, p)) < min(1.0, 1.5 / p)
    move[np.arange(m), rng.integers(p, size=m)] = True
    scale = np.maximum(10.0 ** rng.uniform(-2.3, -0.5, size=(m, 1)), 0.8 / cells)
    moved = np.abs(U + scale * rng.standard_normal((m, p)))
    moved = np.clip(np.where(moved > 1.0, 2.0 - moved, moved), 0.0, 1.0)
    moved = np.where(categories, rng.random((m, p)), moved)
    return np.where(move, moved, U)


class TPEProposer:
    """Optuna's multivariate tree-structured Parzen estimator over the trials so far."""

    name = "tpe"

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """`n` samples of the estimator; failed trials are known to it as failed, running ones as running."""
        seed = int(generator(context, self.name).integers(2**31))
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler = optuna.samplers.TPESampler(
                    multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=MIN_FINISHED
                )
            study = optuna.create_study(direction=context.task.direction, sampler=sampler)
            study.add_trials([_frozen(context.space, t) for t in context.trials[-_TPE_TRIALS:]])
            return [Proposal(_ask(study, context.space), self.name) for _ in range(n)]
        finally:
            optuna.logging.set_verbosity(level)


def _ask(study: optuna.Study, space: SearchSpace) -> Params:
    trial = study.ask()
    params: Params = {}
    for param in space._order:
        if space.is_active(param, params):
            value = trial._suggest(param.name, _distribution(param))
            params[param.name] = param.choices[value] if param.ordered else value
    return {name: params[name] for name in space.names if name in params}


def _distribution(param: Param) -> BaseDistribution:
    """Optuna's view: an ordinal parameter is the integer position of its choice."""
    return IntDistribution(0, len(param.choices) - 1) if param.ordered else param.distribution


def _frozen(space: SearchSpace, trial: Trial) -> optuna.trial.FrozenTrial:
    def value(param: Param) -> ParamValue:
        return param.index(trial.params[param.name]) if param.ordered else trial.params[param.name]

    state = optuna.trial.TrialState.COMPLETE
    if trial.value is None:
        state = optuna.trial.TrialState.RUNNING if trial.outcome is None else optuna.trial.TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        params={name: value(space[name]) for name in trial.params},
        distributions={name: _distribution(space[name]) for name in trial.params},
        values=None if trial.value is None else [trial.value],
    )


def classical_proposals(context: Context, n: int) -> list[Proposal]:
    """What the engine runs without a model: an initial design, then the best points of the acquisition.

    From some point on every sixth trial is the Parzen estimator's: where the process fits badly it is the way out.
    """
    if len(context.trials) < N_INITIAL:
        return _design(context, n, [])
    proposals: list[Proposal] = []
    if len(context.trials) >= _TPE_FROM and len(context.trials) % _TPE_EVERY == 0:
        drawn = TPEProposer().propose(context, 1)
        proposals = fit_screen(context).pick(drawn, 1, generator(context, "screen"))
        begun = tuple(Trial(len(context.trials) + i, p) for i, p in enumerate(proposals))
        context = replace(context, trials=(*context.trials, *begun))
    missing = n - len(proposals)
    proposals += AcquisitionProposer().propose(context, missing) if missing else []
    missing = n - len(proposals)
    return proposals + _design(context, missing, proposals) if missing else proposals


def _design(context: Context, n: int, beside: list[Proposal]) -> list[Proposal]:
    """`n` space-filling points, none of them tried or among `beside` while the space has others left."""
    space = context.space
    random = RandomProposer()
    points = random.propose(context, n + _SPARE)
    if space.size <= _GLOBAL:
        everything = _everywhere(space, generator(context, random.name))
        points += [Proposal(space.from_unit(u), random.name) for u in everything]
    seen = {*context.tried, *(space.key(p.params) for p in beside)}
    fresh: list[Proposal] = []
    for point in points:
        key = space.key(point.params)
        if key not in seen and len(fresh) < n:
            seen.add(key)
            fresh.append(point)
    return fresh + points[: n - len(fresh)]

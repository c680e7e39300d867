"""The classical engine: proposers without a language model, and how they are put together."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from llmhpo.agents.base import generator
from llmhpo.agents.candidates import GLOBAL, candidates, crowd, everywhere
from llmhpo.columns import columns
from llmhpo.param import Param, ParamValue
from llmhpo.space import Params, SearchSpace
from llmhpo.surrogates.screen import MIN_FINISHED, fit_screen
from llmhpo.trial import Context, Proposal, Trial
from llmhpo.trust import gains, plateaued, unknown_gain
from llmhpo.view import view_of

Array = npt.NDArray[np.float64]

N_INITIAL = 8  # 3 and 5 were worse at 25 and 50 trials, 10 worse at 10 (half a and the tasks that are not core)
_ALTERNATIVES = ("tpe", "cmaes", "neighbour", "sobol")
_ALTERNATIVES_FROM, _EVERY = 24, 6  # TPE every fourth trial from the eighth on was worse
_STUCK_FROM, _EVERY_STUCK = 16, 3
_EVERY_TPE = 30
_CROWDED = 8  # running trials from which on asks share their candidates, until the next trial ends
_TPE_TRIALS = 400  # the latest; its time grows with them
_SPARE = 64


class RandomProposer:
    """A scrambled Sobol sequence: proposal k of a study is its point k, whatever was asked before."""

    name = "random"

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """The next `n` points of the sequence, counted from the number of trials."""
        view = view_of(context)
        return [Proposal(view.from_unit(u), self.name) for u in view.units(_sobol(context, n))]


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
    """Maximises the screen's acquisition over the candidates of all generators, or of the one that `only` names.

    The source of a proposal is its generator: see `candidates`. Where many trials run, all asks between two results choose from one
    set of candidates, the running trials counted as observed at their predicted means.
    """

    name = "gp"

    def __init__(self, only: str | None = None) -> None:
        self._only = only

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """The best `n` points found, each with the earlier ones as fantasies; [] while the screen has no fit."""
        screen = fit_screen(context)
        if not screen.fitted:
            return []
        rng, table = generator(context, self.name), columns(context)
        if len(table.open) > _CROWDED:
            planned = None if context.budget_left is None else len(context.trials) + context.budget_left
            about = ("crowd", context.seed, context.prior, planned, view_of(context).key)
            pool, rows, field = table.results.once(about, lambda: crowd(context, screen, _shared(context, self.name)))
            left = np.array(table.rows.lacks(rows), dtype=bool)
        else:
            pool = candidates(context, screen, rng)
            field, left = screen.field(pool.X), np.ones(len(pool.X), dtype=bool)
        if self._only is not None:
            left &= pool.source == self._only
        chosen = screen.pick_encoded(field, pool.log_prior, n, rng, left)
        view = view_of(context)
        return [Proposal(view.from_unit(pool.U[k]), str(pool.source[k])) for k in chosen]


def _shared(context: Context, name: str) -> np.random.Generator:
    """A generator that is the same until the next trial ends."""
    return np.random.default_rng([context.seed, len(columns(context).results.ended), 1, *name.encode()])


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
            view = view_of(context)
            return [Proposal(view.confine(_ask(study, context.space)), self.name) for _ in range(n)]
        finally:
            optuna.logging.set_verbosity(level)


def _ask(study: optuna.Study, space: SearchSpace) -> Params:
    trial = study.ask()
    params: Params = {}
    for param in space._order:
        if space.is_active(param, params):
            value = trial._suggest(param.name, _distribution(param))
            params[param.name] = param.choices[value] if param.ordered else param.cast(value)  # 0.15000000000000002
    return {name: params[name] for name in space.names if name in params}


def _distribution(param: Param) -> BaseDistribution:
    """Optuna's view: an ordinal parameter is the integer position of its choice."""
    return IntDistribution(0, len(param.choices) - 1) if param.ordered else param.distribution


def _frozen(space: SearchSpace, trial: Trial) -> optuna.trial.FrozenTrial:
    params = space.complete(trial.params)

    def value(param: Param) -> ParamValue:
        return param.index(params[param.name]) if param.ordered else params[param.name]

    state = optuna.trial.TrialState.COMPLETE
    if trial.value is None:
        state = optuna.trial.TrialState.RUNNING if trial.outcome is None else optuna.trial.TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        params={name: value(space[name]) for name in params},
        distributions={name: _distribution(space[name]) for name in params},
        values=None if trial.value is None else [trial.value],
    )


def classical_proposals(context: Context, n: int) -> list[Proposal]:
    """What the engine runs without a model: an initial design, then the best points of the acquisition.

    From some point on every sixth trial, and every third on a plateau, is the best point of one generator alone: of the
    one whose trials improved on the best most often. Where the surrogate fits badly that is the way out.
    """
    if len(context.trials) < N_INITIAL:
        return _design(context, n, [])
    proposals = _alternative(context) if n else []
    begun = tuple(Trial(len(context.trials) + i, p) for i, p in enumerate(proposals))
    context = replace(context, trials=(*context.trials, *begun))
    missing = n - len(proposals)
    proposals += AcquisitionProposer().propose(context, missing) if missing else []
    missing = n - len(proposals)
    return proposals + _design(context, missing, proposals) if missing else proposals


def _alternative(context: Context) -> list[Proposal]:
    """The trial of one generator alone, where it is its turn; else []."""
    number = len(context.trials)
    stuck = number >= _STUCK_FROM and plateaued(context)
    if number % (_EVERY_STUCK if stuck else _EVERY) or not (stuck or number >= _ALTERNATIVES_FROM):
        return []
    record = gains(context)
    # TPE fits anew for every proposal, some 40 ms: too dear where dozens of workers wait, and rare in a study of thousands.
    dear = len(columns(context).open) > _CROWDED or (number > _TPE_TRIALS and number % _EVERY_TPE)
    source = max(_ALTERNATIVES[1:] if dear else _ALTERNATIVES, key=lambda name: record.get(name, unknown_gain()))
    if source != TPEProposer.name:
        return AcquisitionProposer(source).propose(context, 1)
    return fit_screen(context).pick(TPEProposer().propose(context, 1), 1, generator(context, "screen"))


def _design(context: Context, n: int, beside: list[Proposal]) -> list[Proposal]:
    """`n` space-filling points, none of them tried or among `beside` while the space has others left."""
    space = context.space
    random = RandomProposer()
    points = random.propose(context, n + _SPARE)
    if space.size <= GLOBAL:
        everything = everywhere(space, generator(context, random.name))
        view = view_of(context)
        points += [Proposal(view.from_unit(u), random.name) for u in view.units(everything)]
    tried, seen = columns(context).tried, {space.key(p.params) for p in beside}
    fresh: list[Proposal] = []
    for point in points:
        key = space.key(point.params)
        if key not in seen and key not in tried and len(fresh) < n:
            seen.add(key)
            fresh.append(point)
    return fresh + points[: n - len(fresh)]

"""Optuna's samplers as arms; llmhpo is one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from evals.arms.base import Asked
from evals.arms.models import Meter
from evals.tasks.base import Params, Result, Task, Value, parents_first
from llmhpo import Param, Usage


def classical_samplers() -> dict[str, Callable[[int], BaseSampler]]:
    """Makers of Optuna's own samplers by the name of their arm, given a seed."""
    return {
        "tpe": lambda seed: TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
        "tpe_default": lambda seed: TPESampler(seed=seed),
        "gp": lambda seed: GPSampler(seed=seed, deterministic_objective=True),
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    }


class OptunaArm:
    """Any Optuna sampler, told what was really evaluated.

    Optuna holds a trial to the parameters that it suggested. So finished trials are kept here, with the attributes that
    samplers store in them (CMA-ES its state, LLMSampler its sources) and with the parameters of the result, and every
    batch is asked of a fresh study that holds them. It is made on `tell`: asking costs what it costs a user.

    `ordinals_as_integers` gives ordinal choices to the sampler as their position: to the favour of samplers that know no
    order of choices.
    """

    def __init__(
        self, task: Task, sampler: BaseSampler, name: str, *, ordinals_as_integers: bool, meter: Meter | None = None
    ) -> None:
        self._task, self._sampler, self._name, self._meter = task, sampler, name, meter
        self._integers = ordinals_as_integers
        self._order = parents_first(task.space)
        self._done: list[FrozenTrial] = []
        self._study = self._fresh_study({})

    @property
    def usage(self) -> Usage:
        """What the model cost so far."""
        return Usage() if self._meter is None else self._meter.usage

    @property
    def completions(self) -> int:
        """As `Arm`."""
        return 0 if self._meter is None else self._meter.completions

    def ask(self) -> Asked:
        """As `Arm`."""
        trial = self._study.ask()
        params: Params = {}
        for param in self._order:
            if self._task.space.is_active(param, params):
                params[param.name] = self._suggest(trial, param)
        ordered = {name: params[name] for name in self._task.space.names if name in params}
        # read from the study: the trial's own view is older than what the sampler wrote
        attrs = self._study.get_trials(deepcopy=False)[trial.number].user_attrs
        return Asked(trial.number, ordered, str(attrs.get("source", self._name)))

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`."""
        user_attrs: dict[str, Any] = {"source": "start"}
        system_attrs: dict[str, Any] = {}
        if asked is not None:
            open_trial = self._study.get_trials(deepcopy=False)[asked.ticket]
            user_attrs, system_attrs = open_trial.user_attrs, open_trial.system_attrs
        self._finish(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if result.value is not None else TrialState.FAIL,
                value=result.value,
                params={name: self._outward(self._task.space[name], value) for name, value in result.params.items()},
                distributions={name: self._distribution(self._task.space[name]) for name in result.params},
                user_attrs=user_attrs,
                system_attrs=system_attrs,
            )
        )

    def _finish(self, trial: FrozenTrial) -> None:
        self._done.append(trial)
        if len(self._done) >= len(self._study.get_trials(deepcopy=False)):  # the last of a batch
            self._study = self._fresh_study(self._study.user_attrs)

    def _fresh_study(self, attrs: dict[str, Any]) -> optuna.Study:
        study = optuna.create_study(direction=self._task.direction, sampler=self._sampler)
        for name, value in attrs.items():
            study.set_user_attr(name, value)
        study.add_trials(self._done)
        return study

    def _suggest(self, trial: optuna.Trial, param: Param) -> Value:
        d, name = self._distribution(param), param.name
        if isinstance(d, IntDistribution):
            number = trial.suggest_int(name, d.low, d.high, log=d.log)
            return param.choices[number] if param.ordered else number
        if isinstance(d, FloatDistribution):
            return trial.suggest_float(name, d.low, d.high, log=d.log)
        return trial.suggest_categorical(name, param.choices)

    def _distribution(self, param: Param) -> BaseDistribution:
        if param.ordered and self._integers:
            return IntDistribution(0, len(param.choices) - 1)
        return param.distribution

    def _outward(self, param: Param, value: Value) -> Value:
        return param.index(value) if param.ordered and self._integers else value

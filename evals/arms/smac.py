"""SMAC3: a random forest, expected improvement, local search from the best; strong on conditional spaces."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evals.arms.base import Asked
from evals.tasks.base import Params, Result, Task, Value
from llmhpo import Param, SearchSpace, Usage, When

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace
    from smac import HyperparameterOptimizationFacade
    from smac.runhistory import TrialInfo, TrialValue

_SMAC_SEED = 0  # of the one evaluation of a configuration: SMAC's word for a repetition


class SmacArm:
    """SMAC's facade for hyperparameters, with its own defaults, asked and told.

    A configuration that is told before the first ask is an observation of SMAC's, and its initial design (a Sobol
    sequence over a quarter of the budget) is smaller by it. A failed trial is told as crashed, at the worst cost that was
    seen: SMAC's default, an infinite cost, turns its forest into nan. Until there is a worst cost it stays pending. So
    does what was asked for where a pool evaluated its nearest row instead: that row is what SMAC is told.

    Source: Lindauer et al. 2022, SMAC3.
    """

    def __init__(self, task: Task, seed: int, budget: int) -> None:
        self._task, self._seed, self._budget = task, seed, budget
        self._space = Translation(task.space)
        self._given: list[Result] = []
        self._pending: list[TrialInfo] = []  # by ticket
        self._crashed: list[TrialInfo] = []
        self._worst: float | None = None
        self._facade: HyperparameterOptimizationFacade | None = None
        self._rng = np.random.default_rng([seed, 17])

    @property
    def usage(self) -> Usage:
        """As `Arm`: there is no model."""
        return Usage()

    @property
    def completions(self) -> int:
        """As `Arm`."""
        return 0

    def ask(self) -> Asked:
        """As `Arm`. The source is "random" where SMAC has nothing left to propose, in a small space."""
        if self._facade is None:
            self._facade = self._start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", RuntimeWarning
                )  # its local search takes the mean of nothing for a log line
                info = self._facade.ask()
        except _exhausted():
            return Asked(-1, self._task.space.sample(self._rng, 1)[0], "random")
        self._pending.append(info)
        return Asked(len(self._pending) - 1, self._space.outward(info.config), "smac")

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`."""
        if self._facade is None:
            self._given.append(result)
            return
        info = self._info(result)
        if asked is not None and asked.ticket >= 0 and asked.params == result.params:
            info = self._pending[asked.ticket]
        self._tell(self._facade, info, result)

    def _start(self) -> HyperparameterOptimizationFacade:
        from smac import HyperparameterOptimizationFacade, Scenario

        logging.getLogger("smac").setLevel(logging.CRITICAL)
        with tempfile.TemporaryDirectory(prefix="llmhpo-smac-") as folder:  # written to once, when the facade is made
            scenario = Scenario(
                self._space.configspace,
                name="arm",
                output_directory=Path(folder),
                deterministic=True,
                n_trials=self._budget,
                seed=self._seed,
            )
            design = HyperparameterOptimizationFacade.get_initial_design
            planned: Any = design(scenario).meta["n_configs"]
            facade = HyperparameterOptimizationFacade(
                scenario,
                initial_design=design(scenario, n_configs=max(0, planned - len(self._given))),
                logging_level=False,
                overwrite=True,
            )
        for result in self._given:
            self._tell(facade, self._info(result), result)
        return facade

    def _info(self, result: Result) -> TrialInfo:
        from smac.runhistory import TrialInfo

        return TrialInfo(self._space.inward(result.params), seed=_SMAC_SEED)

    def _tell(self, facade: HyperparameterOptimizationFacade, info: TrialInfo, result: Result) -> None:
        from smac.runhistory import StatusType

        if result.value is None:
            self._crashed.append(info)
            changed = [info]
        else:
            cost = result.value if self._task.direction == "minimize" else -result.value
            facade.tell(info, _told(cost, StatusType.SUCCESS), save=False)
            changed = self._crashed if self._worst is None or cost > self._worst else []
            self._worst = cost if self._worst is None else max(cost, self._worst)
        if self._worst is not None:
            for crashed in changed:
                facade.tell(crashed, _told(self._worst, StatusType.CRASHED), save=False)


def _told(cost: float, status: Any) -> TrialValue:
    from smac.runhistory import TrialValue

    return TrialValue(cost=cost, status=status)


def _exhausted() -> tuple[type[BaseException], ...]:
    from smac.main.exceptions import ConfigurationSpaceExhaustedException

    return (StopIteration, ConfigurationSpaceExhaustedException)


class Translation:
    """A search space as ConfigSpace's: choices and stepped numbers go in as their position, in order where there is one."""

    def __init__(self, space: SearchSpace) -> None:
        from ConfigSpace import ConfigurationSpace

        self._space = space
        self.configspace: ConfigurationSpace = ConfigurationSpace()
        self.configspace.add([_hyperparameter(p) for p in space.params])
        self.configspace.add([self._condition(p) for p in space.params if p.when])

    def inward(self, params: Mapping[str, Value]) -> Configuration:
        """A configuration as ConfigSpace's."""
        from ConfigSpace import Configuration

        values = {name: _inward(self._space[name], value) for name, value in params.items()}
        return Configuration(self.configspace, values=values)

    def outward(self, configuration: Configuration) -> Params:
        """The inverse of `inward`."""
        found = dict(configuration)
        return {p.name: _outward(p, found[p.name]) for p in self._space.params if p.name in found}

    def _condition(self, param: Param) -> Any:
        from ConfigSpace import AndConjunction

        parts = [self._clause(param, when) for when in param.when]
        return parts[0] if len(parts) == 1 else AndConjunction(*parts)

    def _clause(self, param: Param, when: When) -> Any:
        from ConfigSpace import InCondition

        parent = self._space[when.parent]
        values = [_inward(parent, value) for value in when.values]
        return InCondition(self.configspace[param.name], self.configspace[when.parent], values)


def _by_position(param: Param) -> bool:
    return bool(param.choices) or getattr(param.distribution, "step", None) not in (None, 1)


def _hyperparameter(param: Param) -> Any:
    from ConfigSpace import hyperparameters as hp

    d: Any = param.distribution
    if param.size == 1:
        return hp.Constant(param.name, 0)
    if isinstance(d, CategoricalDistribution):
        positions = range(len(param.choices))
        return (
            hp.OrdinalHyperparameter(param.name, list(positions))
            if param.ordered
            else hp.CategoricalHyperparameter(param.name, list(positions))
        )
    if _by_position(param):
        return hp.UniformIntegerHyperparameter(param.name, 0, int(param.size) - 1)
    kind = hp.UniformFloatHyperparameter if isinstance(d, FloatDistribution) else hp.UniformIntegerHyperparameter
    return kind(param.name, d.low, d.high, log=d.log)


def _inward(param: Param, value: Value) -> float | int:
    if param.size == 1:
        return 0
    if _by_position(param):
        return param.position(value)
    assert isinstance(value, int | float)
    return value


def _outward(param: Param, value: Any) -> Value:
    if param.size == 1 or _by_position(param):
        return param.from_unit((int(value) + 0.5) / param.size)
    d: Any = param.distribution
    return param.cast(min(max(value, d.low), d.high))

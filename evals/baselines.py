"""The arms of a comparison behind one protocol: classical optimizers, and llmhpo with one model or another.

`random`, `tpe` (multivariate, grouped, constant liar), `tpe_default`, `gp` and `cmaes` are classical; `none`, `recorded`,
`garbage` and every model spec ("smollm2", "openai:MODEL", "scripted:FILE", ...) are llmhpo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from evals.tasks.base import Params, Result, Task, Value, parents_first
from llmhpo import LLMHPOError, LLMSampler, Param, Usage, make_llm
from llmhpo.llm.scripted import ScriptedModel

if TYPE_CHECKING:
    from llmhpo.llm.base import LLM, Completion, Request

CLASSICAL = ("random", "tpe", "tpe_default", "gp", "cmaes")


@dataclass(frozen=True, slots=True)
class Asked:
    """A configuration to evaluate; `source` says who proposed it, `ticket` is handed back with the result."""

    ticket: int
    params: Params
    source: str


class Arm(Protocol):
    """An optimizer that is asked and told. Several configurations may be asked for before they are told."""

    @property
    def usage(self) -> Usage:
        """What the model has cost so far."""
        ...

    def ask(self) -> Asked:
        """The next configuration to evaluate."""
        ...

    def tell(self, asked: Asked | None, result: Result) -> None:
        """What came of it; `result.params` is what was evaluated. `asked` is None for a configuration that was given."""
        ...


class RandomArm:
    """Uniform over the space, logarithmic where the space is."""

    def __init__(self, task: Task, seed: int) -> None:
        self._space, self._rng, self._count = task.space, np.random.default_rng([seed, 7]), 0

    def ask(self) -> Asked:
        """As `Arm`."""
        self._count += 1
        return Asked(self._count, self._space.sample(self._rng, 1)[0], "random")

    @property
    def usage(self) -> Usage:
        """As `Arm`: there is no model."""
        return Usage()

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`: nothing is learned."""


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


# --- models -----------------------------------------------------------------------------------------------------------


class Meter:
    """A model with a meter on it, whose configurations snap to the rows of a pool before the optimizer reads them.

    Without the snapping the optimizer would wait for ever for the outcome of a configuration that was never evaluated.
    """

    def __init__(self, inner: LLM, task: Task) -> None:
        self._inner, self._task = inner, task
        self.name, self.price, self.compact = inner.name, inner.price, inner.compact
        self.overhead_tokens = inner.overhead_tokens
        self.usage, self.seconds = Usage(), 0.0

    def complete(self, request: Request) -> Completion:
        """As the inner model."""
        start = time.perf_counter()
        try:
            completion = self._inner.complete(request)
        except LLMHPOError:
            self.usage += Usage(calls=1)
            raise
        finally:
            self.seconds += time.perf_counter() - start
        self.usage += completion.usage
        return completion if self._task.snap is None else replace(completion, text=self._snapped(completion.text))

    def _snapped(self, text: str) -> str:
        start, end = text.find("{"), text.rfind("}") + 1  # fences and thoughts around it stay
        try:
            reply = json.loads(text[start:end])
            reply["configurations"] = [self._snap(raw) for raw in reply["configurations"]]
        except (ValueError, TypeError, KeyError):
            return text  # not what was asked for: the optimizer's business
        return text[:start] + json.dumps(reply) + text[end:]

    def _snap(self, raw: object) -> object:
        space, snap = self._task.space, self._task.snap
        assert snap is not None
        if not isinstance(raw, dict):
            return raw
        params = space.coerce(space.drop_inactive({k: v for k, v in raw.items() if k in space}))
        return {**raw, **dict.fromkeys(space.names), **snap(params)} if isinstance(params, dict) else raw

    def count_tokens(self, text: str) -> int:
        """As the inner model."""
        return self._inner.count_tokens(text)

    def close(self) -> None:
        """Close the inner model."""
        self._inner.close()


def recorded_model(task: Task) -> LLM:
    """Answers the first request with the task's ten recorded configurations, and no other."""
    reply = json.dumps({"configurations": [{**dict.fromkeys(task.space.names), **p} for p in task.recorded]})
    return ScriptedModel([reply], name="recorded")


_GARBAGE_REPLIES = 200


def garbage_model(task: Task, seed: int) -> LLM:
    """Replies that fit the schema and help nobody: bounds, repeats, noise; every fifth one is missing or broken."""
    rng = np.random.default_rng([seed, 13])
    replies: dict[int, str] = {}
    corner = _corner(task, rng)
    for number in range(_GARBAGE_REPLIES):
        if number % 5 == 3:
            continue  # unavailable
        configurations = [corner, *(_corner(task, rng) for _ in range(4)), corner, *task.space.sample(rng, 5)]
        reply = json.dumps({"configurations": [{**dict.fromkeys(task.space.names), **p} for p in configurations]})
        replies[number] = reply[: len(reply) // 2] if number % 5 == 4 else reply
    return ScriptedModel(replies, name="garbage")


def _corner(task: Task, rng: np.random.Generator) -> Params:
    return task.space.from_unit(rng.integers(0, 2, len(task.space)).astype(float))


@lru_cache(maxsize=2)
def _shared_model(spec: str) -> LLM | None:
    return make_llm(spec)


# --- arms by name -----------------------------------------------------------------------------------------------------


def _classical_samplers() -> dict[str, Callable[[int], BaseSampler]]:
    return {
        "tpe": lambda seed: TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
        "tpe_default": lambda seed: TPESampler(seed=seed),
        "gp": lambda seed: GPSampler(seed=seed, deterministic_objective=True),
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    }


def exists(name: str, task: Task) -> bool:
    """Whether there is such an arm for a task: `recorded` needs recorded replies."""
    return name != "recorded" or bool(task.recorded)


def make_arm(name: str, task: Task, seed: int, budget: int) -> Arm:
    """An arm for one run of `budget` trials.

    Raises: llmhpo's ConfigError for a model that cannot be made.
    """
    if name == "random":
        return RandomArm(task, seed)
    if name in CLASSICAL:
        return OptunaArm(task, _classical_samplers()[name](seed), name, ordinals_as_integers=True)
    if name == "recorded":
        model: LLM | None = recorded_model(task)
    elif name == "garbage":
        model = garbage_model(task, seed)
    else:
        model = _shared_model(name)
    meter = None if model is None else Meter(model, task)
    sampler = LLMSampler(
        meter if meter is not None else "none",
        task=task.words,
        search_space=task.space,
        metric=task.metric,
        n_trials=budget,
        seed=seed,
    )
    return OptunaArm(task, sampler, name, ordinals_as_integers=False, meter=meter)

"""The arms of a comparison behind one protocol: classical optimizers, and llmhpo with one model or another.

`random`, `tpe` (multivariate, grouped, constant liar), `tpe_default`, `gp`, `cmaes` and `smac` are classical; `none`,
`recorded`, `garbage` and every model spec ("smollm2", "openai:MODEL", "scripted:FILE", ...) are llmhpo. `recorded_tpe` tries
all recorded proposals and hands over to TPE. `llambo:disc@SPEC`, `llambo:gen@SPEC`, `zhang:chat@SPEC` and
`zhang:compressed@SPEC` are the methods of other authors on any of these models. `llambo@SPEC`, `llambo-gen@SPEC`, `llambo-ranked@SPEC` and
`critic@SPEC` are llmhpo with its `advice` set so. `own:MODULE:FUNCTION` is the Optuna sampler that FUNCTION(seed) gives.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.samplers import BaseSampler

from evals.arms.base import CLASSICAL, Arm, Asked
from evals.arms.llambo import LlamboArm
from evals.arms.models import Meter, garbage_model, metered, recorded_model, shared_model
from evals.arms.optuna_arm import OptunaArm, classical_samplers
from evals.arms.random_arm import RandomArm
from evals.arms.replay_arm import ReplayArm
from evals.arms.smac import SmacArm
from evals.arms.zhang import ZhangArm
from evals.tasks.base import Task
from llmhpo import LLMSampler
from llmhpo.agents.advice import Advice
from llmhpo.errors import ConfigError

if TYPE_CHECKING:
    from llmhpo.llm.base import LLM

__all__ = ["CLASSICAL", "Arm", "Asked", "check_name", "exists", "make_arm"]


ADVICE = {
    "llambo": Advice(proposer="llambo", surrogate="llambo:disc"),
    "llambo-gen": Advice(proposer="llambo", surrogate="llambo:gen"),
    "llambo-ranked": Advice(surrogate="llambo:disc"),
    "critic": Advice(critic=True),
}


_OURS = ("none", "recorded", "recorded_tpe", "garbage", "smollm2")
_OTHERS = ("llambo:disc", "llambo:gen", "zhang:chat", "zhang:compressed")
_SPECS = ("openai", "anthropic", "local", "scripted", "replay")
_OWN = "own:"


def check_name(name: str) -> None:
    """Whether an arm can be called so, before thousands of runs fail for it. Raises: ConfigError, with the names that there are."""
    way, at, spec = name.partition("@")
    if name.startswith(_OWN):
        _own_sampler(name, 0)
        return
    if way in (*ADVICE, *_OTHERS):
        is_there = bool(at) and _is_model(spec)
    else:
        is_there = name in (*CLASSICAL, *_OURS) or _is_model(name)
    if not is_there:
        raise ConfigError(
            f"--arms: {name!r} is no arm; use {', '.join((*CLASSICAL, *_OURS))}, a model spec such as openai:MODEL, "
            f"{_OWN}MODULE:FUNCTION, or {', '.join((*_OTHERS, *ADVICE))} with @ and a model"
        )


def _is_model(spec: str) -> bool:
    provider, _, model = spec.partition(":")
    return spec == "smollm2" or (provider in _SPECS and bool(model))


def _own_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler that `own:MODULE:FUNCTION` makes: FUNCTION(seed) gives one of Optuna's kind. Raises: ConfigError."""
    module, _, function = name.removeprefix(_OWN).partition(":")
    try:
        sampler = getattr(import_module(module), function)(seed)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"--arms: {name!r}: {error}; write {_OWN}MODULE:FUNCTION, where FUNCTION(seed) gives an Optuna sampler") from None  # fmt: skip
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(f"--arms: {name!r} gives {type(sampler).__name__}, and no optuna.samplers.BaseSampler")
    return sampler


def exists(name: str, task: Task) -> bool:
    """Whether there is such an arm for a task: `recorded` and `recorded_tpe` need recorded replies."""
    return not name.startswith("recorded") or bool(task.recorded)


def make_arm(name: str, task: Task, seed: int, budget: int, record: Path | None = None) -> Arm:
    """An arm for one run of `budget` trials; `record` is a cassette for the exchanges with a model.

    Raises: llmhpo's ConfigError for a model that cannot be made.
    """
    if name == "random":
        return RandomArm(task, seed)
    if name == "smac":
        return SmacArm(task, seed, budget)
    if name in CLASSICAL:
        return OptunaArm(task, classical_samplers()[name](seed), name, ordinals_as_integers=True)
    if name.startswith(_OWN):
        return OptunaArm(task, _own_sampler(name, seed), name.rpartition(":")[2], ordinals_as_integers=True)
    if name == "recorded_tpe":
        return ReplayArm(task, make_arm("tpe", task, seed, budget))
    if name.startswith(("llambo:", "zhang:")):
        return _of_others(name, task, seed, budget, record)
    way, _, spec = name.partition("@")
    if name == "recorded":
        model: LLM | None = recorded_model(task)
    elif name == "garbage":
        model = garbage_model(task, seed)
    else:
        model = shared_model(spec if way in ADVICE else name, record)
    meter = None if model is None else metered(model, task)
    sampler = LLMSampler(
        meter if meter is not None else "none",
        task=task.words,
        search_space=task.space,
        metric=task.metric,
        n_trials=budget,
        seed=seed,
        advice=ADVICE.get(way),
    )
    return OptunaArm(task, sampler, name, ordinals_as_integers=False, meter=meter)


def _of_others(name: str, task: Task, seed: int, budget: int, record: Path | None) -> Arm:
    method, _, spec = name.partition("@")
    model = shared_model(spec, record) if spec else None
    if model is None:
        raise ConfigError(f"the arm {name!r} names no model; write it as {method}@smollm2")
    meter = Meter(model, task)
    match method:
        case "llambo:disc":
            return LlamboArm(task, meter, "disc", seed, budget)
        case "llambo:gen":
            return LlamboArm(task, meter, "gen", seed, budget)
        case "zhang:chat":
            return ZhangArm(task, meter, "chat", seed, budget)
        case "zhang:compressed":
            return ZhangArm(task, meter, "compressed", seed, budget)
    raise ConfigError(f"the arm {name!r} is unknown; use one of {', '.join(_OTHERS)}, each with @ and a model")

"""The arms of a comparison behind one protocol: classical optimizers, and llmhpo with one model or another.

`random`, `tpe` (multivariate, grouped, constant liar), `tpe_default`, `gp`, `cmaes` and `smac` are classical; `none`,
`recorded`, `garbage` and every model spec ("smollm2", "openai:MODEL", "scripted:FILE", ...) are llmhpo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.arms.base import CLASSICAL, Arm, Asked
from evals.arms.models import Meter, garbage_model, recorded_model, shared_model
from evals.arms.optuna_arm import OptunaArm, classical_samplers
from evals.arms.random_arm import RandomArm
from evals.arms.smac import SmacArm
from evals.tasks.base import Task
from llmhpo import LLMSampler

if TYPE_CHECKING:
    from llmhpo.llm.base import LLM

__all__ = ["CLASSICAL", "Arm", "Asked", "exists", "make_arm"]


def exists(name: str, task: Task) -> bool:
    """Whether there is such an arm for a task: `recorded` needs recorded replies."""
    return name != "recorded" or bool(task.recorded)


def make_arm(name: str, task: Task, seed: int, budget: int) -> Arm:
    """An arm for one run of `budget` trials.

    Raises: llmhpo's ConfigError for a model that cannot be made.
    """
    if name == "random":
        return RandomArm(task, seed)
    if name == "smac":
        return SmacArm(task, seed, budget)
    if name in CLASSICAL:
        return OptunaArm(task, classical_samplers()[name](seed), name, ordinals_as_integers=True)
    if name == "recorded":
        model: LLM | None = recorded_model(task)
    elif name == "garbage":
        model = garbage_model(task, seed)
    else:
        model = shared_model(name)
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

"""A task without its words: parameters p1, p2, ..., choices c1, c2, ..., no data set, no metric's name.

Well-known tasks are remembered by models; what is left of a model's gain on the same task without names is not memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from optuna.distributions import CategoricalDistribution

from evals.tasks.base import Params, Result, Task, Value
from llmhpo import Param, SearchSpace, When

_WORDS = "The hyperparameters of a training. Neither the model nor the data may be named."


@dataclass(frozen=True)
class Masked:
    """The same evaluation under other names."""

    evaluate: Callable[[Params], Result]
    names: Mapping[str, str]  # by true name
    choices: Mapping[str, Mapping[Value, Value]]  # by true name: the mask of each choice, by true choice

    def __call__(self, params: Params) -> Result:
        """Evaluate under the true names."""
        result = self.evaluate(self.unmask(params))
        return replace(result, params=self.mask(result.params))

    def mask(self, params: Params) -> Params:
        """A configuration under false names."""
        return {self.names[n]: self.choices[n][v] if n in self.choices else v for n, v in params.items()}

    def unmask(self, params: Params) -> Params:
        """A configuration under its true names."""
        true = {mask: name for name, mask in self.names.items()}
        back = {name: {mask: choice for choice, mask in masks.items()} for name, masks in self.choices.items()}
        return {true[n]: back[true[n]][v] if true[n] in back else v for n, v in params.items()}


def anonymised(task: Task) -> Task:
    """`task` as somebody sees it who must not know what it is. Its id stays: no arm is shown it."""
    names = {param.name: f"p{i}" for i, param in enumerate(task.space.params, 1)}
    choices = {p.name: _masks(p) for p in task.space.params if any(isinstance(c, str) for c in p.choices)}
    masked = Masked(task.evaluate, names, choices)
    snap = task.snap
    return replace(
        task,
        words=_WORDS,
        metric="value",
        space=SearchSpace([_renamed(p, names, choices) for p in task.space.params]),
        evaluate=masked,
        default=None if task.default is None else masked.mask(task.default),
        recorded=tuple(masked.mask(p) for p in task.recorded),
        snap=None if snap is None else lambda params: masked.mask(snap(masked.unmask(params))),
    )


def _masks(param: Param) -> dict[Value, Value]:
    return {choice: f"c{i}" for i, choice in enumerate(param.choices, 1)}


def _renamed(param: Param, names: Mapping[str, str], choices: Mapping[str, Mapping[Value, Value]]) -> Param:
    masks = choices.get(param.name)
    distribution = CategoricalDistribution(tuple(masks.values())) if masks else param.distribution
    when = tuple(
        When(names[w.parent], tuple(choices[w.parent][v] if w.parent in choices else v for v in w.values))
        for w in param.when
    )
    return Param(names[param.name], distribution, when=when, ordered=param.ordered)

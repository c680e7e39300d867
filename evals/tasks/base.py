"""What every benchmark task looks like, and the readers of the data folder's descriptions that all families share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo import Param, SearchSpace, When

Value = float | int | str | bool | None
Params = dict[str, Value]
Direction = Literal["minimize", "maximize"]
Record = Mapping[str, Any]  # one record of tasks.json
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """What a task answers.

    `value` is None where the run failed or diverged. `params` is the configuration that was really evaluated: another
    one than asked for where a pool snaps to its nearest row, `distance` away. `seconds` is the training's own time, as
    recorded with the data. `test` is the metric on data that no optimizer sees.
    """

    value: float | None
    params: Params
    seconds: float | None = None
    distance: float = 0.0
    test: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """What regret is measured by: the best and the median value of the space, compared as logarithms with `log`."""

    best: float
    median: float
    log: bool = False
    rs30: float | None = None  # expected normalised regret of the best of 30 random configurations

    def regret(self, value: float | None) -> float:
        """Normalised regret in [0, 1]: 0 at the best value and better, 1 at the median and worse, and without a value."""
        if value is None or not math.isfinite(value):
            return 1.0
        best, median = self.best, self.median
        if self.log:
            tiny = np.finfo(np.float64).tiny
            value, best, median = math.log(max(value, tiny)), math.log(best), math.log(median)
        if best == median:  # half of the space is optimal
            return float(value != best)
        return min(1.0, max(0.0, (value - best) / (median - best)))


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark task.

    `words` is what a model is told, `default` the configuration a user would start from (None: not known), `recorded`
    what a strong model proposed from the words alone. `evaluate` is pure: the same configuration, the same answer.
    `snap` gives the configuration that would be evaluated instead, without its value; None where any can be.
    """

    id: str
    family: str
    words: str
    metric: str
    direction: Direction
    space: SearchSpace
    stats: Stats
    evaluate: Callable[[Params], Result]
    default: Params | None = None
    recorded: tuple[Params, ...] = ()
    snap: Callable[[Params], Params] | None = None

    @property
    def first(self) -> Params | None:
        """Where a seeded run begins: the default, or the first recorded reply where there is none."""
        return self.default if self.default is not None else next(iter(self.recorded), None)


@dataclass(frozen=True, slots=True)
class Source:
    """A data folder as far as it has been read: descriptions by id. Arrays are read when a task is first evaluated."""

    root: Path
    spaces: Mapping[str, Record]
    words: Mapping[str, str]
    recorded: Mapping[str, Sequence[Mapping[str, Value]]]


def specs_of(record: Record, spaces: Mapping[str, Record]) -> list[Record]:
    """The parameters of a task's space, with the task's own bounds."""
    bounds = record.get("bounds") or {}
    return [{**spec, **bounds.get(spec["name"], {})} for spec in spaces[record["space"]]["params"]]


def space_of(specs: Sequence[Record]) -> SearchSpace:
    """The search space. Defaults are left out: an unseeded run must not know them.

    Raises: ValueError for a condition that needs any of several parents, which `SearchSpace` cannot say.
    """
    return SearchSpace([Param(s["name"], _distribution(s), when=_when(s), ordered="values" in s) for s in specs])


def _distribution(spec: Record) -> BaseDistribution:
    if "values" in spec or spec["type"] == "cat":
        return CategoricalDistribution(tuple(spec.get("values") or spec["choices"]))
    log = bool(spec.get("log"))
    if spec["type"] == "int":
        return IntDistribution(int(spec["low"]), int(spec["high"]), log=log)
    return FloatDistribution(float(spec["low"]), float(spec["high"]), log=log)


def _when(spec: Record) -> tuple[When, ...]:
    condition = spec.get("condition")
    if not condition:
        return ()
    if condition.get("all_or_any", "AND") != "AND":
        raise ValueError(
            f"parameter {spec['name']!r}: its condition needs any of several parents; only all can be said"
        )
    return tuple(When(c["parent"], tuple(c["values"])) for c in condition.get("of", [condition]))


def fitted(space: SearchSpace, raw: Mapping[str, object], place: str) -> Params:
    """`raw` as a configuration of the space.

    Raises: ValueError where it is none.
    """
    params = space.coerce(space.drop_inactive(raw))
    if isinstance(params, dict):
        return params
    raise ValueError(f"{place}: {dict(raw)!r} is no configuration of the space: {params}")


def parents_first(space: SearchSpace) -> list[Param]:
    """The parameters, each after those that its condition names."""
    order: list[Param] = []
    while len(order) < len(space):
        known = {p.name for p in order}
        order += [p for p in space.params if p.name not in known and all(w.parent in known for w in p.when)]
    return order


def task_of(record: Record, source: Source, evaluate: Callable[[Params], Result], space: SearchSpace) -> Task:
    """A task of the data folder around its evaluation."""
    id_, stats = str(record["id"]), record["stats"]
    defaults = {s["name"]: s["default"] for s in specs_of(record, source.spaces) if "default" in s}
    dataset = record["dataset"].get("name") or f"OpenML {next(iter(record['dataset'].values()))}"
    words = f"{source.spaces[record['space']]['model']}. Data set {dataset}."
    return Task(
        id=id_,
        family=str(record["family"]),
        words=source.words.get(id_, words),
        metric=str(record["objective"]),
        direction="minimize" if record["direction"] == "min" else "maximize",
        space=space,
        stats=Stats(stats["best"], stats["median"], bool(record.get("log_objective")), stats["rs30_norm_regret"]),
        evaluate=evaluate,
        default=fitted(space, defaults, f"{id_}: default") if defaults else None,
        recorded=tuple(fitted(space, raw, f"{id_}: recorded") for raw in source.recorded.get(id_, ())),
        snap=getattr(evaluate, "nearest", None),
    )

"""Pools of evaluated configurations: HPO-B, LCBench, xgb_cts. Any other configuration snaps to the nearest one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution
from scipy.spatial import cKDTree

from evals.tasks.base import Array, Params, Record, Result, Source, Task, fitted, space_of, specs_of, task_of
from llmhpo import Param, SearchSpace

_CATEGORY = 2.0  # further apart than any number can be: categories are matched first


@dataclass(frozen=True)
class Pool:
    """The nearest evaluated configuration's value, and that configuration.

    Distance is Euclidean over numbers scaled to [0, 1] (logarithms where the space says so); two categories are
    2 sqrt(2) apart, an inactive number sits at -1.
    """

    path: Path
    objective: str
    specs: Sequence[Record]
    space: SearchSpace

    @cached_property
    def _rows(self) -> tuple[Array, Array, Array | None]:
        with np.load(self.path) as file:
            seconds = np.asarray(file["Y__time"], dtype=float) if "Y__time" in file else None
            return np.asarray(file["X"], dtype=float), self.values(file), seconds

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._vectors(self._rows[0]))

    def values(self, file: Mapping[str, Array]) -> Array:
        """The objective of every row, (n,)."""
        return np.asarray(file[f"Y__{self.objective}"], dtype=float)

    def __call__(self, params: Params) -> Result:
        """Look the nearest row up."""
        _, y, seconds = self._rows
        row, distance = self._find(params)
        value = float(y[row])
        return Result(
            value if math.isfinite(value) else None,
            self._params(row),
            None if seconds is None else float(seconds[row]),
            distance,
        )

    def nearest(self, params: Params) -> Params:
        """The evaluated configuration that stands in for `params`."""
        return self._params(self._find(params)[0])

    def _find(self, params: Params) -> tuple[int, float]:
        x = [math.nan if p.name not in params else _number(p, params) for p in self.space.params]
        distance, row = self._tree.query(self._vectors(np.array([x]))[0])
        return int(row), float(distance)

    def _params(self, row: int) -> Params:
        raw: dict[str, object] = {}
        for param, number in zip(self.space.params, self._rows[0][row].tolist(), strict=True):
            if math.isnan(number):
                continue
            if param.choices:
                grid = [abs(float(cast("float", c)) - number) for c in param.choices] if param.ordered else []
                raw[param.name] = param.choices[int(np.argmin(grid)) if grid else int(number)]
                continue
            d = cast("FloatDistribution | IntDistribution", param.distribution)
            number = min(max(number, d.low), d.high)  # float32 rounding leads out of the range
            raw[param.name] = round(number) if isinstance(d, IntDistribution) else number
        return fitted(self.space, raw, f"{self.path.name} row {row}")

    def _vectors(self, X: Array) -> Array:
        columns: list[Array] = []
        for spec, x in zip(self.specs, X.T, strict=True):
            if spec["type"] == "cat":
                columns += [np.where(x == k, _CATEGORY, 0.0) for k in range(len(spec["choices"]))]
                continue
            values = spec.get("values") or (spec["low"], spec["high"])
            low, high = float(min(values)), float(max(values))
            if spec.get("log"):
                x, low, high = np.log(np.maximum(x, low)), math.log(low), math.log(high)
            columns.append(np.nan_to_num((x - low) / ((high - low) or 1.0), nan=-1.0))
        return np.column_stack(columns)


def _number(param: Param, params: Params) -> float:
    value = params[param.name]
    return float(param.index(value)) if param.choices and not param.ordered else float(cast("float", value))


def read(record: Record, source: Source) -> Task:
    """The task of a record of kind "pool", or of LCBench's curves by their last, real epoch."""
    specs = specs_of(record, source.spaces)
    space = space_of(specs)
    return task_of(record, source, Pool(source.root / record["file"], record["objective"], specs, space), space)

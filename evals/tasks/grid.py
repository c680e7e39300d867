"""Complete tables: FCNet, HPOBench MLP, NAS-Bench-201, NAS-Bench-Graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from evals.tasks.base import Array, Params, Record, Result, Source, Task, space_of, specs_of, task_of
from llmhpo import SearchSpace


@dataclass(frozen=True)
class Grid:
    """A value for every configuration: the row is the mixed-radix number of the parameters in order, last one fastest.

    Several seeds of a training are averaged.
    """

    path: Path
    objective: str
    space: SearchSpace

    @cached_property
    def _arrays(self) -> tuple[Array, Array | None, Array | None]:
        with np.load(self.path) as file:
            y = np.asarray(file[f"Y__{self.objective}"], dtype=float)
            seconds = np.asarray(file["Y__train_time"], dtype=float) if "Y__train_time" in file else None
            index = np.asarray(file["index"]) if "index" in file else None
        return (y if y.ndim == 1 else np.nanmean(y, axis=1)), seconds, index

    def __call__(self, params: Params) -> Result:
        """Look the configuration up."""
        y, seconds, index = self._arrays
        row = 0
        for param in self.space.params:
            row = row * len(param.choices) + param.index(params[param.name])
        if index is not None:
            row = int(index[row])
        value = float(y[row]) if row >= 0 else math.nan
        spent = None if seconds is None or row < 0 else float(seconds[row])
        return Result(value if math.isfinite(value) else None, params, spent)


def read(record: Record, source: Source) -> Task:
    """The task of a record of kind "grid"."""
    space = space_of(specs_of(record, source.spaces))
    return task_of(record, source, Grid(source.root / record["file"], record["objective"], space), space)

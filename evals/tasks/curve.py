"""Pools with learning curves: TaskSet, ImageNet, MNLI, scaling sets. The objective is the final value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evals.tasks.base import Array, Record, Source, Task, space_of, specs_of, task_of
from evals.tasks.pool import Pool


class CurvePool(Pool):
    """A pool whose objective is recorded as such, or is the last point of a curve; a run that broke off has failed."""

    def values(self, file: Mapping[str, Array]) -> Array:
        """The objective of every row, (n,); NaN where the curve does not reach its end."""
        name = f"Y__{self.objective}"
        y = np.asarray(file[name] if name in file else file[f"C__{self.objective}"], dtype=float)
        return y if y.ndim == 1 else y[:, -1]


def read(record: Record, source: Source) -> Task:
    """The task of a record of kind "curve"."""
    specs = specs_of(record, source.spaces)
    space = space_of(specs)
    evaluate = CurvePool(source.root / record["file"], record["objective"], specs, space)
    return task_of(record, source, evaluate, space)

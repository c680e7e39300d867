"""YAHPO Gym's surrogates: mixed and conditional spaces, answered by a network instead of a training.

Surrogates can be exploited by local search: secondary evidence (see the data's README).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from evals.tasks.base import Params, Record, Result, Source, Task, space_of, specs_of, task_of


@lru_cache(maxsize=8)
def _session(path: Path) -> Any:
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError:
        raise ImportError(
            f"{path.parent.name}: YAHPO tasks need onnxruntime; install the extra: pip install 'llmhpo[bench]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


@dataclass(frozen=True)
class Surrogate:
    """A surrogate at full fidelity. An inactive category is "#na#", an inactive number 0."""

    root: Path
    record: Record
    spec: Record

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return cast("dict[str, dict[str, int]]", json.loads((self.root / self.record["encoding"]).read_text()))

    def __call__(self, params: Params) -> Result:
        """Ask the surrogate."""
        fixed = {**self.spec["max_fidelity"], self.spec["instance_param"]: self.record["instance"]}
        given = {**params, **fixed}
        numbers = [float(given.get(name) or 0.0) for name in self.spec["cont_order"]]
        categories = [self._codes[name][str(given.get(name, "#na#"))] for name in self.spec["cat_order"]]
        feed = {"x_cat": np.array([categories], np.int32), "x_cont": np.array([numbers], np.float32)}
        answer = _session(self.root / self.record["file"]).run(None, feed)[0][0]
        outputs = dict(zip(self.spec["outputs"], map(float, answer), strict=True))
        value = outputs[self.record["objective"]]
        if "clip_objective" in self.spec:
            value = float(np.clip(value, *self.spec["clip_objective"]))
        seconds = outputs.get("timetrain", outputs.get("time"))
        return Result(value if math.isfinite(value) else None, params, seconds)


def read(record: Record, source: Source) -> Task:
    """The task of a record of kind "surrogate"."""
    space = space_of(specs_of(record, source.spaces))
    return task_of(record, source, Surrogate(source.root, record, source.spaces[record["space"]]), space)

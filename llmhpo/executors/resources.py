"""What one trial asks a cluster for."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmhpo.errors import ConfigError

_KNOWN = ("cpus", "gpus", "memory_gb")
_WRONG = {
    "cpu": "cpus",
    "num_cpus": "cpus",
    "gpu": "gpus",
    "num_gpus": "gpus",
    "memory": "memory_gb",
    "mem": "memory_gb",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """CPUs, GPUs (fractions share one), memory in GB (10^9 bytes); `others` are a Ray cluster's own names."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, float] | None) -> Resources:
        """Read a table such as `{"gpus": 0.5, "memory_gb": 4}`. Raises: ConfigError."""
        for name, value in (table or {}).items():
            if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"resources[{name!r}]={value!r} is not a number; write resources = {{gpus = 0.5}}")
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"resources[{name!r}]={value!r} is not a finite number from 0 on")
            low = name.lower()
            if name not in _KNOWN and (
                right := _WRONG.get(low) or next(iter(difflib.get_close_matches(low, _KNOWN, 1, 0.8)), "")
            ):
                raise ConfigError(f"resources has {name!r}; write {right!r}")
        table = dict(table or {})
        cpus, gpus, memory = table.pop("cpus", 1.0), table.pop("gpus", 0.0), table.pop("memory_gb", None)
        if gpus > 1 and gpus != int(gpus):
            raise ConfigError(f"resources['gpus']={gpus!r}: above one GPU only whole numbers can be had")
        return cls(float(cpus), float(gpus), memory, table)

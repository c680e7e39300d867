"""The executors of other machines, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from llmhpo.errors import ConfigError
from llmhpo.executors.base import Executor, Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.settings import NodeSettings

KINDS = ("local", "ray", "slurm")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where jobs run: on this machine, or as `RayExecutor` or `SlurmExecutor` describe. `slurm` holds submitit's parameters,
    `data` what jobs read besides their own folder, where a cluster or a sandbox must know.

    Raises: ConfigError.
    """

    kind: str = "local"
    ray_address: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    slurm: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"executor={self.kind!r} is unknown; write one of: {', '.join(map(repr, KINDS))}")
        only = {"ray_address": ("ray",), "data": ("local", "ray"), "resources": ("ray", "slurm"), "slurm": ("slurm",)}
        for name, kinds in only.items():
            if getattr(self, name) and self.kind not in kinds:
                others = " or ".join(f"executor = {kind!r}" for kind in kinds)
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} does nothing with executor={self.kind!r}; it needs {others}"
                )


def make_remote(
    placement: Placement,
    work: CommandTemplate | Objective,
    *,
    workers: int,
    cwd: Path,
    folder: Path,
    gpus: object = None,
    gpus_per_trial: float | None = None,
    **settings: Unpack[NodeSettings],
) -> Executor:
    """The executor of a `placement` that is not local; `settings` are arguments of `LocalExecutor`. Raises: ConfigError."""
    if gpus is not None:
        raise ConfigError(
            f"gpus={gpus!r} names devices of this machine; on a cluster write resources = {{gpus = 1}} (for each trial)"
        )
    if gpus_per_trial is not None:
        raise ConfigError(
            f"gpus_per_trial={gpus_per_trial!r} divides devices of this machine; on a cluster write "
            f"resources = {{gpus = {gpus_per_trial:g}}}"
        )
    common: dict[str, Any] = {"workers": workers, "resources": placement.resources, **settings}
    if placement.kind == "ray":
        from llmhpo.executors.ray_cluster import RayExecutor

        return RayExecutor(work, address=placement.ray_address, cwd=cwd, data=placement.data, **common)
    from llmhpo.executors.slurm import SlurmExecutor

    return SlurmExecutor(work, folder=folder / "slurm", parameters=placement.slurm, **common)

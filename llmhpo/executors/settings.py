"""What other executors tell the `LocalExecutor` that they run jobs by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from llmhpo.executors.limits import Limits
from llmhpo.executors.scorer import Scorer
from llmhpo.sandbox.base import Sandbox


class NodeSettings(TypedDict, total=False):
    """Arguments of `LocalExecutor` that hold on whatever machine a job runs."""

    limits: Limits | None
    metric_pattern: str | None
    grace_s: float
    env: Mapping[str, str] | None
    pass_env: Sequence[str]
    log_limit: int


class LocalSettings(NodeSettings, total=False):
    """Arguments of `LocalExecutor` that hold on this machine."""

    workers: int
    gpus: Sequence[str] | None
    gpus_per_trial: float | None
    sandbox: Sandbox | None
    write: Sequence[Path]
    scorer: Scorer | None


def complete(given: NodeSettings) -> dict[str, Any]:
    """The settings with the defaults of those that the cluster executors read themselves; ready to be pickled."""
    return {
        "grace_s": 5.0,
        "log_limit": 1 << 20,
        **given,
        "env": dict(given.get("env") or {}),
        "pass_env": tuple(given.get("pass_env", ())),
    }

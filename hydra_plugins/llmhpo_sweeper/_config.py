"""The keys of `hydra.sweeper`. In a module of its own, since Hydra runs those that it scans in a way that dataclasses do not bear."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class SweeperConf:
    """The keys of `hydra.sweeper`. They mean what they mean in study.toml; `n_jobs` go to the launcher at a time.

    `params` are overrides such as `{lr: "tag(log, interval(1e-5, 1))"}`; those of the command line come after them.
    `storage` None is a SQLite file in the folder of the sweep: with a fixed `hydra.sweep.dir` the same command goes on.
    """

    _target_: str = "hydra_plugins.llmhpo_sweeper.sweeper.LLMHPOSweeper"
    direction: str = ""
    task: str = ""
    metric: str = "value"
    n_trials: int = 20
    n_jobs: int = 1
    llm: str = "auto"
    base_url: str | None = None
    noisy: bool = False
    seed: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_requests: int | None = None
    stop_at: float | None = None
    stop_stale: int | None = None
    stop_gain: float | None = None
    max_wall_s: float | None = None
    storage: str | None = None
    study_name: str = "sweep"
    warm_start: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

"""The sweep: ask for configurations, have Hydra's launcher run them, tell what came of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.llmhpo_sweeper._overrides import Overrides, read_overrides
from llmhpo.errors import ConfigError
from llmhpo.history import one_line, show_number
from llmhpo.study import Study
from llmhpo.trial import Outcome, Trial

if TYPE_CHECKING:
    from hydra_plugins.llmhpo_sweeper.sweeper import LLMHPOSweeper

_log = logging.getLogger(__name__)
_HOPELESS = 5  # first trials that all fail end a sweep
_OF_STUDY = ("task", "metric", "direction", "n_trials", "llm", "base_url", "noisy", "seed", "max_tokens", "max_usd", "max_requests",
             "stop_at", "stop_stale", "stop_gain", "max_wall_s", "warm_start")  # fmt: skip
RESULTS = "optimization_results.yaml"


def sweep(sweeper: LLMHPOSweeper, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the study of a multirun to its end; its best configuration, which also lies in the sweep's folder as `RESULTS`.

    Trials that a killed sweep left open are run first. Raises: LLMHPOError; the job's own error where its first trials all fail.
    """
    s: dict[str, Any] = {
        n: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for n, v in sweeper.settings.items()
    }
    if not s["direction"]:
        raise ConfigError(
            "direction is missing; add hydra.sweeper.direction=minimize or hydra.sweeper.direction=maximize"
        )
    given = [f"{name}={value}" for name, value in s["params"].items()]
    overrides = read_overrides([*given, *arguments], sweeper.config, sweeper.hydra_context.config_loader)
    folder = Path(sweeper.config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    storage = s["storage"] or f"sqlite:///{folder.resolve() / 'study.db'}"
    with Study(
        overrides.space, storage=storage, study_name=s["study_name"], **{name: s[name] for name in _OF_STUDY}
    ) as study:
        _log.info(
            "study %r in %s: %d trials of %s",
            study.study_name,
            storage,
            s["n_trials"],
            ", ".join(overrides.space.names),
        )
        _run(study, overrides, sweeper, s["n_jobs"])
        return _results(study, folder)


def _run(study: Study, overrides: Overrides, sweeper: LLMHPOSweeper, n_jobs: int) -> None:
    errors: list[BaseException] = []
    while trials := list(study.pending) or _asked(study, n_jobs):
        for group in _consecutive(trials):
            jobs = [overrides.of(t.params) for t in group]
            sweeper.check(jobs)
            for trial, job in zip(group, sweeper.launcher.launch(jobs, initial_job_idx=group[0].number), strict=True):
                outcome, error = _outcome(job, study.result.task.metric)
                study.tell(trial, outcome=outcome)
                errors += [error] if error is not None else []
                _log.info("trial %d: %s", trial.number, outcome.message or show_number(outcome.value or 0.0))
        ended = [t for t in study.trials if t.proposal.source != "imported" and t.outcome is not None]
        if len(ended) >= _HOPELESS and errors and not any(t.value is not None for t in ended):
            raise errors[-1]


def _asked(study: Study, n_jobs: int) -> list[Trial]:
    """The next trials, as many as the launcher gets at a time; none where the study is over."""
    if study.stop is not None:
        _log.info("over: %s", study.stop.message)
        return []
    left = study.n_left
    return study.ask(n_jobs if left is None else min(n_jobs, left))


def _consecutive(trials: Sequence[Trial]) -> list[list[Trial]]:
    """In groups of consecutive numbers, so that a job's folder has its trial's number."""
    groups = [[trials[0]]]
    for before, trial in pairwise(trials):
        if trial.number == before.number + 1:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def _outcome(job: JobReturn, metric: str) -> tuple[Outcome, BaseException | None]:
    """How a job ended, and its error if it failed."""
    if job.status != JobStatus.COMPLETED:
        try:
            job.return_value  # noqa: B018 - raises what the job raised
        except Exception as error:  # noqa: BLE001 - any error of the user's own code
            return Outcome("failed", message=f"{type(error).__name__}: {error}"), error
    found = job.return_value
    metrics = {str(k): float(v) for k, v in found.items()} if isinstance(found, Mapping) else {}
    value: Any = metrics.get(metric) if metrics else found
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        where = f"no number under {metric!r}" if metrics else f"{value!r}, which is no number"
        problem = ConfigError(f"the application returned {where}; let its main function return the metric")
        return Outcome("failed", message=str(problem)), problem
    if not math.isfinite(float(value)):
        return Outcome("failed", message=f"the value {value!r} is not finite"), None
    return Outcome("ok", float(value), metrics=metrics), None


def _results(study: Study, folder: Path) -> dict[str, Any]:
    best = study.best
    found: dict[str, Any] = {"name": "llmhpo"}
    if best is not None:
        found |= {
            "best_evaluated_params": dict(best.params),
            "best_evaluated_result": best.value,
            "best_trial": best.number,
        }
        _log.info("best: trial %d, %s: %s", best.number, show_number(best.value or 0.0), one_line(best.params))
    OmegaConf.save(OmegaConf.create(found), folder / RESULTS)
    return found

"""What every executor looks like: a job in, a future outcome out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llmhpo.errors import ConfigError
from llmhpo.trial import Outcome, Params, Task

Metrics = Mapping[str, float]
Objective = Callable[[dict[str, object]], "float | Metrics"]


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to run.

    `directory` belongs to this job alone: parameters, result, reports and logs lie there afterwards. `code` is the revision
    that it runs ("": the user's tree as it stands); `split` names the data that it is scored on.

    `tree` is the folder that the command runs in instead of its own: a checkout of `code`. In a sandbox a job sees that
    folder and `read`, may write into `directory` and `write`, and finds `hide` empty, also where it lies below one of the others.
    """

    number: int
    params: Params
    task: Task
    directory: Path
    seed: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    split: str = "search"
    tree: Path | None = None
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hide: tuple[Path, ...] = ()


RETRIES = 2


def check_retries(retries: object) -> None:
    """Raises: ConfigError where `retries` is no whole number from 0 on."""
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigError.of_option("retries", retries, "is not a whole number from 0 on")


class Executor(Protocol):
    """Runs jobs, `workers` of them at once. A job's end, whatever it is, is an `Outcome`; only our own bugs raise."""

    workers: int

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. The future ends with its outcome, or is cancelled by `shutdown`."""
        ...

    def shutdown(self, *, kill: bool) -> None:
        """Wait for the running jobs (`kill=False`) or end their whole process trees now. Queued jobs are cancelled."""
        ...

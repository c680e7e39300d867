"""What happens in a study, told as it happens: the loop yields these, faces and tests read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmhpo.trial import Batch, Trial
from llmhpo.usage import Usage

StopReason = Literal["budget", "hopeless"]  # hopeless: the first trials all failed, for one reason


@dataclass(frozen=True, slots=True)
class Opened:
    """The study is open; `done` trials had ended before and `again` were running and are run again."""

    study_name: str
    done: int
    again: int
    n_trials: int
    best: Trial | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class Consulting:
    """The model is being asked for `n` configurations."""

    n: int


@dataclass(frozen=True, slots=True)
class Consulted:
    """The model was asked, and this is what came of it."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Launched:
    """A trial was committed and its job was launched."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial ended and its outcome was committed; `is_best` where it is the new incumbent."""

    trial: Trial
    is_best: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """No more trials are run in this session."""

    reason: StopReason
    best: Trial | None
    usage: Usage


Event = Opened | Consulting | Consulted | Launched | Finished | Stopped

"""What happens in a study, told as it happens: the loop yields these, faces and tests read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmhpo.transfer import Transfer
from llmhpo.trial import Batch, Trial
from llmhpo.usage import Usage

# budget: n_trials. hopeless: the first trials all failed, for one reason. paused: somebody asked for it. steered: a parameter was
# added, which the executor must be made anew for. The others are the rules of `StopRules`.
StopReason = Literal["budget", "hopeless", "target", "stale", "gain", "wall", "paused", "steered"]


@dataclass(frozen=True, slots=True)
class Opened:
    """The study is open; `done` of its own trials had ended before and `again` were running and are run again.

    `transfers` say what came from other studies, now or in earlier sessions.
    """

    study_name: str
    done: int
    again: int
    n_trials: int
    best: Trial | None
    usage: Usage
    transfers: tuple[Transfer, ...] = ()


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
    """A trial ended and its outcome was committed; `is_best` where its configuration is the new incumbent.

    `best` is the incumbent now. Where values are noisy it may be another than before without being `trial`: the value of a
    trial says something on those of its neighbours.
    """

    trial: Trial
    is_best: bool
    best: Trial | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A run that confirms `which` configuration, "best" or "default", ended; `trial` is one of the confirmation, not of the
    search. `done` of `total` have.
    """

    which: str
    trial: Trial
    seed: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """No more trials are run in this session; `message` says why, and how to go on."""

    reason: StopReason
    best: Trial | None
    usage: Usage
    message: str = ""


Event = Opened | Consulting | Consulted | Launched | Finished | Confirmed | Stopped

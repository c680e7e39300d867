"""A trial and its parts: what is proposed, what came of it, and all that an agent may see."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Literal, cast

from llmhpo.errors import ConfigError
from llmhpo.steering import Steering
from llmhpo.usage import Usage

if TYPE_CHECKING:
    from llmhpo.prior import Prior
    from llmhpo.revision import Revision
    from llmhpo.space import Params, SearchSpace
    from llmhpo.transfer import Transfer
else:
    Params = dict  # a name of a type: a cluster's node only runs jobs, and needs no Optuna

__all__ = [
    "Attempt",
    "Bounds",
    "Context",
    "Direction",
    "Outcome",
    "Params",
    "Proposal",
    "Provenance",
    "Status",
    "Tally",
    "Task",
    "Trial",
    "best_trial",
    "confirm_seed",
]

Direction = Literal["minimize", "maximize"]
Bounds = tuple[float | None, float | None]
Status = Literal["ok", "failed", "timeout", "oom", "pruned", "invalid"]
REPEAT = "repeat"  # the source of a trial that runs a configuration again on purpose
CARRIED = "carried"  # the source of a trial that another revision of the code ran, in the context of one that did not
IMPORTED = "imported"  # the source of a trial that another study ran

_SEEDS = 2**30  # each of search and confirmation has so many: the lower half of 31 bits, and the upper
_SEED_STEP = 0x1E3779B1  # odd, so that no two of them are equal; large, so that neighbouring studies share none


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be achieved, in words and in numbers.

    `text` is the user's own description and reaches the model as data. `metric` is the key under which a job reports
    its result. `timeout_s` bounds one trial's wall-clock time. `noisy` says that the same configuration gives other values
    with another seed: each trial then has a seed of its own, and some repeat a configuration. `bounds` is the least and the
    largest that the metric can be at all (None: no bound on that side); a trial that reports more is invalid.
    """

    text: str = ""
    metric: str = "value"
    direction: Direction = "minimize"
    timeout_s: float | None = None
    noisy: bool = False
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ConfigError(
                f"the task's text={self.text!r} is not a string; describe the task in words, or leave it out"
            )
        if not isinstance(self.metric, str) or not self.metric:
            raise ConfigError(
                f"metric={self.metric!r} is not a name; give the key under which the job reports its result"
            )
        if self.direction not in ("minimize", "maximize"):
            raise ConfigError(f"direction={self.direction!r} is neither 'minimize' nor 'maximize'")
        if self.timeout_s is not None and not (_is_finite(self.timeout_s) and self.timeout_s > 0):
            raise ConfigError(f"timeout_s={self.timeout_s!r} is not a positive number of seconds")
        if not isinstance(self.noisy, bool):
            raise ConfigError(f"noisy={self.noisy!r} is neither True nor False")
        if self.bounds is not None:
            object.__setattr__(self, "bounds", _checked_bounds(self.bounds))

    def job_seed(self, study_seed: int, number: int) -> int:
        """The seed that trial `number` is run with, below 2**31: the study's own for all, or with `noisy` one for each."""
        return (study_seed + number * _SEED_STEP) % _SEEDS if self.noisy else study_seed

    def loss(self, value: float) -> float:
        """`value` turned so that lower is better."""
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which request of which model a proposal came from, and its share of what the consultation cost.

    All proposals of a batch bear the same share; `usd` is None where the model's price is not known.
    """

    model: str
    prompt: str  # template and version, "propose.v1"
    prompt_hash: str
    request: int  # number of the request within the study
    tokens: float = 0.0
    usd: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to try. `source` names who proposed it: "default", "llm", "tpe", "gp", "random", ...

    `code` is the id of the revision that it is for ("": the code as the user wrote it). `twin` is the number of the trial
    whose seed it is run with, for two revisions to be compared (None: its own).
    """

    params: Params
    source: str
    rationale: str = ""
    provenance: Provenance | None = None
    code: str = ""
    twin: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended. `value` is the metric in the user's units; it is finite exactly where `status` is "ok".

    `curve` holds (step, value) pairs of the metric that the job reported on its way; `message` says in one line why a
    trial is not ok; `log_tail` is the bounded end of what it printed.

    `self_reported` says that code which the model may edit computed the value itself, for want of a scorer. `fingerprint`
    is a digest of the predictions, or of the losses: equal ones mean candidates that do the same. `flags` names the tripwires
    that the trial touched; `sandbox` is the level of isolation it ran in, with its version ("": none). `lost` says that this
    attempt was cut off from outside and says nothing about the configuration: it may be run again; no record keeps it.
    """

    status: Status
    value: float | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[tuple[int, float]] = ()
    message: str = ""
    log_tail: str = ""
    self_reported: bool = False
    fingerprint: str = ""
    flags: tuple[str, ...] = ()
    sandbox: str = ""
    lost: bool = False

    def __post_init__(self) -> None:
        if self.status == "ok" and not _is_finite(self.value):
            raise ConfigError(
                f"an outcome 'ok' with value={self.value!r}; give a finite number, or the status 'failed'"
            )
        if self.status != "ok" and self.value is not None:
            raise ConfigError(
                f"an outcome {self.status!r} with value={self.value!r}; leave the value out, or make it 'ok'"
            )


@dataclass(frozen=True, slots=True)
class Trial:
    """One numbered trial; `outcome` is None while it runs.

    `evaluated` is the configuration that was really run, where that was another than the proposed one.
    """

    number: int
    proposal: Proposal
    outcome: Outcome | None = None
    evaluated: Params | None = None

    @property
    def params(self) -> Params:
        """The configuration that was tried."""
        return self.proposal.params if self.evaluated is None else self.evaluated

    @property
    def value(self) -> float | None:
        """The metric in the user's units; None while running and where the trial did not end well."""
        return None if self.outcome is None else self.outcome.value


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch of a trial, committed before it happens: a trial is launched again where a launch was lost or interrupted.

    `index` counts from 1. `token` is random: it marks the processes and the result of this attempt. `folder` is the name
    of its folder, `revision` that of the space, `epoch` that of the controller. `cancelled` says that we ended it. `code` is
    the revision of the code that it ran ("": the user's tree as it stood).
    """

    index: int
    token: str
    folder: str
    seed: int
    revision: str
    command: str = ""
    epoch: int = 0
    cancelled: bool = False
    code: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the replies of one consultation were worth, counted in configurations over all of its turns.

    `asked` for, `offered` in replies that could be read, `inside` the ranges and choices of all parameters, `valid` by every rule
    of the space, `repeated` among the valid ones, `dropped` by the critic. `critic` is what that second pass cost, which is part of
    the batch's usage. `model` is its own name for itself, `prompt` the template with its version.
    """

    model: str
    prompt: str
    asked: int = 0
    offered: int = 0
    inside: int = 0
    valid: int = 0
    repeated: int = 0
    dropped: int = 0
    critic: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Part:
    """What one model of several gave to a consultation.

    `name` is the model's spec; its requests have the numbers from `first` to before `first + usage.calls`, by which its proposals
    are known. `error` is set where no reply came of it. `seconds` is what it took, 0 where that was not noted.
    """

    name: str
    first: int
    usage: Usage
    tally: Tally | None = None
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one consultation of the model gave, good or not; recorded before any of it is used.

    `kind` is the prompt ("warmstart", "propose", "edit"), `at` the number of trials begun when it was asked, `asked` how many
    configurations were asked for. `problems` lists what was wrong with the replies; `error` is set where no reply came,
    and `fatal` where asking again is pointless (a wrong key). `prior` is what the model said it believes, if it did.
    `revisions` are the edits that came of it, `code` the revision that it was asked to edit. `tally` counts what its replies were
    worth; None for edits, for a consultation that got no reply, and in studies of old. `parts` says which of several models gave what.
    """

    kind: str
    at: int
    asked: int
    proposals: tuple[Proposal, ...] = ()
    usage: Usage = field(default_factory=Usage)
    problems: tuple[str, ...] = ()
    error: str = ""
    fatal: bool = False
    seconds: float = 0.0
    prior: Prior | None = None
    revisions: tuple[Revision, ...] = ()
    code: str = ""
    tally: Tally | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """All that an agent may see.

    `trials` is ordered by number and includes those that still run; `batches` are the consultations of the model so
    far; `budget_left` counts the trials that may still be begun (None: not known). `baseline` is the user's code as it
    stood when the study began, where code may be edited. `transfers` say what came from other studies. `elsewhere` is what consultations cost that are not in `batches`,
    `lost` the most that requests may have cost of which nothing is known: a session died while they were under way.
    `steering` is what the person has said since the study began; `space` has its changes already.
    """

    task: Task
    space: SearchSpace
    trials: tuple[Trial, ...] = ()
    budget_left: int | None = None
    seed: int = 0
    batches: tuple[Batch, ...] = ()
    baseline: Revision | None = None
    transfers: tuple[Transfer, ...] = ()
    elsewhere: Usage = field(default_factory=Usage)
    lost: Usage = field(default_factory=Usage)
    steering: Steering = field(default_factory=Steering)

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """All edits of the code so far, oldest first, each once; the baseline is none."""
        return tuple({r.id: r for batch in self.batches for r in batch.revisions}.values())

    def lineage(self, code: str) -> tuple[Revision, ...]:
        """The edits that led from the baseline to the revision `code`, its own last; () for the baseline."""
        known = {r.id: r for r in self.revisions}
        line: list[Revision] = []
        while code in known and known[code] not in line:
            line.append(known[code])
            code = line[-1].parent
        return tuple(reversed(line))

    def space_of(self, code: str) -> SearchSpace:
        """The space of a revision: the study's own, and the hyperparameters that were declared on the way to it."""
        return self.space.extended([p for revision in self.lineage(code) for p in revision.hyperparameters])

    def within(self, code: str) -> Context:
        """The study as if there were only the revision `code`: its space, its trials, and what was said about them.

        Trials keep their numbers. Consultations belong to the baseline but for those on edits, which belong to none;
        their places are counted in the trials that are left.
        """
        if self.baseline is None:
            return self
        trials = tuple(t for t in self.trials if t.proposal.code == code)
        about = [b for b in self.batches if code == "" and b.kind != "edit"]
        batches = tuple(replace(b, at=sum(t.number < b.at for t in trials)) for b in about)
        elsewhere = sum((b.usage for b in self.batches if b not in about), self.elsewhere)
        return replace(self, space=self.space_of(code), trials=trials, batches=batches, elsewhere=elsewhere)

    @property
    def prior(self) -> Prior | None:
        """What the model believes about good values, as it first said; None while it has said nothing."""
        return next((b.prior for b in self.batches if b.prior is not None), None)

    @property
    def own(self) -> tuple[Trial, ...]:
        """The trials that this study runs itself, by number; those that were `IMPORTED` count in no budget."""
        return tuple(t for t in self.trials if t.proposal.source != IMPORTED) if self.transfers else self.trials

    @property
    def usage(self) -> Usage:
        """What the model has cost so far."""
        return sum((b.usage for b in self.batches), self.elsewhere + self.steering.talk)

    @property
    def finished(self) -> tuple[Trial, ...]:
        """Trials that ended well, by number."""
        return tuple(t for t in self.trials if t.value is not None)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Trials that ended without a value, by number."""
        return tuple(t for t in self.trials if t.outcome is not None and t.value is None)

    @property
    def pending(self) -> tuple[Trial, ...]:
        """Trials that still run, by number."""
        return tuple(t for t in self.trials if t.outcome is None)

    @property
    def best(self) -> Trial | None:
        """The trial with the best observed value; where values are noisy, `surrogates.incumbent` knows better."""
        return best_trial(self.trials, self.task)


def best_trial(trials: Sequence[Trial], task: Task) -> Trial | None:
    """The trial with the best value, the earliest of equals; None while there is none."""
    valued = [(task.loss(t.value), t.number, t) for t in trials if t.value is not None]
    return min(valued, key=lambda item: item[:2])[2] if valued else None


def confirm_seed(study_seed: int, round_: int) -> int:
    """The seed of a round of a confirmation: one that no trial of the search has."""
    return _SEEDS + (study_seed + (round_ + 1) * _SEED_STEP) % _SEEDS


def _checked_bounds(bounds: object) -> Bounds:
    """(low, high) with None for no bound. Raises: ConfigError."""
    if isinstance(bounds, Sequence) and len(bounds) == 2:
        low, high = (None if isinstance(end, float) and abs(end) == float("inf") else end for end in bounds)
        numbers = [end for end in (low, high) if end is not None]
        are_numbers = all(_is_finite(end) and not isinstance(end, bool) for end in numbers)
        if are_numbers and (len(numbers) < 2 or numbers[0] < numbers[1]):
            return low, high
    raise ConfigError(f"metric_bounds={bounds!r} is not the least and the largest value of the metric, such as [0, 1]")


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and abs(cast("float", value)) <= sys.float_info.max

"""What each source's proposals were worth: counted from the study's record, by source, model and template."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from optuna.distributions import FloatDistribution

from llmhpo.param import Param
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import CARRIED, Batch, Context, Part, Proposal, Tally, Task, Trial
from llmhpo.usage import Usage

_NEAR_END = 0.01  # of a range, on its scale: nearer to an end than this a value hugs it
_MANY_VALUES = 10  # of a number: of fewer the ends are values like others
_FINE = 100  # values of an integer, from which on a single significant digit is a choice
_LAST = 3  # consultations that say what a model can do
_ENOUGH = 4  # configurations asked for, to judge a model's replies by
_HALF, _NEARLY_ALL = 0.5, 0.9  # shares of valid ones
_FLUENT = 30.0  # tokens a second at which reasons cost a compact model little time
_GIVEN = 4.0  # configurations that a model is taken to have offered well before it said anything


class Origin(NamedTuple):
    """Who proposed: the source of a trial and, where that is a model, its name and the template that asked it."""

    source: str
    model: str = ""
    prompt: str = ""


@dataclass(slots=True)
class Quality:
    """What came of one origin. Counts are of configurations, but for `numbers` and what they are divided by.

    `asked`, `offered`, `inside`, `valid`, `repeated`, `dropped`: see `Tally`; 0 where nothing was counted (`counted` False).
    `numbers` are values of numeric parameters in what was proposed, `hugging` those within a hundredth of an end of their
    range; `fine` are those that could have many digits, `rounded` those of them that have one significant digit. `improvement` is
    the sum of what its trials improved on the best before them, in the metric's units; `best_trials` counts these.
    """

    origin: Origin
    usage: Usage = field(default_factory=Usage)
    critic: Usage = field(default_factory=Usage)
    consultations: int = 0
    asked: int = 0
    offered: int = 0
    inside: int = 0
    valid: int = 0
    repeated: int = 0
    dropped: int = 0
    counted: bool = False
    numbers: int = 0
    hugging: int = 0
    fine: int = 0
    rounded: int = 0
    trials: int = 0
    failed: int = 0
    best_trials: int = 0
    improvement: float = 0.0

    @property
    def shares(self) -> dict[str, float | None]:
        """Shares in [0, 1] by name; None where there is nothing to divide by.

        Valid and in bounds are of all that was asked for or offered, whichever is more; repeated of what was valid.
        """
        whole = max(self.asked, self.offered) if self.counted else 0
        return {
            "valid": _share(self.valid, whole),
            "in bounds": _share(self.inside, whole),
            "repeated": _share(self.repeated, self.valid),
            "at bounds": _share(self.hugging, self.numbers),
            "rounded": _share(self.rounded, self.fine),
        }

    @property
    def improvement_per_1k_tokens(self) -> float | None:
        """Realised improvement for a thousand tokens, in the metric's units; None for a source that costs none."""
        return None if self.usage.tokens == 0 else 1000.0 * self.improvement / self.usage.tokens


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def qualities(context: Context) -> list[Quality]:
    """One for each source, model and template, in the order in which they first appeared; edits of code are left out."""
    found: dict[Origin, Quality] = {}

    def of(origin: Origin) -> Quality:
        return found.setdefault(origin, Quality(origin))

    looked_at: dict[Origin, list[Params]] = defaultdict(list)
    for batch in context.batches:
        for part in batch.parts:
            silent = Origin("llm", part.name)  # one of several that gave no reply: down, or without a right key
            _add_batch(of(silent if part.tally is None else _origin_of_tally(part.tally)), part)
        if (origin := _origin_of_batch(batch)) is not None and not batch.parts:
            _add_batch(of(origin), batch)
        if origin is not None:
            for proposal in batch.proposals:
                looked_at[origin_of(proposal) if batch.parts else origin].append(proposal.params)
    for trial in context.trials:
        origin = origin_of(trial.proposal)
        of(origin)
        if not origin.model:  # a model's proposals are counted where they were made, tried or not
            looked_at[origin].append(trial.proposal.params)
    _add_trials(found, context.trials, context.task)
    for origin, configurations in looked_at.items():
        _add_values(of(origin), configurations, context.space)
    return list(found.values())


def origin_of(proposal: Proposal) -> Origin:
    """Who made a proposal."""
    if (p := proposal.provenance) is None:
        return Origin(proposal.source)
    return Origin(proposal.source, p.model, p.prompt)


def _origin_of_batch(batch: Batch) -> Origin | None:
    """Who was consulted; None for edits, and where no reply came."""
    if batch.kind == "edit":
        return None
    if batch.tally is not None:
        return _origin_of_tally(batch.tally)
    return origin_of(batch.proposals[0]) if batch.proposals else None


def _origin_of_tally(tally: Tally) -> Origin:
    return Origin("llm", tally.model, tally.prompt)


def _add_batch(quality: Quality, batch: Batch | Part) -> None:
    quality.consultations += 1
    quality.usage += batch.usage
    if (tally := batch.tally) is not None:
        quality.counted = True
        for name in ("asked", "offered", "inside", "valid", "repeated", "dropped"):
            setattr(quality, name, getattr(quality, name) + getattr(tally, name))
        quality.critic += tally.critic


def _add_trials(found: dict[Origin, Quality], trials: Iterable[Trial], task: Task) -> None:
    best: float | None = None
    for trial in trials:
        quality = found[origin_of(trial.proposal)]
        quality.trials += 1
        if trial.value is None:
            quality.failed += trial.outcome is not None
            continue
        loss = task.loss(trial.value)
        if best is not None and loss < best and trial.proposal.source != CARRIED:
            quality.improvement += best - loss
            quality.best_trials += 1
        best = loss if best is None else min(best, loss)


def _add_values(quality: Quality, configurations: Iterable[Params], space: SearchSpace) -> None:
    for params in configurations:
        for param in space.params:
            value = params.get(param.name)
            if param.choices or param.size <= _MANY_VALUES or not isinstance(value, int | float):
                continue
            quality.numbers += 1
            place = param.to_feature(value)
            quality.hugging += place < _NEAR_END or place > 1.0 - _NEAR_END
            if _is_fine(param):
                quality.fine += 1
                quality.rounded += has_one_digit(value)


def _is_fine(param: Param) -> bool:
    """Whether a value of this number can have more significant digits than one without being strange."""
    return param.size > _FINE or (isinstance(param.distribution, FloatDistribution) and not param.distribution.step)


def has_one_digit(value: float) -> bool:
    """Whether a number is 0 or written with one significant digit: 0.001, 300, 2e-5."""
    return value == 0 or len(Decimal(repr(value)).normalize().as_tuple().digits) == 1


# --- what the portfolio makes of it -----------------------------------------------------------------------------------


def usable(context: Context) -> float:
    """Share of what the model was asked for that could be used, in (0, 1]: valid and new. 1 while nothing was counted.

    It begins with `_GIVEN` configurations that were: one bad reply does not damn a model.
    """
    tallies = [b.tally for b in context.batches if b.tally is not None]
    asked = sum(max(t.asked, t.offered) for t in tallies)
    good = sum(t.valid - t.repeated for t in tallies)
    return (good + _GIVEN) / (asked + _GIVEN)


def needs_short(context: Context, *, compact: bool) -> bool:
    """Whether the model is asked by the short template, without reasons: `compact` says so until it has been measured.

    Measured on its latest replies in this study. One that gets under half of what it is asked for right is asked less; a compact
    one that gets nearly all of it right and writes fast is asked as any other.
    """
    asked = [b for b in context.batches if b.tally is not None and b.seconds > 0][-_LAST:]
    tallies = [b.tally for b in asked if b.tally is not None]
    count = sum(max(t.asked, t.offered) for t in tallies)
    if count < _ENOUGH:
        return compact
    valid = sum(t.valid for t in tallies) / count
    if not compact:
        return valid < _HALF
    rate = sum(b.usage.output_tokens for b in asked) / sum(b.seconds for b in asked)
    return not (valid >= _NEARLY_ALL and rate >= _FLUENT)

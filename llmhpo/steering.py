"""What the person has said since the study began: notes for the model, limits on the search, more parameters, other budgets.

All of it is data that the store keeps and the event log tells, so that a resumed or replayed study decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, cast

from llmhpo.errors import ConfigError
from llmhpo.usage import Caps, Usage

Value = float | int | str | bool | None
MOST_NOTE_CHARS = 500
MOST_NOTES = 50
MOST_TASK_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Note:
    """Words for the model. `after` counts the consultations that were over, or under way, when the study took it in.

    -1: it has not been taken in yet.
    """

    text: str
    after: int = -1


@dataclass(frozen=True, slots=True)
class Limit:
    """What of a parameter's range is still searched: from `low` to `high`, or one of `values` where there are any."""

    low: float = -math.inf
    high: float = math.inf
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What replaces a study's own limits; None leaves them as they are."""

    n_trials: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_requests: int | None = None
    max_wall_s: float | None = None

    def over(self, caps: Caps) -> Caps:
        """The caps on the model's bill with these in their place."""
        given = {
            name: value
            for name in ("max_tokens", "max_usd", "max_requests")
            if (value := getattr(self, name)) is not None
        }
        return replace(caps, **given) if given else caps


@dataclass(frozen=True, slots=True)
class Steering:
    """The state of all that was said; the last one holds.

    `limits` narrow or freeze parameters by name. `params` are tables, as in study.toml, of parameters that were `added`, and of
    those whose range is wider than at the beginning. `task` replaces the words that describe the task, where it is not empty.
    `arguments` go to the end of the command, for what was added. `talk` is what the conversation with the model has cost.
    """

    notes: tuple[Note, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    arguments: str = ""
    budget: Budget = field(default_factory=Budget)
    talk: Usage = field(default_factory=Usage)
    task: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        limits = {
            name: {"values": list(limit.values)}
            if limit.values
            else {k: v for k, v in (("low", limit.low), ("high", limit.high)) if math.isfinite(v)}
            for name, limit in self.limits.items()
        }
        whole: dict[str, Any] = {
            "notes": [asdict(note) for note in self.notes],
            "limits": limits,
            "params": {name: dict(table) for name, table in self.params.items()},
            "added": list(self.added),
            "arguments": self.arguments,
            "budget": {k: v for k, v in asdict(self.budget).items() if v is not None},
            "talk": {} if self.talk == Usage() else asdict(self.talk),
            "task": self.task,
        }
        return {name: value for name, value in whole.items() if value}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """What `to_dict` gave. Raises: ConfigError for anything else."""
        try:
            return cls(
                notes=tuple(Note(str(n["text"])[:MOST_NOTE_CHARS], int(n["after"])) for n in raw.get("notes", ())),
                limits={name: _limit(limit) for name, limit in raw.get("limits", {}).items()},
                params={name: dict(table) for name, table in raw.get("params", {}).items()},
                added=tuple(map(str, raw.get("added", ()))),
                arguments=str(raw.get("arguments", "")),
                budget=Budget(**raw.get("budget", {})),
                talk=Usage(**raw.get("talk", {})),
                task=str(raw.get("task", ""))[:MOST_TASK_CHARS],
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{str(raw)[:200]!r} is no state of a study's steering ({error}); remove it") from None

    def taken_in(self, consultations: int, before: Steering) -> Steering:
        """With every new note marked as said after so many consultations, and every older one as it was marked `before`."""
        known = {note.text: note.after for note in before.notes}
        notes = tuple(Note(n.text, known.get(n.text, consultations)) if n.after < 0 else n for n in self.notes)
        return replace(self, notes=notes)

    @property
    def last_note(self) -> Note | None:
        """The latest of the notes that the study has taken in."""
        return max((n for n in self.notes if n.after >= 0), key=lambda n: n.after, default=None)


def _limit(raw: Mapping[str, Any]) -> Limit:
    low, high = float(raw.get("low", -math.inf)), float(raw.get("high", math.inf))
    return Limit(low, high, tuple(cast("list[Value]", raw.get("values", ()))))

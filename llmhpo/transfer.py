"""What became of another study's trials, when they were taken over as history of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Transfer:
    """What became of the trials of another study.

    `origin` says where it lies. Of its `offered` trials `taken` are history here; `left_out` counts the others by reason, `filled`
    counts by parameter the trials that took a default, `ignored` are old parameters that this space does not have.
    """

    origin: str
    offered: int
    taken: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.taken} of {self.offered} trials of {self.origin} are history here"]
        parts += [f"left out: {_counted(self.left_out)}"] if self.left_out else []
        parts += [f"defaults filled in: {_counted(self.filled)}"] if self.filled else []
        parts += [f"not in this space: {few(self.ignored)}"] if self.ignored else []
        return "; ".join(parts)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items(), key=lambda item: -item[1])[:_MOST_NAMES])


def few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

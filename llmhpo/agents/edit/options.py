"""How a study searches for edits: what its user may set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from llmhpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EditOptions:
    """Settings of the search for edits.

    `share` is the largest part of the trials, in (0, 1], that may be the first of a new edit. `candidates` is how many edits
    one request asks for. `max_lines` bounds the lines that one edit adds and removes. `descriptors` name reported metrics
    ("seconds" is the trial's time) by which the elites are kept apart: one in each cell of a factor of two.

    Raises: ConfigError.
    """

    share: float = 0.5
    candidates: int = 2
    max_lines: int = 400
    descriptors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.share, int | float) and 0 < self.share <= 1):
            raise ConfigError(
                f"edits.share={self.share!r} is not a part of the trials; give a number above 0 and up to 1"
            )
        for name, value in (("candidates", self.candidates), ("max_lines", self.max_lines)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"edits.{name}={value!r} is not a whole number from 1 on")
        names: object = self.descriptors
        if not isinstance(names, tuple) or not all(isinstance(d, str) and d for d in names):
            raise ConfigError(
                f"edits.descriptors={self.descriptors!r} is not a list of metrics; give names such as ['parameters']"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON reads it back."""
        return asdict(self) | {"descriptors": list(self.descriptors)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """From what `to_dict` gave."""
        return cls(**{**raw, "descriptors": tuple(raw.get("descriptors", ()))})

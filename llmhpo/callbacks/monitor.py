"""What all callbacks share: which value is watched, and what is handed in at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from llmhpo import job
from llmhpo.errors import ConfigError

HandIn = Literal["last", "min", "max", "no"]


class Monitor:
    """Reports the values of `metric` to the study and, unless `hand_in` is "no", hands one in when training ends.

    `hand_in`: the "last" value, or the smallest ("min") or largest ("max") one. The smallest of noisy values is a lucky one:
    use it only where the weights of that step are what is kept.

    Raises: ConfigError for another `hand_in`; `finish`, where the metric was never seen.
    """

    def __init__(self, metric: str, hand_in: HandIn = "last") -> None:
        if hand_in not in ("last", "min", "max", "no"):
            raise ConfigError(f"hand_in={hand_in!r} is none of 'last', 'min', 'max', 'no'")
        self.metric, self.hand_in = metric, hand_in
        self._values: list[float] = []
        self._step = -1
        self._known: set[str] = set()

    def see(self, values: Mapping[str, object], step: int | None = None) -> None:
        """Values that a framework computed, of which one may be the metric. Without a `step` they are counted."""
        self._known |= set(values)
        number = job.plain(values.get(self.metric))
        if isinstance(number, bool) or not isinstance(number, int | float):
            return
        self._step = self._step + 1 if step is None else step
        self._values.append(float(number))
        job.report(self._step, float(number))

    def finish(self) -> None:
        """Training has ended."""
        if self.hand_in == "no":
            return
        if not self._values:
            seen = ", ".join(sorted(self._known)) or "no value at all"
            raise ConfigError(
                f"the metric {self.metric!r} was never reported; training reported: {seen}; name one of these"
            )
        pick = {"last": self._values[-1], "min": min(self._values), "max": max(self._values)}
        job.result({self.metric: pick[self.hand_in]})

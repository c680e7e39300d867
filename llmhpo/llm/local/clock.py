"""The time that a request to a local model has."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from llmhpo.errors import LLMUnavailableError

ENDING = threading.Event()  # set when this program ends: whoever is in torch by then aborts the whole process


@dataclass(frozen=True, slots=True)
class Clock:
    """The end of a request's time."""

    end: float
    deadline_s: float
    name: str

    def check(self, place: str) -> None:
        """Raises: LLMUnavailableError once the time is over, or the program ends."""
        if ENDING.is_set():
            raise LLMUnavailableError(f"the local model {self.name!r} was stopped {place}: the program ends")
        if time.monotonic() > self.end:
            raise self.passed(place)

    def passed(self, place: str) -> LLMUnavailableError:
        """The error that says so."""
        return LLMUnavailableError(
            f"the local model {self.name!r} passed its deadline of {self.deadline_s:g} s {place}; "
            "raise the deadline, ask for fewer configurations, or use a smaller model or a GPU"
        )

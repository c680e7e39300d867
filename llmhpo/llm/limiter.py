"""How many requests and tokens a minute go to a service, over all studies of this process together."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from llmhpo.errors import ConfigError

_WINDOW_S = 60.0
_limiters: dict[tuple[str, ...], RateLimiter] = {}
_making = threading.Lock()


@dataclass(slots=True)
class Booking:
    """A request's place in the queue: when it may be sent, on the limiter's clock, and what it may cost."""

    starts: float
    tokens: int


class RateLimiter:
    """Any 60 seconds hold at most `requests_per_minute` requests and `tokens_per_minute` tokens; None is no limit.

    Requests are let through in the order in which they came. One that costs more than a minute's tokens is let through
    alone; one that is sent once more is counted, and not held up. `now` gives seconds that never go back. Other processes are
    not counted: what they take shows as 429.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.set(requests_per_minute, tokens_per_minute)
        self._now, self._sleep = now, sleep
        self._lock = threading.Lock()
        self._booked: deque[Booking] = deque()

    def set(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Change the limits.

        Raises: ConfigError for a limit that is not positive.
        """
        for name, limit in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
            if limit is not None and not (isinstance(limit, int | float) and limit > 0):
                raise ConfigError(f"{name}={limit!r} is not a limit; give a number above 0, or leave it out for none")
        self._requests = math.inf if requests_per_minute is None else max(1, math.floor(requests_per_minute))
        self._tokens = math.inf if tokens_per_minute is None else tokens_per_minute

    def enter(self, tokens: int, longest_s: float) -> Booking | float:
        """Wait until a request that may cost `tokens` may be sent; where that takes over `longest_s`, say at once how long.

        A `Booking` is to be settled once the cost is known.
        """
        with self._lock:
            begun = self._now()
            starts = self._first_start(tokens, begun)
            if starts - begun > longest_s:
                return starts - begun
            booking = Booking(starts, tokens)
            self._booked.append(booking)
        if starts > begun:
            self._sleep(starts - begun)
        return booking

    def settle(self, booking: Booking, tokens: int) -> None:
        """Put what a request has cost in the place of what it might have cost."""
        with self._lock:
            booking.tokens = tokens

    def repeat(self) -> None:
        """Count a request that is sent once more, at once: it has had its turn."""
        with self._lock:
            last = self._booked[-1].starts if self._booked else self._now()
            self._booked.append(Booking(max(last, self._now()), 0))

    def _first_start(self, tokens: int, begun: float) -> float:
        while self._booked and self._booked[0].starts <= begun - _WINDOW_S:
            self._booked.popleft()
        if math.isinf(self._requests) and math.isinf(self._tokens):
            return begun
        starts = max(begun, self._booked[-1].starts) if self._booked else begun
        rest, spent = len(self._booked), sum(booking.tokens for booking in self._booked)
        for booking in self._booked:
            gone = booking.starts <= starts - _WINDOW_S
            if not gone and rest < self._requests and spent + tokens <= self._tokens:
                break
            starts = max(starts, booking.starts + _WINDOW_S)
            rest, spent = rest - 1, spent - booking.tokens
        return starts


def shared_limiter(account: tuple[str, ...]) -> RateLimiter:
    """The one limiter of this process for an account: an address, a model, and a key's hash."""
    with _making:
        return _limiters.setdefault(account, RateLimiter())

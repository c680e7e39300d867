"""How a service fares: a circuit breaker, and how long it is worth waiting for an answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

_COOL_S = (30.0, 1800.0)  # after the first failed request, doubled with each, and at most
_LONGEST_HOLD_S = 3600.0  # that a service may ask for
_UNHEARD_PATIENCE_S = 0.3  # an answer to the first knock takes a service's round trip, not a model's thought


class Health:
    """What came of the requests to one endpoint; threads may share it. `now` gives seconds that never go back.

    A request that failed, its retries included, opens the breaker: `may_ask` says no for half a minute, then for twice as long
    with each further failure up to half an hour, drawn by lot within a fifth, and as long as the service asks, up to an hour. Then
    one request may pass, without retries; what comes of it closes the breaker, or opens it for longer.

    `patience_s` is how long it is worth holding a worker idle for an answer: for ever while the service answers, a moment while
    it has never been heard, not at all once something failed. It changes while a request is under way.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
        self._now, self._rng = now, rng or random.Random()
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = float("-inf")
        self._asked_at: float | None = None  # the first request to a service that was never heard
        self._is_heard = self._is_troubled = self._is_trying = False

    @property
    def may_ask(self) -> bool:
        """Whether a request may be sent now."""
        with self._lock:
            return self._failures == 0 or (self._now() >= self._open_until and not self._is_trying)

    @property
    def is_failing(self) -> bool:
        """Whether the last request failed: the next one is a trial, and not repeated."""
        return self._failures > 0

    @property
    def is_answering(self) -> bool:
        """Whether something was heard of the service, and nothing failed since."""
        return self._is_heard and not self._is_troubled

    @property
    def patience_s(self) -> float:
        """Seconds for which a worker may be held idle from now on."""
        with self._lock:
            if self._is_troubled:
                return 0.0
            if self._is_heard or self._asked_at is None:
                return float("inf") if self._is_heard else _UNHEARD_PATIENCE_S
            return max(0.0, self._asked_at + _UNHEARD_PATIENCE_S - self._now())

    def ask(self) -> bool:
        """A request begins; whether nothing was ever heard of the service, so that it should be knocked at."""
        with self._lock:
            first = self._asked_at is None and not self._is_heard
            if self._asked_at is None:
                self._asked_at = self._now()
            self._is_trying = True
            return first

    def hear(self) -> None:
        """Something came back, whatever it was."""
        self._is_heard = True

    def stumble(self) -> None:
        """An attempt at a request failed; others may follow."""
        self._is_troubled = True

    def succeed(self) -> None:
        """A request was answered, if only by a refusal that says why."""
        with self._lock:
            self._failures, self._is_heard, self._is_troubled, self._is_trying = 0, True, False, False

    def fail(self, hold_s: float | None = None) -> None:
        """A request failed for good; the service asks not to be asked for `hold_s`."""
        first, most = _COOL_S
        with self._lock:
            cool = min(most, first * 2.0 ** min(self._failures, 20)) * self._rng.uniform(0.8, 1.2)
            self._failures += 1
            self._open_until = self._now() + max(cool, min(hold_s or 0.0, _LONGEST_HOLD_S))
            self._is_trying = False

    def forget(self) -> None:
        """A request was given up by its sender: it says nothing of the service."""
        self._is_trying = False


class ToldHealth(Health):
    """The health that a record says a service had: what `state` was told last."""

    state = (True, True)

    @property
    def may_ask(self) -> bool:
        """Whether a request could be sent then."""
        return self.state[0]

    @property
    def is_answering(self) -> bool:
        """Whether the service was answering then."""
        return self.state[1]


def health_of(model: object) -> Health | None:
    """The health of a model's service, where the model keeps one: one in this process has none, and somebody's own may."""
    health = getattr(model, "health", None)
    return health if isinstance(health, Health) else None


def patience_s(model: object) -> float:
    """Seconds for which the model's answer is worth holding a worker idle from now on; without end where its health is not known."""
    health = health_of(model)
    return float("inf") if health is None else health.patience_s


def service_state(model: object) -> tuple[bool, bool] | None:
    """What decisions to ask the model hang on besides the context: `may_ask` and `is_answering`; None where it has no `Health`."""
    health = health_of(model)
    return None if health is None else (health.may_ask, health.is_answering)

"""When a study is over before its last trial: the target is reached, nothing improves any more, or its time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llmhpo.agents.base import generator
from llmhpo.agents.candidates import candidates
from llmhpo.errors import ConfigError
from llmhpo.events import StopReason
from llmhpo.history import show_number
from llmhpo.surrogates.incumbent import estimates, incumbent
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context

_LEAST_FOR_GAIN = 10  # trials that ended well: before that the surrogate knows too little to call it a day
_LOOKED_AT = 64  # candidates, best first, whose expected improvement is worked out
_KEEP_EVERY_S = 10.0  # so much of the wall-clock time of a session can be lost by a SIGKILL


@dataclass(frozen=True, slots=True)
class StopRules:
    """What ends a study besides `n_trials`; None switches a rule off.

    `stop_at`: a best value that is as good. `stop_stale`: so many trials that ended after the best one. `stop_gain`: all that
    another trial may be expected to improve, in the metric's units, by the surrogate; not before ten trials have ended well.
    Where the task is noisy, the best value is the expected one of its configuration. Of these three, none ends a job that runs.
    `max_wall_s`: wall-clock time of all sessions together; jobs that still run then are ended and stay open.

    Raises: ConfigError.
    """

    stop_at: float | None = None
    stop_stale: int | None = None
    stop_gain: float | None = None
    max_wall_s: float | None = None

    def __post_init__(self) -> None:
        if self.stop_at is not None and not _is_number(self.stop_at):
            raise ConfigError.of_option("stop_at", self.stop_at, "is not a finite number; give the value to be reached")
        stale = self.stop_stale
        if stale is not None and (isinstance(stale, bool) or not isinstance(stale, int) or stale < 1):
            raise ConfigError.of_option("stop_stale", stale, "is not a whole number of trials from 1 on")
        for name, value, unit in (
            ("stop_gain", self.stop_gain, "in the metric's units"),
            ("max_wall_s", self.max_wall_s, "of seconds"),
        ):
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigError.of_option(name, value, f"is not a positive number {unit}")


class Stop(NamedTuple):
    """Why a study is over, in a word and in a sentence that says how to go on."""

    reason: StopReason
    message: str


def check(rules: StopRules, context: Context) -> Stop | None:
    """The first rule that what is known so far fulfils. The time is not among it: see `Stopwatch`."""
    if rules.stop_at is None and rules.stop_stale is None and rules.stop_gain is None:
        return None
    return _target(rules, context) or _stale(rules, context) or _gain(rules, context)


def _target(rules: StopRules, context: Context) -> Stop | None:
    best = incumbent(context)
    if rules.stop_at is None or best is None or best.value is None:
        return None
    value = estimates(context)[0].value if context.task.noisy else best.value
    if context.task.loss(value) > context.task.loss(rules.stop_at):
        return None
    expected = "an expected " if context.task.noisy else ""
    return Stop(
        "target",
        f"trial {best.number} with {expected}{context.task.metric} {show_number(value)} reaches stop_at={rules.stop_at:g}; "
        "a stricter stop_at, or none, goes on",
    )


def _stale(rules: StopRules, context: Context) -> Stop | None:
    if rules.stop_stale is None:
        return None
    best = incumbent(context)
    since = sum(t.outcome is not None and (best is None or t.number > best.number) for t in context.own)
    if since < rules.stop_stale:
        return None
    what = (
        "no trial has ended well"
        if best is None
        else f"none of {since} trials is better than trial {best.number} before"
    )
    return Stop("stale", f"{what} (stop_stale={rules.stop_stale}); a larger stop_stale, or none, goes on")


def _gain(rules: StopRules, context: Context) -> Stop | None:
    if rules.stop_gain is None or len(context.finished) < _LEAST_FOR_GAIN:
        return None
    gain = expected_gain(context)
    if gain >= rules.stop_gain:
        return None
    return Stop(
        "gain",
        f"another trial is expected to improve {context.task.metric} by {show_number(gain, 2)} at most, less than "
        f"stop_gain={rules.stop_gain:g}; a smaller stop_gain, or none, goes on",
    )


def expected_gain(context: Context) -> float:
    """The largest expected improvement among the candidates that the optimizer considers now, in the metric's units.

    Infinite before the surrogate can be fitted, 0 where nothing new is left to try. Where code is edited, of the revision that
    leads.
    """
    best = incumbent(context)
    context = context.within("" if best is None else best.proposal.code)
    screen = fit_screen(context)
    if not screen.fitted:
        return math.inf
    pool = candidates(context, screen, generator(context, "gain"))
    if len(pool.X) == 0:
        return 0.0
    top = np.argsort(-pool.acquisition, kind="stable")[:_LOOKED_AT]
    return float(screen.gain(pool.X[top]).max())


class Stopwatch:
    """The wall-clock time that a study has taken, `before_s` in earlier sessions and the rest since this was made.

    `keep` is told the seconds of this session now and then, and by `save`. `now` gives seconds that never go back.
    """

    def __init__(
        self,
        limit_s: float | None,
        before_s: float,
        keep: Callable[[float], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s, self._before_s, self._keep, self._now = limit_s, before_s, keep, now
        self._start = self._kept_at = now()

    @property
    def seconds(self) -> float:
        """Of all sessions."""
        return self._before_s + self._now() - self._start

    @property
    def left_s(self) -> float:
        """Until the limit, negative after it; infinite where there is none."""
        return math.inf if self.limit_s is None else self.limit_s - self.seconds

    @property
    def stop(self) -> Stop | None:
        """Whether the time is up."""
        if self.limit_s is None or self.left_s > 0:
            return None
        return Stop(
            "wall",
            f"the study has taken {self.seconds:.0f} s, and max_wall_s={self.limit_s:g}; a larger max_wall_s, or none, goes on",
        )

    def save_if_due(self) -> float:
        """Keep the time where that is due; seconds until it will be, or until the limit."""
        due = self._kept_at + _KEEP_EVERY_S - self._now()
        if due <= 0:
            self.save()
            due = _KEEP_EVERY_S
        return max(0.0, min(due, self.left_s))

    def save(self) -> None:
        """Keep the time now."""
        self._kept_at = self._now()
        self._keep(self._kept_at - self._start)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

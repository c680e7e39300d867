"""How many requests and tokens a minute are let through."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.errors import ConfigError
from llmhpo.llm.limiter import Booking, RateLimiter, shared_limiter


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.s = 0.0

    def now(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds


def limiter(clock: Clock, requests: float | None = None, tokens: float | None = None) -> RateLimiter:
    return RateLimiter(requests, tokens, now=clock.now, sleep=clock.sleep)


def enter(limit: RateLimiter, tokens: int = 0) -> Booking:
    booking = limit.enter(tokens, 1e9)
    assert isinstance(booking, Booking)
    return booking


def test_without_limits_nobody_waits() -> None:
    clock = Clock()
    limit = limiter(clock)
    for _ in range(100):
        enter(limit, 10**6)
    assert clock.s == 0


def test_the_request_after_a_full_minute_waits_for_the_first_to_leave_it() -> None:
    clock = Clock()
    limit = limiter(clock, requests=2)
    starts = []
    for _ in range(4):
        starts.append(enter(limit).starts)
        clock.s += 10.0
    assert starts == [0.0, 10.0, 60.0, 70.0]


def test_one_who_may_enter_later_sleeps_until_then() -> None:
    clock = Clock()
    limit = limiter(clock, requests=1)
    enter(limit)
    clock.s = 25.0
    enter(limit)
    assert clock.s == 60.0


def test_tokens_count_as_requests_do() -> None:
    clock = Clock()
    limit = limiter(clock, tokens=100)
    assert [enter(limit, 60).starts for _ in range(3)] == [0.0, 60.0, 120.0]


def test_what_a_request_really_cost_makes_room_for_the_next() -> None:
    clock = Clock()
    limit = limiter(clock, tokens=100)
    limit.settle(enter(limit, 90), 20)
    enter(limit, 80)
    assert clock.s == 0


def test_a_request_above_a_minutes_tokens_is_let_through_alone() -> None:
    clock = Clock()
    limit = limiter(clock, tokens=100)
    assert [enter(limit, tokens).starts for tokens in (10, 500, 10)] == [0.0, 60.0, 120.0]


def test_one_who_would_wait_too_long_is_told_at_once_and_takes_no_place() -> None:
    clock = Clock()
    limit = limiter(clock, requests=1)
    enter(limit)
    assert limit.enter(0, 59.0) == 60.0
    assert clock.s == 0
    assert enter(limit).starts == 60.0


def test_a_repetition_counts() -> None:
    clock = Clock()
    limit = limiter(clock, requests=2)
    enter(limit)
    limit.repeat()
    assert enter(limit).starts == 60.0


def test_fewer_than_one_request_a_minute_is_one() -> None:
    clock = Clock()
    limit = limiter(clock, requests=0.5)
    assert [enter(limit).starts for _ in range(2)] == [0.0, 60.0]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_is_none_is_refused_by_name(name: str, limit: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RateLimiter(**{name: limit})  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 120), st.floats(0, 40)), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(1, 100),
)
def test_no_minute_holds_more_than_is_allowed(wants: list[tuple[int, float]], requests: int, tokens: int) -> None:
    clock = Clock()
    limit = limiter(clock, requests, tokens)
    sent: list[tuple[float, int]] = []
    for cost, pause in wants:
        clock.s += pause
        sent.append((enter(limit, cost).starts, cost))
    for end, _ in sent:
        window = [cost for start, cost in sent if end - 60.0 + 1e-6 < start <= end]
        assert len(window) <= requests
        assert sum(window) <= tokens or len([cost for cost in window if cost]) == 1


def test_threads_share_the_limits() -> None:
    clock = Clock()
    limit = RateLimiter(3, now=clock.now, sleep=lambda _: None)
    starts: list[float] = []
    threads = [threading.Thread(target=lambda: starts.append(enter(limit).starts)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(starts) == [0.0] * 3 + [60.0] * 3 + [120.0] * 3


def test_one_account_has_one_limiter() -> None:
    assert shared_limiter(("openai", "m", "k")) is shared_limiter(("openai", "m", "k"))
    assert shared_limiter(("openai", "m", "k")) is not shared_limiter(("openai", "m", "other"))

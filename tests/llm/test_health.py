"""When a service may be asked, and how long its answer is waited for."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator

import loopback
import pytest
from loopback import Service, status

from llmhpo.errors import LLMError, LLMUnavailableError
from llmhpo.llm.base import Message, Request
from llmhpo.llm.health import Health, health_of
from llmhpo.llm.logged import LoggedModel
from llmhpo.llm.openai_api import openai_model
from llmhpo.llm.scripted import ScriptedModel

ASK = Request((Message("user", "Propose."),), deadline_s=60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock, random.Random(0))


def fail(health: Health, hold_s: float | None = None) -> None:
    health.ask()
    health.stumble()
    health.fail(hold_s)


def cooling(health: Health, clock: Clock, hold_s: float | None = None) -> float:
    """Fail, and wait until a request may be sent again; how long that was."""
    fail(health, hold_s)
    began = clock.now
    while not health.may_ask:
        clock.now += 1.0
    return clock.now - began


def test_a_healthy_service_may_be_asked(health: Health) -> None:
    assert health.may_ask
    health.ask()
    health.succeed()
    assert health.may_ask


def test_a_failure_opens_the_breaker_for_half_a_minute(health: Health, clock: Clock) -> None:
    assert 24 <= cooling(health, clock) <= 37


def test_each_further_failure_doubles_the_pause_up_to_half_an_hour(health: Health, clock: Clock) -> None:
    pauses = [cooling(health, clock) for _ in range(12)]
    for k, pause in enumerate(pauses):
        usual = min(1800.0, 30.0 * 2**k)
        assert 0.8 * usual <= pause <= 1.2 * usual + 1


def test_pauses_are_drawn_by_lot() -> None:
    pauses = set()
    for seed in range(5):
        clock = Clock()
        pauses.add(cooling(Health(clock, random.Random(seed)), clock))
    assert len(pauses) > 1


@pytest.mark.parametrize(
    ("asked", "low", "high"), [(600.0, 600, 601), (3600.0, 3600, 3601), (1e9, 3600, 3601), (1.0, 24, 37)]
)
def test_a_service_may_ask_for_a_longer_pause_up_to_an_hour(
    health: Health, clock: Clock, asked: float, low: float, high: float
) -> None:
    assert low <= cooling(health, clock, asked) <= high


def test_after_the_pause_one_request_may_pass_and_no_second_one_beside_it(health: Health, clock: Clock) -> None:
    cooling(health, clock)
    assert health.is_failing
    health.ask()
    assert not health.may_ask


def test_one_answer_closes_the_breaker(health: Health, clock: Clock) -> None:
    for _ in range(5):
        cooling(health, clock)
    health.ask()
    health.succeed()
    assert health.may_ask
    assert not health.is_failing
    assert cooling(health, clock) < 40


def test_a_request_that_its_sender_gave_up_leaves_the_breaker_as_it_was(health: Health, clock: Clock) -> None:
    cooling(health, clock)
    health.ask()
    health.forget()
    assert health.may_ask
    assert health.is_failing


def test_an_answering_service_is_worth_any_patience(health: Health) -> None:
    health.ask()
    health.hear()
    assert health.patience_s == math.inf


def test_a_service_that_was_never_heard_is_worth_a_moment_in_all(health: Health, clock: Clock) -> None:
    assert health.patience_s == 0.3
    health.ask()
    clock.now += 0.2
    assert health.patience_s == pytest.approx(0.1)
    clock.now += 1.0
    assert health.patience_s == 0.0
    health.ask()
    assert health.patience_s == 0.0


def test_trouble_ends_the_patience_until_an_answer_comes(health: Health) -> None:
    health.ask()
    health.hear()
    health.stumble()
    assert health.patience_s == 0.0
    health.fail()
    assert health.patience_s == 0.0
    health.ask()
    health.succeed()
    assert health.patience_s == math.inf


def test_models_without_a_service_have_no_health() -> None:
    assert health_of(ScriptedModel([])) is None
    assert health_of(None) is None


# --- with real servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")
    with loopback.serving("openai") as service:
        yield service


def test_the_log_does_not_hide_a_models_health(service: Service) -> None:
    model = openai_model("m", base_url=service.url)
    assert health_of(LoggedModel(model, lambda *_: None)) is model.health
    model.close()


def test_a_service_is_heard_long_before_its_model_answers(service: Service) -> None:
    gate = threading.Event()
    service.faults = [loopback.waiting(gate)]
    model = openai_model("m", base_url=service.url)
    asking = threading.Thread(target=model.complete, args=(ASK,))
    asking.start()
    until = time.monotonic() + 30.0
    while not model.health.is_answering and time.monotonic() < until:
        time.sleep(0.01)
    assert model.health.is_answering
    gate.set()
    asking.join()
    model.close()


def test_a_knock_carries_no_key(service: Service) -> None:
    with loopback.silence() as (url, received):
        model = openai_model("m", base_url=url)
        with pytest.raises(LLMUnavailableError):
            model.complete(Request(ASK.messages, deadline_s=0.5))
        model.close()
        until = time.monotonic() + 30.0
        while not (knocks := [data for data in received if data.startswith(b"GET")]) and time.monotonic() < until:
            time.sleep(0.01)
    assert knocks
    assert all(b"no-key" not in data and b"uthorization" not in data for data in knocks)


def test_trouble_is_known_before_the_last_attempt_is_over(service: Service) -> None:
    gate = threading.Event()
    service.faults = [status(500), loopback.waiting(gate)]
    model = openai_model("m", base_url=service.url)
    asking = threading.Thread(target=model.complete, args=(ASK,))
    asking.start()
    until = time.monotonic() + 30.0
    while model.health.patience_s > 0 and time.monotonic() < until:
        time.sleep(0.01)
    assert model.health.patience_s == 0.0
    gate.set()
    asking.join()
    assert model.health.patience_s == math.inf
    model.close()


def test_a_failing_service_is_asked_once_a_request(service: Service) -> None:
    service.faults = [status(500, headers={"Retry-After": "0"})] * 20
    model = openai_model("m", base_url=service.url)
    for _ in range(2):
        with pytest.raises(LLMError):
            model.complete(ASK)
    assert len(service.seen) == 4 + 1
    model.close()


def test_a_refusal_that_says_why_is_a_sign_of_health(service: Service) -> None:
    service.faults = [status(401)]
    model = openai_model("m", base_url=service.url)
    with pytest.raises(LLMError):
        model.complete(ASK)
    assert model.health.is_answering
    assert model.health.may_ask
    model.close()

"""Whole studies whose model service misbehaves: who is asked, how often, and what the user is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from loopback import Fault, Service, send, serving, status

import llmhpo
from llmhpo.events import Consulted, Event

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
LONG = "prompt is too long: 300000 tokens > 200000 maximum"


@pytest.fixture(params=["openai", "anthropic"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv(f"{str(request.param).upper()}_API_KEY", "no-key-at-all")
    with serving(str(request.param)) as service:
        yield service


def _loss(params: Mapping[str, Any]) -> float:
    return sum((float(v) - 0.3) ** 2 for v in params.values())


def run(
    service: Service, n_trials: int = 14, space: Mapping[str, Mapping[str, object]] | None = None
) -> tuple[llmhpo.Result, list[str]]:
    """A study, and the errors of its consultations as they were told."""
    events: list[Event] = []
    result = llmhpo.optimize(
        _loss, space or SPACE, llm=f"{service.style}:m", base_url=service.url, n_trials=n_trials,
        seed=1, on_event=events.append,
    )  # fmt: skip
    return result, [e.batch.error for e in events if isinstance(e, Consulted) and e.batch.error]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (status(401, "Incorrect API key"), "_API_KEY"),
        (status(403, "not allowed"), "_API_KEY"),
        (status(404, "model: m"), "'m'"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
        (status(402, "pay"), "quota"),
    ],
)
def test_an_error_that_will_not_pass_stops_the_calls_and_is_told_once(
    service: Service, fault: Fault, word: str
) -> None:
    service.faults = [fault] * 20
    result, told = run(service, 30)
    assert len(result.trials) == 30
    assert len(service.seen) == 1
    assert len(told) == 1
    assert word in told[0]


def test_a_service_that_asks_for_an_hour_is_left_alone_meanwhile(service: Service) -> None:
    service.faults = [status(429, headers={"Retry-After": "3600"})] * 20
    result, told = run(service, 20)
    assert len(result.trials) == 20
    assert len(service.seen) == 1
    assert "3600 s" in told[0]


def test_a_service_that_fails_is_asked_again_only_after_a_pause(service: Service) -> None:
    service.faults = [status(500, headers={"Retry-After": "0"})] * 50
    result, told = run(service, 20)
    assert len(result.trials) == 20
    assert 1 <= len(service.seen) <= 4  # one request and its repetitions
    assert len(told) == 1


def test_a_prompt_that_is_too_long_is_asked_with_less_history_once_and_so_from_then_on(service: Service) -> None:
    names = [f"p{i}" for i in range(8)]
    space = {name: {"type": "float", "low": 0.0, "high": 1.0} for name in names}
    service.text = json.dumps({"configurations": [{"why": "", **dict.fromkeys(names, 0.3)}]})
    lengths: list[int] = []

    def picky(handler: BaseHTTPRequestHandler, service: Service) -> None:
        """Takes repair turns, questions without a history, and those that are shorter than the first that had one."""
        body = service.seen[-1].body
        messages = body.get("messages") or body["input"]
        text = json.dumps(messages)
        if "finished" in text and all(m["role"] != "assistant" for m in messages):
            lengths.append(len(text))
            if len(text) >= lengths[0] - 200:
                send(handler, 400, service.error(LONG))
                return
        send(handler, 200, service.reply(body))

    service.faults = [picky] * 60
    result, told = run(service, 40, space)
    assert len(result.trials) == 40
    assert len(lengths) >= 3
    assert max(lengths[1:]) < lengths[0] - 200
    assert told == []


def test_a_prompt_that_stays_too_long_stops_the_calls(service: Service) -> None:
    service.faults = [status(400, LONG)] * 20
    result, told = run(service, 20)
    assert len(result.trials) == 20
    assert len(told) == 1
    assert "shorten" in told[0]
    assert len(service.seen) <= 2


def test_who_asks_and_tells_is_told_of_a_fatal_error_once(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.faults = [status(401, "Incorrect API key")] * 20
    caplog.set_level(logging.WARNING, "llmhpo")
    with llmhpo.Study(SPACE, llm=f"{service.style}:m", base_url=service.url, seed=1) as study:
        for _ in range(12):
            (trial,) = study.ask()
            study.tell(trial, 1.0)
    told = [r.message for r in caplog.records if "_API_KEY" in r.message]
    assert len(told) == 1
    assert len(service.seen) == 1

"""Faults of a service or of the way to it, those that pass and those that stay. One contract for the clients of hosted services, tried against a real server on loopback."""

from __future__ import annotations

import threading
import time

import loopback as servers
import pytest
from asking import ask, error_of, make
from consulting import WIRES
from loopback import Fault, Service, raw, status

from llmhpo.errors import LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion
from llmhpo.llm.client import HostedModel
from llmhpo.llm.transport import RejectedError


@pytest.mark.parametrize(
    "fault",
    [
        status(429, headers={"Retry-After": "0"}),
        status(429, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        status(500),
        status(503, headers={"Retry-After": "soon"}),
        status(529, "Overloaded"),
        servers.reset,
        servers.cut_stream,
    ],
)
def test_what_may_pass_is_tried_again(model: HostedModel, service: Service, fault: Fault) -> None:
    service.faults = [fault]
    assert model.complete(ask()).text == servers.REPLY
    assert len(service.seen) == 2


def test_a_service_that_stays_away_is_given_up_after_a_few_tries(model: HostedModel, service: Service) -> None:
    service.faults = [status(500, headers={"Retry-After": "0"})] * 50
    assert isinstance(error_of(model), LLMUnavailableError)
    assert 2 <= len(service.seen) <= 6


def test_a_long_retry_after_is_reported_at_once(model: HostedModel, service: Service, pauses: list[float]) -> None:
    service.faults = [status(429, headers={"Retry-After": "3600"})]
    error = error_of(model)
    assert isinstance(error, LLMUnavailableError)
    assert error.retry_after_s == 3600
    assert pauses == []


def test_retries_end_with_the_deadline(model: HostedModel, service: Service, pauses: list[float]) -> None:
    service.faults = [status(500, headers={"Retry-After": "1"})] * 50
    assert isinstance(error_of(model, ask(deadline_s=0.9)), LLMUnavailableError)
    assert pauses == []
    assert len(service.seen) <= 1


@pytest.mark.parametrize("fault", [servers.hang, servers.dribble, servers.dribble_headers])
def test_the_deadline_holds_whatever_the_server_does(model: HostedModel, service: Service, fault: Fault) -> None:
    service.faults = [fault] * 10
    began = time.monotonic()
    assert isinstance(error_of(model, ask(deadline_s=0.4)), LLMUnavailableError)
    assert time.monotonic() - began < 10  # the server would go on for 20


@pytest.mark.parametrize("fault", [servers.hang, servers.dribble, servers.dribble_headers])
def test_no_thread_outlives_the_deadline_for_long(model: HostedModel, service: Service, fault: Fault) -> None:
    def threads() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("llmhpo")}

    service.faults = [fault] * 10
    error_of(model, ask(deadline_s=0.3))
    until = time.monotonic() + 10  # the server would hold one for 20
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == set()


def test_a_model_works_on_after_its_deadline_passed_once(model: HostedModel, service: Service) -> None:
    model.complete(ask())  # opens the client, which takes longer than the deadline on a busy machine
    service.faults = [servers.hang]
    error_of(model, ask(deadline_s=0.5))
    assert model.complete(ask()).text == servers.REPLY


def test_a_request_that_is_late_does_not_end_another_one(model: HostedModel, service: Service) -> None:
    done: list[Completion] = []
    model.complete(ask())
    service.faults = [servers.hang, servers.slow(0.8)]
    for deadline_s in (0.6, 6.0, 30.0):  # on a busy machine it takes a while to reach the server
        late = threading.Thread(target=lambda deadline_s=deadline_s: error_of(model, ask(deadline_s=deadline_s)))
        late.start()
        while len(service.seen) < 2 and late.is_alive():
            time.sleep(0.01)
        if len(service.seen) >= 2:
            break
    done.append(model.complete(ask()))
    late.join()
    assert done[0].finish == "stop"


@pytest.mark.parametrize(
    ("fault", "form", "word"),
    [
        (status(401, "Incorrect API key"), LLMRequestError, "_API_KEY"),
        (status(403, "not allowed"), LLMRequestError, "_API_KEY"),
        (status(404, "model: m"), RejectedError, "'m'"),
        (status(402, "pay"), LLMRequestError, "quota"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), LLMRequestError, "quota"),
        (status(400, "This model's maximum context length is 8192 tokens"), LLMPromptError, "shorten"),
        (status(400, "prompt is too long: 300000 tokens > 200000 maximum"), LLMPromptError, "shorten"),
        (raw(b"<html><body>Welcome</body></html>", "text/html"), LLMReplyError, "base_url"),
        (raw(b"hello", "text/plain"), LLMReplyError, "base_url"),
        (raw(b"{]"), LLMReplyError, "base_url"),
        (raw(b"[" * 100_000), LLMReplyError, "base_url"),
        (raw(b'{"choices": [{"message": {"content": "\\ud800"}}], "content": 3}'), LLMReplyError, "base_url"),
        (raw(b"[]"), LLMReplyError, "base_url"),
        (raw(b"null"), LLMReplyError, "base_url"),
        (raw(b""), LLMReplyError, "base_url"),
        (servers.cut_json, LLMReplyError, "base_url"),
        (raw(b"{}"), LLMReplyError, "ask again"),
    ],
)
def test_an_error_names_what_to_do_and_is_not_tried_again(
    model: HostedModel, service: Service, fault: Fault, form: type[LLMError], word: str
) -> None:
    service.faults = [fault]
    error = error_of(model)
    assert type(error) is form
    assert word in str(error)
    assert service.url in str(error)
    assert len(service.seen) == 1


def test_a_server_that_is_not_there_is_unavailable_at_once(style: str, pauses: list[float]) -> None:
    with servers.serving(WIRES[style]) as gone:
        pass
    error = error_of(make(style, gone.url))
    assert isinstance(error, LLMUnavailableError)
    assert gone.url in str(error)
    assert pauses == []


def test_a_host_without_an_address_is_unavailable(style: str) -> None:
    error = error_of(make(style, "http://no-such-host.invalid/v1"), ask(deadline_s=2.0))
    assert isinstance(error, LLMUnavailableError)
    assert "no-such-host.invalid" in str(error)


def test_tls_to_a_server_without_it_is_unavailable(style: str, service: Service) -> None:
    error = error_of(make(style, service.url.replace("http:", "https:")), ask(deadline_s=1.0))
    assert isinstance(error, LLMUnavailableError)


def test_the_deadline_holds_where_a_server_never_shakes_hands(style: str) -> None:
    with servers.silence() as (url, _):
        began = time.monotonic()
        error = error_of(make(style, url.replace("http:", "https:")), ask(deadline_s=0.4))
    assert isinstance(error, LLMUnavailableError)
    assert time.monotonic() - began < 10


def test_a_redirect_does_not_take_the_key_along(model: HostedModel, service: Service) -> None:
    service.faults = [status(307, headers={"Location": service.url + "/elsewhere"})]
    assert isinstance(error_of(model), LLMRequestError)
    assert len(service.seen) == 1


def test_terminal_codes_of_a_service_do_not_reach_the_message(model: HostedModel, service: Service) -> None:
    service.faults = [status(401, "\x1b[2Jgone\x07")]
    assert str(error_of(model)).isprintable()

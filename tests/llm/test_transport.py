"""One deadline, retries, and errors in our words: tried with the exceptions of the SDKs, without a server."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from email.utils import formatdate

import httpx2
import openai
import pytest
import tenacity

from llmhpo.errors import (
    ConfigError,
    LLMError,
    LLMPromptError,
    LLMReplyError,
    LLMRequestError,
    LLMUnavailableError,
)
from llmhpo.llm.hosted import Answer, Endpoint, clean, find_endpoint
from llmhpo.llm.redact import Redactor
from llmhpo.llm.transport import Deadline, RejectedError, Transport

KEY = "canary-0123456789-abcdef"
URL = "http://127.0.0.1:9/v1"
OK = Answer(b"{}", "application/json")
Step = Exception | Answer | Callable[[], Answer]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return find_endpoint("openai", "m", default_url="https://api.openai.com/v1", base_url=URL, api_key=KEY)


class Script:
    """Gives one step after the other, the last one for ever."""

    def __init__(self, *steps: Step) -> None:
        self.steps, self.calls = steps, 0
        self.timeouts: list[httpx2.Timeout] = []

    def __call__(self, timeout: httpx2.Timeout) -> Answer:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        self.timeouts.append(timeout)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Answer) else step()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would be waited between attempts, in seconds: a clock cannot tell it from a busy machine's own pauses."""
    found: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", found.append)
    return found


def send(endpoint: Endpoint, script: Script, seconds: float = 60.0) -> Answer:
    return Transport(endpoint, openai.OpenAIError).send(script, Deadline(seconds))


def error_of(endpoint: Endpoint, script: Script, seconds: float = 60.0) -> LLMError:
    with pytest.raises(LLMError) as caught:
        send(endpoint, script, seconds)
    return caught.value


REQUEST = httpx2.Request("POST", URL)


def status(code: int, body: object = None, headers: Mapping[str, str] | None = None) -> openai.APIStatusError:
    response = httpx2.Response(code, headers=dict(headers or {}), request=REQUEST)
    return openai.APIStatusError(f"Error code: {code}", response=response, body=body)


def broken(cause: BaseException) -> openai.APIConnectionError:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    return error


# Retries


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(endpoint: Endpoint, code: int) -> None:
    script = Script(status(code, headers={"retry-after": "0"}), OK)
    assert send(endpoint, script) == OK
    assert script.calls == 2


@pytest.mark.parametrize("code", [302, 400, 401, 402, 403, 404, 405, 413, 422])
def test_what_will_not_pass_is_tried_once(endpoint: Endpoint, code: int) -> None:
    script = Script(status(code, headers={"retry-after": "0"}))
    assert isinstance(error_of(endpoint, script), LLMRequestError)
    assert script.calls == 1


@pytest.mark.parametrize("cause", [httpx2.ReadError("reset"), httpx2.RemoteProtocolError("cut"), OSError("gone")])
def test_a_broken_connection_is_tried_again(endpoint: Endpoint, cause: Exception) -> None:
    script = Script(broken(cause), OK)
    assert send(endpoint, script) == OK


def test_tries_are_few(endpoint: Endpoint) -> None:
    script = Script(status(500, headers={"retry-after": "0"}))
    assert isinstance(error_of(endpoint, script), LLMUnavailableError)
    assert 2 <= script.calls <= 6


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "3600"}, 3600, 3600),
        ({"retry-after-ms": "90000"}, 90, 90),
        ({"retry-after": formatdate(time.time() + 100_000, usegmt=True)}, 90_000, 100_000),
    ],
)
def test_a_long_wait_that_is_asked_for_is_reported_and_not_slept_through(
    endpoint: Endpoint, pauses: list[float], headers: dict[str, str], low: float, high: float
) -> None:
    error = error_of(endpoint, Script(status(429, headers=headers)))
    assert pauses == []
    assert isinstance(error, LLMUnavailableError)
    assert error.retry_after_s is not None
    assert low <= error.retry_after_s <= high


def test_a_short_wait_that_is_asked_for_is_kept(endpoint: Endpoint, pauses: list[float]) -> None:
    assert send(endpoint, Script(status(429, headers={"retry-after": "0.3"}), OK)) == OK
    assert len(pauses) == 1
    assert 0.3 <= pauses[0] < 1.5


@pytest.mark.parametrize("said", ["soon", "", "-5", "nan", "inf", "99999999999999999999 GMT"])
def test_a_wait_that_makes_no_sense_is_not_believed(endpoint: Endpoint, said: str) -> None:
    error = error_of(endpoint, Script(status(429, headers={"retry-after": said})), seconds=0.01)
    assert isinstance(error, LLMUnavailableError)
    assert error.retry_after_s is None


# Deadline


def test_the_deadline_ends_a_call_that_does_not(endpoint: Endpoint) -> None:
    release = threading.Event()
    began = time.monotonic()
    try:
        error = error_of(endpoint, Script(lambda: Answer(str(release.wait(20)).encode(), "")), seconds=0.2)
    finally:
        release.set()
    assert time.monotonic() - began < 10  # it would take 20
    assert isinstance(error, LLMUnavailableError)
    assert "deadline_s=0.2" in str(error)


def test_a_deadline_that_has_passed_sends_nothing(endpoint: Endpoint) -> None:
    script = Script(OK)
    assert isinstance(error_of(endpoint, script, seconds=-1.0), LLMUnavailableError)
    assert script.calls == 0


def test_each_try_is_given_what_is_left(endpoint: Endpoint) -> None:
    script = Script(status(500, headers={"retry-after": "0.2"}), OK)
    send(endpoint, script)
    first, second = (t.read for t in script.timeouts)
    assert first is not None
    assert second is not None
    assert second <= first - 0.2 < 60


def test_a_bug_of_ours_is_not_taken_for_a_fault_of_the_service(endpoint: Endpoint) -> None:
    with pytest.raises(ZeroDivisionError):
        send(endpoint, Script(ZeroDivisionError()))


# Words


@pytest.mark.parametrize(
    ("fault", "form", "word"),
    [
        (status(401), LLMRequestError, "OPENAI_API_KEY"),
        (status(403), LLMRequestError, "OPENAI_API_KEY"),
        (status(404), RejectedError, "model's name"),
        (status(402), LLMRequestError, "credit"),
        (status(429, {"message": "x", "code": "insufficient_quota"}), LLMRequestError, "credit"),
        (status(400, {"error": {"message": "Your credit balance is too low"}}), LLMRequestError, "credit"),
        (status(400, {"message": "x", "code": "context_length_exceeded"}), LLMPromptError, "too long"),
        (status(400, {"message": "prompt is too long: 9 tokens > 8 maximum"}), LLMPromptError, "too long"),
        (status(413), LLMPromptError, "too long"),
        (status(400), RejectedError, "options"),
        (status(422, "nonsense"), RejectedError, "options"),
        (status(302), LLMRequestError, "base_url"),
        (status(200), LLMReplyError, "base_url"),
        (broken(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), LLMUnavailableError, "base_url"),
        (broken(ConnectionRefusedError(111, "refused")), LLMUnavailableError, "start the server"),
        (broken(ssl.SSLCertVerificationError(1, "self-signed")), LLMUnavailableError, "certificate"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), LLMRequestError, "UTF-8"),
    ],
)
def test_an_error_names_the_place_and_the_remedy(
    endpoint: Endpoint, fault: Exception, form: type[LLMError], word: str
) -> None:
    error = error_of(endpoint, Script(fault))
    assert type(error) is form
    assert word in str(error)
    assert URL in str(error)


def test_a_refusal_quotes_the_service_and_the_parameter_that_it_names(endpoint: Endpoint) -> None:
    error = error_of(endpoint, Script(status(400, {"message": "Unsupported value", "param": "temperature"})))
    assert isinstance(error, RejectedError)
    assert "Unsupported value" in str(error)
    assert "temperature" in error.complaint


@pytest.mark.parametrize(
    "fault",
    [
        status(401, {"message": f"bad key {KEY}"}),
        status(400, {"message": f"bad key {KEY}"}),
        status(500, f"bad key {KEY}"),
        broken(httpx2.LocalProtocolError(f"Illegal header value b'Bearer {KEY}'")),
        ValueError(f"no JSON: {KEY}"),
    ],
)
def test_no_error_holds_or_refers_to_what_holds_the_key(endpoint: Endpoint, fault: Exception) -> None:
    error = error_of(endpoint, Script(fault), seconds=0.05)
    assert KEY not in "".join(traceback.format_exception(error)) + repr(vars(error))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_foreign_text_becomes_one_short_printable_line() -> None:
    shown = clean("a\x1b[2J\n\u202eb" + "x" * 900, Redactor(), 50)
    assert shown.isprintable()
    assert len(shown) <= 53


# Endpoints


def find(base_url: str | None, **more: str) -> Endpoint:
    return find_endpoint(
        "openai", "m", default_url="https://api.openai.com/v1", base_url=base_url, api_key=more.get("api_key")
    )


def test_an_endpoint_shows_neither_key_nor_password() -> None:
    endpoint = find("http://me:hunter2hunter2@127.0.0.1:9/v1?token=t0kent0ken", api_key=KEY)
    shown = repr(endpoint) + endpoint.place
    assert not [secret for secret in (KEY, "hunter2", "t0ken") if secret in shown]
    assert "127.0.0.1:9" in endpoint.place


@pytest.mark.parametrize("key", ["a" * 12 + "\n" + "b", "schl\u00fcssel-0123", "two keys 0123456"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        find(URL, api_key=key)
    assert key not in str(caught.value)


def test_the_hosted_service_is_known_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert [find(url, api_key=KEY).hosted for url in (None, "https://api.openai.com/v1/", URL)] == [True, True, False]

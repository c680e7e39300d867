"""What the hosted clients share: one total deadline, retries of what may pass, and words that hold no key."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import quote

import tenacity

from llmhpo.errors import LLMError, LLMReplyError, LLMRequestError, LLMUnavailableError

T = TypeVar("T")
_SECRET_NAME = re.compile(r"(API_?KEY|AUTH_?TOKEN|ACCESS_?TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_KEY_SHAPE = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|AIza)[-_][A-Za-z0-9_\-]{12,}|Bearer\s+[A-Za-z0-9._~+/\-]{12,}=*")
_MAX_TRIES = 4
_SHORTEST_SECRET = 8


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without keys: `secrets`, the environment's keys, their base64 and URL forms, and whatever looks like a key."""
    known = [*secrets, *(v for k, v in os.environ.items() if _SECRET_NAME.search(k))]
    for secret in sorted((s for s in known if len(s) >= _SHORTEST_SECRET), key=len, reverse=True):
        for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("="), quote(secret, safe="")):
            text = text.replace(form, "[key]")
    return _KEY_SHAPE.sub("[key]", text)


def within(deadline_s: float, call: Callable[[], T], abort: Callable[[], None], what: str) -> T:
    """Run `call` in a thread of its own and stop waiting at the deadline, whatever the server does.

    A client's own time-out is for each read: a server that sends a byte a second outlasts it. `abort` closes the
    connection, so that the thread ends too.

    Raises: LLMUnavailableError at the deadline, and what `call` raises.
    """
    box: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            box.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failure.append(error)

    thread = threading.Thread(target=work, name="llmhpo-request", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline_s))
    if thread.is_alive():
        with contextlib.suppress(Exception):
            abort()
        raise LLMUnavailableError(
            f"{what}: no complete answer within {deadline_s:.1f} s; raise deadline_s or use a faster model"
        )
    if failure:
        raise failure[0]
    return box[0]


def with_retries(attempt: Callable[[float], T], deadline_s: float) -> T:
    """Call `attempt(seconds_left)`, again after an LLMUnavailableError while tries and time are left.

    The pause is exponential with full jitter, or what the service asked for. A service that asks for more time than is
    left is not waited for.

    Raises: LLMUnavailableError of the last attempt.
    """
    end = time.monotonic() + deadline_s
    jitter = tenacity.wait_random_exponential(multiplier=0.5, max=20)

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, LLMUnavailableError) else None
        return jitter(state) if asked is None else asked

    def no_time_left(state: tenacity.RetryCallState) -> bool:
        return time.monotonic() + state.upcoming_sleep >= end

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LLMUnavailableError),
        wait=pause,
        stop=lambda state: state.attempt_number >= _MAX_TRIES or no_time_left(state),
        reraise=True,
    )
    return retrying(lambda: attempt(end - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Service:
    """Who is asked: for messages that name the place and the remedy. `key` never shows."""

    name: str  # "openai"
    model: str
    url: str
    key_variable: str
    key: str = field(repr=False)


class SDK(Protocol):
    """What the two SDKs have in common."""

    APIConnectionError: type[Exception]
    APIStatusError: type[Exception]
    APIError: type[Exception]


def send(call: Callable[[float], T], service: Service, sdk: SDK, *, deadline_s: float, abort: Callable[[], None]) -> T:
    """One exchange with a service: `call(seconds_left)` within the deadline, retried, its errors told in our words.

    Raises: LLMUnavailableError, LLMRequestError, LLMReplyError; none of them holds a key or refers to what does.
    """
    what = f"{service.name}:{service.model} at {service.url}"

    def guarded(left: float) -> T:
        try:
            return call(left)
        except (sdk.APIError, json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            known = _translate(error, service, sdk, what)
        raise known from None  # outside the handler: the SDK's exception may quote the key

    return with_retries(lambda left: within(left, lambda: guarded(left), abort, what), deadline_s)


def _translate(error: Exception, service: Service, sdk: SDK, what: str) -> LLMError:
    words = redact(str(error), [service.key])
    words = " ".join(words.split())[:300]
    if isinstance(error, sdk.APIStatusError):
        return _status_error(error, service, what, words)
    if isinstance(error, sdk.APIConnectionError):
        cause = redact(str(error.__cause__ or error), [service.key])[:200]
        return LLMUnavailableError(f"{what}: cannot be reached ({cause}); check base_url and the network")
    return LLMReplyError(f"{what}: the answer is not one of such a service ({words}); check base_url")


def _status_error(error: Exception, service: Service, what: str, words: str) -> LLMError:
    status = int(getattr(error, "status_code", 0))
    if status < 400:
        return LLMReplyError(f"{what}: the answer is not one of such a service ({words}); check base_url")
    if status in (401, 403):
        return LLMRequestError(f"{what}: the key is refused (HTTP {status}); check {service.key_variable}")
    if status == 404:
        return LLMRequestError(
            f"{what}: no such model or address (HTTP 404: {words}); check the model's name and base_url"
        )
    if status == 402 or (status == 429 and "quota" in words.lower()):
        return LLMRequestError(f"{what}: the account's quota is used up (HTTP {status}: {words}); check its billing")
    if status in (408, 409, 425, 429) or status >= 500:
        return LLMUnavailableError(f"{what}: HTTP {status}: {words}", retry_after_s=_retry_after(error))
    return LLMRequestError(f"{what}: the request is refused (HTTP {status}): {words}")


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def estimate_tokens(text: str) -> int:
    """Tokens of `text` where no tokenizer is at hand; rather too many: a token has seldom less than three bytes."""
    return -(-len(text.encode("utf-8", "replace")) // 3)


def count(value: object) -> int | None:
    """A token count as a service gave it; None where it makes no sense."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

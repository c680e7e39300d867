"""The way to a hosted service and back: one deadline over everything, retries, and errors that tell what to do.

The SDKs' own time-out is per read, so that a server that sends one byte a second holds them for ever; their own
retries sleep through any Retry-After. Both are switched off, and done here.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_result, wait_random_exponential

from llmhpo.errors import LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.health import Health
from llmhpo.llm.hosted import Answer, Endpoint, clean

_ATTEMPTS = 4
_CONNECT_S = 10.0
_KNOCK_S = 5.0
_LONGEST_WAIT_S = 20.0  # that a service may ask for between two attempts; for a longer one, nobody waits
_BACKOFF = wait_random_exponential(multiplier=0.5, max=8.0)
_QUOTA = re.compile(
    r"(?i)insufficient_quota|exceeded your current quota|credit balance|insufficient (?:credit|fund|balance)"
)
_CONTEXT = re.compile(
    r"(?i)context.?(?:length|window|size)|maximum context|prompt is too long|request_too_large|input is too long"
)


class RejectedError(LLMRequestError):
    """A 400, 404, 405 or 422: the clients look whether an option of theirs is to blame, and go on without it."""

    def __init__(self, message: str, complaint: str) -> None:
        super().__init__(message)
        self.complaint = complaint  # the status and the service's words, redacted


@dataclass(frozen=True, slots=True)
class Deadline:
    """A span of time that began when the object was made."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.started + self.seconds - time.monotonic()

    def spent(self) -> float:
        """Seconds since the object was made."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class _Failure:
    error: LLMError
    again: bool = False  # another attempt within the deadline may work
    wait_s: float | None = None  # what the service asked for


class _Connections:
    """The connections that one attempt opens. `cut` ends them, which wakes the thread that waits on one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._over = False

    def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Hook for httpx2's `trace` extension."""
        stream = info.get("return_value")
        if stream is None or not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        connection = stream.get_extra_info("socket")  # type: ignore[attr-defined]  # a httpcore2.NetworkStream
        with self._lock:
            self._sockets.append(connection)
            over = self._over
        if over:
            self.cut()

    def cut(self) -> None:
        """Shut every connection down, and any that is made later."""
        with self._lock:
            self._over = True
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    # Not close(): that would free the descriptor under the thread that reads from it.
                    connection.shutdown(socket.SHUT_RDWR)


class Transport:
    """Sends requests to one endpoint; `sdk_error` is the root of the exceptions of the SDK that is used."""

    def __init__(self, endpoint: Endpoint, sdk_error: type[Exception], health: Health | None = None) -> None:
        self._endpoint = endpoint
        self.health = health or Health()
        self._faults = (sdk_error, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)
        self._attempt = threading.local()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Around one request, until its answer is read: what comes of it tells of the service's health."""
        if self.health.ask():
            threading.Thread(target=self._knock, name="llmhpo-knock", daemon=True).start()
        try:
            yield
        except LLMReplyError:
            self.health.hear()
            self.health.fail()
            raise
        except LLMUnavailableError as error:
            self.health.stumble()
            self.health.fail(error.retry_after_s)
            raise
        except LLMRequestError:
            self.health.succeed()
            raise
        except BaseException:
            self.health.forget()
            raise
        self.health.succeed()

    def _knock(self) -> None:
        """Ask for the bare address, without a key: whatever comes back says that there is life, long before a model answers."""
        connections = _Connections()
        end = threading.Timer(_KNOCK_S, connections.cut)  # the client's own time-out is per read
        end.daemon = True
        end.start()
        with (
            contextlib.suppress(*self._faults),
            httpx2.Client(timeout=_KNOCK_S) as client,
            client.stream("GET", self._endpoint.base_url, extensions={"trace": connections.trace}),
        ):
            self.health.hear()
        end.cancel()

    def http_client(self) -> httpx2.Client:
        """The HTTP client that the SDK must use, so that the deadline can reach its connections.

        It keeps no idle connection: minutes pass between requests, and the server drops them first. It follows no
        redirect, which would take the key along.
        """
        return httpx2.Client(
            timeout=_CONNECT_S,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [self._watch]},
        )

    def send(self, once: Callable[[httpx2.Timeout], Answer], deadline: Deadline) -> Answer:
        """Call `once` until it gives an answer, within the deadline.

        Only transport errors, 408, 429 and 5xx are tried again, with growing random pauses or as Retry-After asks;
        where that is longer than what is left, or than 20 s, the error comes at once and says so in `retry_after_s`.
        While the service is failing, a request is tried once.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        attempts = 1 if self.health.is_failing else _ATTEMPTS
        retrying = Retrying(
            retry=retry_if_result(lambda result: isinstance(result, _Failure) and result.again),
            wait=_pause,
            stop=lambda state: (
                state.attempt_number >= attempts or state.upcoming_sleep >= min(deadline.left(), _LONGEST_WAIT_S)
            ),
            retry_error_callback=_last,
        )
        result: Answer | _Failure = retrying(self._attempt_once, once, deadline)
        if isinstance(result, _Failure):
            raise result.error from None
        return result

    def _watch(self, request: httpx2.Request) -> None:
        request.extensions["trace"] = self._attempt.connections.trace

    def _attempt_once(self, once: Callable[[httpx2.Timeout], Answer], deadline: Deadline) -> Answer | _Failure:
        result = self._try(once, deadline)
        if isinstance(result, _Failure) and isinstance(result.error, LLMUnavailableError):
            self.health.stumble()
        return result

    def _try(self, once: Callable[[httpx2.Timeout], Answer], deadline: Deadline) -> Answer | _Failure:
        left = deadline.left()
        if left <= 0:
            return self._late(deadline)
        connections = _Connections()
        results: list[Answer | _Failure | BaseException] = []

        def work() -> None:
            self._attempt.connections = connections
            try:
                results.append(once(httpx2.Timeout(left, connect=min(left, _CONNECT_S))))
            except self._faults as error:
                results.append(self._translate(error))
            except BaseException as error:  # noqa: BLE001  # a bug: raised again in the caller's thread
                results.append(error)

        thread = threading.Thread(target=work, name="llmhpo-llm", daemon=True)
        thread.start()
        try:
            thread.join(min(left, threading.TIMEOUT_MAX))
        finally:
            if thread.is_alive():  # the deadline, or Ctrl-C
                connections.cut()
        if not results or deadline.left() <= 0:
            return self._late(deadline)
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    def _late(self, deadline: Deadline) -> _Failure:
        return _Failure(
            LLMUnavailableError(
                f"{self._endpoint.place} gave no full answer of model {self._endpoint.model!r} within "
                f"deadline_s={deadline.seconds:g}; check the server, or raise deadline_s",
                was_cut_off=True,
            )
        )

    def _translate(self, error: Exception) -> _Failure:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
            return self._refused(status, _complaint(error), _retry_after(headers))
        place = self._endpoint.place
        root: BaseException = error
        for cause in _chain(error):
            root = cause
            said = self._said(str(cause))
            if isinstance(cause, ssl.SSLCertVerificationError):
                return _Failure(
                    LLMUnavailableError(f"{place} shows a certificate that is not trusted {said}; check base_url")
                )
            if isinstance(cause, socket.gaierror):
                return _Failure(
                    LLMUnavailableError(f"{place}: the host name is not found {said}; check base_url and the network"),
                    again=cause.errno == socket.EAI_AGAIN,
                )
            if isinstance(cause, ConnectionRefusedError):
                return _Failure(
                    LLMUnavailableError(f"{place}: nothing listens there {said}; start the server or check base_url")
                )
            if isinstance(cause, UnicodeError):
                return _Failure(LLMRequestError(f"{place}: the prompt cannot be sent as UTF-8 {said}; mend its text"))
        said = self._said(f"{type(root).__name__}: {root}")
        return _Failure(
            LLMUnavailableError(f"{place}: no answer came {said}; check server, base_url and network"), again=True
        )

    def _refused(self, status: int, complaint: str, wait_s: float | None) -> _Failure:
        model, key_name, place = self._endpoint.model, self._endpoint.key_name, self._endpoint.place
        said = self._said(f"{status}: {complaint}")
        if status == 402 or (status in (400, 403, 429) and _QUOTA.search(complaint)):
            return _Failure(
                LLMRequestError(f"{place}: the account of {key_name} has no quota left {said}; add credit to it")
            )
        if status in (408, 429) or status >= 500:
            asked = "" if wait_s is None else f"; it asks to wait {wait_s:g} s"
            unavailable = LLMUnavailableError(
                f"{place} is not available {said}{asked}; try later", retry_after_s=wait_s
            )
            return _Failure(unavailable, again=True, wait_s=wait_s)
        if status < 300:
            return _Failure(LLMReplyError(f"{place} answered in a form that cannot be read {said}; check base_url"))
        if status == 413 or (status in (400, 422) and _CONTEXT.search(complaint)):
            return _Failure(
                LLMPromptError(f"{place}: the prompt is too long for model {model!r} {said}; shorten the task's text")
            )
        if status in (400, 422):
            message = f"{place} rejects the request to model {model!r} {said}; check the model and its options"
            return self._rejected(message, status, complaint)
        refusals = {
            401: f"{place} refuses the key {said}; set {key_name} to a valid key",
            403: f"{place} does not let the key of {key_name} use model {model!r} {said}; change one of them",
            404: f"{place} knows no model {model!r}, or no such address {said}; check the model's name and base_url",
        }
        redirect = f"{place} sends the request elsewhere {said}; give that address as base_url"
        other = redirect if status < 400 else f"{place} refuses the request to model {model!r} {said}; check base_url"
        if status in (404, 405):
            return self._rejected(refusals.get(status, other), status, complaint)
        return _Failure(LLMRequestError(refusals.get(status, other)))

    def _rejected(self, message: str, status: int, complaint: str) -> _Failure:
        return _Failure(RejectedError(message, f"{status}: {self._endpoint.redact(complaint)}"))

    def _said(self, text: str) -> str:
        return f"({clean(text, self._endpoint.redact)})"


def _pause(state: RetryCallState) -> float:
    jittered = float(_BACKOFF(state))
    result = state.outcome.result() if state.outcome else None
    asked = result.wait_s if isinstance(result, _Failure) else None
    return jittered if asked is None else asked + min(jittered, 0.25)


def _last(state: RetryCallState) -> Answer | _Failure:
    assert state.outcome is not None
    result: Answer | _Failure = state.outcome.result()
    return result


def _complaint(error: Exception) -> str:
    """The service's own words: message, parameter and code where the body has them, else the body as it is."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(inner, dict) and inner.get("message"):
        return " | ".join(str(inner[name]) for name in ("message", "param", "code") if inner.get(name))
    return str(body or error)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what caused it, outermost first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__

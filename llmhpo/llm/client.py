"""A model behind a hosted service or any server that speaks like one."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from llmhpo.errors import ConfigError, LLMReplyError, LLMUnavailableError
from llmhpo.llm import streaming
from llmhpo.llm.base import Completion, Request, most_it_costs
from llmhpo.llm.capabilities import Known, Memory, keeps_to
from llmhpo.llm.hosted import (
    OVERHEAD_TOKENS,
    Answer,
    Endpoint,
    bill,
    blamed,
    bounded,
    clean,
    estimate_tokens,
    find_endpoint,
    read_body,
)
from llmhpo.llm.limiter import Booking, RateLimiter, shared_limiter
from llmhpo.llm.prices import price_of
from llmhpo.llm.streaming import OnText
from llmhpo.llm.transport import Deadline, RejectedError, Transport
from llmhpo.llm.wire import Asked, Attempt, Reply, Service, Wire
from llmhpo.usage import Price

_LEAST_THINKING = 1024  # that Anthropic takes
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user may ask of a hosted model, besides the model; None leaves it to the defaults.

    `effort` is how hard a reasoning model thinks ("low" by default at the services' own addresses, unsaid elsewhere);
    `thinking_tokens` a budget for Anthropic's thoughts; `api` one of OpenAI's protocols, "responses" or "chat" (by default the
    first that the server has); the limits bound all requests of this process to the same model with the same key.
    """

    effort: str | None = None
    thinking_tokens: int | None = None
    api: str | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class HostedModel:
    """A model of `service`, or of a compatible server at `base_url`.

    `base_url` defaults to SERVICE_BASE_URL, then to the service's own address; `api_key` to SERVICE_API_KEY, which the service
    needs and other servers are sent where it is set; limits to SERVICE_REQUESTS_PER_MINUTE and SERVICE_TOKENS_PER_MINUTE.

    The form of a reply is asked for as a JSON schema, of a server that refuses or ignores that as a forced tool, then in the
    words of the prompt alone. What a server refuses or ignores is found out by the first requests that use it, and kept in
    `memory`, so that no request is made for finding out alone.

    Raises: ConfigError for a missing key, an address that is none, wishes that the service does not know.
    """

    compact = False

    def __init__(
        self,
        service: Service,
        model: str,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        default_headers: Mapping[str, str] | None = None,
        memory: Memory | None = None,
        **wishes: Any,
    ) -> None:
        self._headers = _headers(default_headers)
        self._endpoint = find_endpoint(
            service.name,
            model,
            default_url=service.url,
            base_url=base_url,
            api_key=api_key,
            secrets=self._headers.values(),
        )
        self._service, self._wishes = service, Wishes(**wishes)
        if not isinstance(self._wishes.effort, str | None):
            raise ConfigError(
                f"effort={self._wishes.effort!r} is no effort; give a word that the model knows, such as 'low'"
            )
        self._wires = _wires(service, self._wishes)
        self.name = name or f"{service.name}:{model}"
        hosted = self._endpoint.hosted
        self.price = price_of(f"{service.name}:{model}") if price is None and hosted else price
        self.overhead_tokens = max(OVERHEAD_TOKENS if hosted else 0, _thinking_tokens(service, self._wishes) or 0)
        self._memory = memory or Memory()
        self._place = f"{self._endpoint.place} {model}"
        self._known = self._memory.recall(self._place)
        self._tell_refused(self._known.refused & self._wished())
        self._limiter = _limiter(self._endpoint, self._wishes)
        self._transport = Transport(self._endpoint, service.sdk_error)
        self.health = self._transport.health
        self._client: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HostedModel({self.name!r}) <{self._endpoint.place}>"

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        """By what it was made from: the process that reads it takes the key from its own environment."""
        url = httpx2.URL(self._endpoint.base_url)
        if self._headers or url.userinfo or url.query:
            raise ConfigError(
                f"model {self.name!r} cannot be pickled: its default_headers or its base_url may hold a key, and no key goes "
                "into a pickle; make the model anew where it is used"
            )
        wishes = {name: getattr(self._wishes, name) for name in Wishes.__dataclass_fields__}
        return partial(
            HostedModel, self._service, self._endpoint.model, name=self.name, base_url=self._endpoint.base_url,
            price=self.price, memory=self._memory, **wishes,
        ), ()  # fmt: skip

    @property
    def known(self) -> Known:
        """What was found out about the server so far."""
        return self._known

    def complete(self, request: Request) -> Completion:
        """One answer, within the deadline.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        return self._answer(request, None)

    def stream(self, request: Request, on_text: OnText) -> Completion:
        """As `complete`, and `on_text` hears the text as it comes. A server that streams nothing is heard at the end alone."""
        return self._answer(request, on_text)

    def _answer(self, request: Request, on_text: OnText | None) -> Completion:
        deadline = Deadline(request.deadline_s)
        booking = self._enter(request, deadline)
        with self._transport.request():
            completion = self._ask(request, deadline, on_text)
        self._limiter.settle(booking, completion.usage.tokens)
        return completion

    def count_tokens(self, text: str) -> int:
        """An estimate on the high side."""
        return estimate_tokens(text)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _enter(self, request: Request, deadline: Deadline) -> Booking:
        tokens = most_it_costs(self, request.messages, request.max_tokens).tokens
        booking = self._limiter.enter(tokens, deadline.seconds / 2)  # the answer needs time, too
        if isinstance(booking, Booking):
            return booking
        raise LLMUnavailableError(
            f"{self._endpoint.place}: the limits on requests and tokens a minute let none through for {booking:.0f} s, over half of "
            f"deadline_s={deadline.seconds:g}; raise requests_per_minute or tokens_per_minute",
            retry_after_s=booking,
        )

    def _ask(self, request: Request, deadline: Deadline, on_text: OnText | None) -> Completion:
        known = self._known
        sends = itertools.count()

        def counted(*call: Any) -> Answer:
            if next(sends) > 0:  # an attempt again, or with fewer options
                self._limiter.repeat()
            return self._once(*call)

        while True:
            wire = next(w for w in self._wires if w.name not in known.refused or w is self._wires[-1])
            asked = self._asked(request, known)
            attempt = wire.attempt(asked)
            try:
                answer = self._transport.send(partial(counted, wire, attempt, on_text), deadline)
                reply = self._read(wire, answer)
            except RejectedError as error:
                option = self._blamed(error.complaint, wire, attempt)
                if option is None:
                    raise
                known = known.without(_as_kept(option, asked.effort))
                continue
            except LLMReplyError:
                if not self._may_leave(wire, known):
                    raise
                known = known.without(wire.name)
                continue
            self._learn(known, wire, asked, attempt, reply)
            return self._completion(reply, request, deadline.spent())

    def _asked(self, request: Request, known: Known) -> Asked:
        hosted, wished = self._endpoint.hosted, self._wishes.effort
        effort = wished or ("low" if hosted else None)
        unasked = frozenset() if hosted else self._service.own_options - ({"effort"} if wished else set())
        limit = request.max_tokens + self.overhead_tokens
        without = unasked | known.refused | ({"effort"} if _as_kept("effort", effort) in known.refused else set())
        return Asked(request, self._endpoint, limit, effort, self._wishes.thinking_tokens, without)

    def _once(self, wire: Wire, attempt: Attempt, on_text: OnText | None, timeout: httpx2.Timeout) -> Answer:
        more = {} if on_text is None else streaming.arguments(wire.name)
        with wire.create(self._open())(**attempt.arguments, **more, timeout=timeout) as response:
            kind = response.headers.get("content-type", "")
            if on_text is None or "event-stream" not in kind:
                return Answer(read_body(response.iter_bytes(), self._endpoint), kind)
            redact = self._endpoint.redact
            pieces = bounded(response.iter_bytes(), self._endpoint)
            body = streaming.whole_body(wire.name, pieces, lambda text: on_text(redact(text)))
            return Answer(body, "application/json")

    def _read(self, wire: Wire, answer: Answer) -> Reply:
        """Raises: LLMReplyError for what is no whole reply."""
        reply = wire.read(answer, self._endpoint)
        place, redact = self._endpoint.place, self._endpoint.redact
        if reply.text is None:
            said = clean(reply.error or answer.body[:400].decode("utf-8", "replace"), redact)
            raise LLMReplyError(
                f"{place} answered without a reply of model {self._endpoint.model!r} ({said}); check base_url, or ask again"
            )
        if reply.finish is None:
            raise LLMReplyError(
                f"{place} does not say why its reply ended ({clean(reply.reason, redact, 80)}): it may be cut; ask again"
            )
        return reply

    def _may_leave(self, wire: Wire, known: Known) -> bool:
        """Whether a protocol that has not worked yet may be given up for the next one."""
        return wire is not self._wires[-1] and wire.name not in known.proven

    def _blamed(self, complaint: str, wire: Wire, attempt: Attempt) -> str | None:
        option = blamed(complaint, attempt.options, self._service.suspects)
        if option == "format" and not self._endpoint.hosted and wire is not self._wires[-1]:
            return wire.name  # the older protocol may well know schemas
        return option if option != wire.name or wire is not self._wires[-1] else None

    def _learn(self, known: Known, wire: Wire, asked: Asked, attempt: Attempt, reply: Reply) -> None:
        """Keep what the answer shows: options that were refused before it came, and whether the form was enforced."""
        known = known.showing(wire.name)
        form = next((option for option in ("format", "tool") if option in attempt.options), None)
        if form and attempt.schema and reply.finish == "stop" and reply.text and reply.text.strip():
            own_words = reply.text.rpartition("</think>")[2]
            mark = f"{wire.name}:{form}"
            # Servers that make a tool's arguments up keep to its types, and seldom to the bounds, which Anthropic is not even sent.
            whole = asked.request.schema if form == "tool" else None
            if keeps_to(own_words, whole or attempt.schema, bounds=whole is not None):
                known = known.showing(mark)
            elif not self._endpoint.hosted and wire is not self._wires[-1]:
                # vLLM's Responses enforce no schema behind a reasoning parser: issue 44012.
                known = known.without(wire.name)
            elif mark not in known.proven:
                known = known.without(form)
        given = reply.counts.given
        ignored = isinstance(given, int) and given > asked.max_tokens
        for option in {"max_tokens", "max_completion_tokens"} & set(attempt.options) if ignored else ():
            known = known.without(option)
        if known == self._known:
            return
        self._tell_refused(known.refused - self._known.refused)
        self._known = known
        self._memory.keep(self._place, known)

    def _wished(self) -> frozenset[str]:
        """Options that the user asked for: to go on without one is worth a warning."""
        effort = {_as_kept("effort", self._wishes.effort)} if self._wishes.effort is not None else set()
        return frozenset(effort | ({"thinking"} if self._wishes.thinking_tokens is not None else set()))

    def _tell_refused(self, options: Iterable[str]) -> None:
        for option in sorted(options):
            level = logging.WARNING if option in self._wished() else logging.INFO
            place, said = self._endpoint.place, "goes on without %r, which it refused or ignored"
            _log.log(level, f"%s, model %r: {said}", place, self.name, option)

    def _completion(self, reply: Reply, request: Request, seconds: float) -> Completion:
        assert reply.text is not None
        assert reply.finish is not None
        redact = self._endpoint.redact
        model, text = clean(reply.model or self._endpoint.model, redact, 100), redact(reply.text)
        usage = bill(self.price, request, reply.text, reply.counts)
        # Nobody downstream knows the keys that stand in headers and addresses; the tokens of one that was said would spell it.
        logprobs = reply.logprobs if text == reply.text else None
        return Completion(text, usage, model, reply.finish, seconds, logprobs)

    def _open(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._service.connect(self._endpoint, self._headers, self._transport.http_client())
            return self._client


def _headers(given: object) -> dict[str, str]:
    """A copy. Raises: ConfigError, which shows no value: these may be keys."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise ConfigError("default_headers: give a table of names and texts, such as {'X-Team' = 'vision'}")
    return dict(given)


def _as_kept(option: str, effort: str | None) -> str:
    """The name under which a refused option is kept: of efforts each by itself, for a model that knows none of "max" knows others."""
    return f"effort={effort}" if option == "effort" else option


def _wires(service: Service, wishes: Wishes) -> tuple[Wire, ...]:
    names = [wire.name for wire in service.wires]
    if wishes.api is None:
        return service.wires
    if wishes.api not in names:
        raise ConfigError(
            f"api={wishes.api!r} is no protocol of {service.name}; use one of {', '.join(names)}, or leave it out"
        )
    return (service.wires[names.index(wishes.api)],)


def _thinking_tokens(service: Service, wishes: Wishes) -> int | None:
    tokens = wishes.thinking_tokens
    if tokens is not None and service.name != "anthropic":
        raise ConfigError(f"thinking_tokens={tokens!r}: {service.name} takes no budget for thoughts; give effort")
    if tokens is not None and (not isinstance(tokens, int) or tokens < _LEAST_THINKING):
        raise ConfigError(f"thinking_tokens={tokens!r} is no budget; give a whole number from {_LEAST_THINKING} on")
    return tokens


def _limiter(endpoint: Endpoint, wishes: Wishes) -> RateLimiter:
    """The limiter of this account, with the limits that were given last."""
    limiter = shared_limiter(
        (endpoint.service, endpoint.base_url, endpoint.model, hashlib.sha256(endpoint.key.encode()).hexdigest())
    )
    given = {
        name: _limit(f"{endpoint.service}_{name}".upper()) if value is None else value
        for name, value in (
            ("requests_per_minute", wishes.requests_per_minute),
            ("tokens_per_minute", wishes.tokens_per_minute),
        )
    }
    if any(value is not None for value in given.values()):
        limiter.set(**given)
    return limiter


def _limit(variable: str) -> float | None:
    said = os.environ.get(variable, "")
    try:
        return float(said) if said else None
    except ValueError:
        raise ConfigError(f"{variable}={said!r} is not a number; set it to what the service allows a minute") from None

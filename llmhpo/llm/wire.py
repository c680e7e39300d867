"""What the clients of hosted services speak: one `Wire` for each protocol, one `Service` for each kind of server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import httpx2

from llmhpo.llm.base import Finish, JSONSchema, Request, TokenLogprob
from llmhpo.llm.hosted import Answer, Counts, Endpoint, Suspects

TOOL = "reply"  # the name of the form and of the tool that ask for the same


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and what is sent with it besides.

    `without` names the options that are left out; `effort` and `thinking_tokens` are None where the server decides.
    """

    request: Request
    endpoint: Endpoint
    max_tokens: int
    effort: str | None
    thinking_tokens: int | None
    without: frozenset[str]

    def sends(self, option: str) -> bool:
        """Whether the option goes along: it has something to say and is not left out."""
        present = {
            "effort": self.effort is not None,
            "temperature": self.request.temperature is not None,
            "logprobs": self.request.top_logprobs > 0,
            "format": self.request.schema is not None,
            "tool": self.request.schema is not None and "format" in self.without,
            "thinking_budget": self.thinking_tokens is not None,
            "thinking": self.thinking_tokens is not None and "thinking_budget" in self.without,
        }
        return present.get(option, True) and option not in self.without

    @property
    def system(self) -> str:
        """The system messages, which stay the same over a study: caches work from the front."""
        return "\n\n".join(m.content for m in self.request.messages if m.role == "system")

    @property
    def turns(self) -> list[dict[str, str]]:
        """All other messages."""
        return [{"role": m.role, "content": m.content} for m in self.request.messages if m.role != "system"]


class Attempt(NamedTuple):
    """The arguments of a call of the SDK, the options among them that may be left out, and the schema that was sent."""

    arguments: dict[str, Any]
    options: Collection[str]
    schema: JSONSchema | None


class Reply(NamedTuple):
    """What an answer said. `finish` is None where it gave no known `reason` for its end, `text` where it is no reply."""

    text: str | None
    finish: Finish | None
    reason: str
    counts: Counts
    model: str | None = None
    error: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """One protocol: how a request is put, which call of the SDK sends it, how its answer is read."""

    name: str
    attempt: Callable[[Asked], Attempt]
    create: Callable[[Any], Callable[..., Any]]
    read: Callable[[Answer, Endpoint], Reply]


class Connect(Protocol):
    """Makes the SDK's client."""

    def __call__(self, endpoint: Endpoint, headers: Mapping[str, str], http_client: httpx2.Client) -> Any:
        """Without retries of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of server. `wires` are tried in order; `suspects` says which option a complaint is about.

    `own_options` are those that are sent to the service's own address alone, unless the user asks for them.
    """

    name: str
    url: str
    wires: tuple[Wire, ...]
    suspects: Suspects
    own_options: frozenset[str]
    sdk_error: type[Exception]
    connect: Connect


def read_logprobs(said: object) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities as OpenAI's protocols give them; None where there are none, or where they make no sense."""
    if not isinstance(said, list) or not said:
        return None
    found = []
    for one in said:
        pair = _pair(one)
        if pair is None:
            return None
        others = one.get("top_logprobs")
        top = tuple(p for other in others if (p := _pair(other))) if isinstance(others, list) else ()
        found.append(TokenLogprob(*pair, top))
    return tuple(found)


def _pair(said: object) -> tuple[str, float] | None:
    if not isinstance(said, dict):
        return None
    token, value = said.get("token"), said.get("logprob")
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float) or not value <= 0:
        return None
    return token, float(value)

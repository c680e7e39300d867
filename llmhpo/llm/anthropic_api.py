"""Models behind Anthropic's messages: the hosted service and every server that speaks the same."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
from pydantic import BaseModel, JsonValue

from llmhpo.errors import LLMReplyError
from llmhpo.llm.base import Completion, Finish, JSONSchema, Request
from llmhpo.llm.hosted import (
    OVERHEAD_TOKENS,
    Answer,
    Suspects,
    about,
    bill,
    clean,
    estimate_tokens,
    find_endpoint,
    keyless_copy,
    read_reply,
)
from llmhpo.llm.negotiate import Attempt, negotiate
from llmhpo.llm.prices import price_of
from llmhpo.llm.transport import Deadline, Transport
from llmhpo.usage import Price, Usage

_URL = "https://api.anthropic.com"
_TOOL = "reply"
_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
# What a server may refuse, and how its complaint is known. A refused argument is left out from then on. Effort and
# format travel in one field: a complaint that names no part of it takes the format first, then the effort.
_SUSPECTS: Suspects = (
    ("effort", re.compile(r"(?i)effort")),
    ("temperature", about("temperature")),
    ("format", re.compile(r"(?i)output_config|output_format|schema|structured")),
    ("tool", re.compile(r"(?i)tool|schema")),
    ("effort", re.compile(r"(?i)output_config")),
)
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs, "JSON Schema limitations"
_UNSUPPORTED = frozenset(
    [
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    ]
)
_NAMES = ("properties", "$defs", "definitions")  # their keys are names, whatever they look like
_VALUES = ("enum", "const", "default", "examples")


class AnthropicModel:
    """A model of Anthropic, or of any compatible server at `base_url`.

    `base_url` defaults to ANTHROPIC_BASE_URL, then to the hosted service; `api_key` to ANTHROPIC_API_KEY, which the
    hosted service needs and other servers are sent where it is set. The form of the reply is asked for as structured
    output, of a server that refuses that as a forced tool, then in the words of the prompt alone. Bounds are left out of
    the schema, because structured output does not know them. What a server refuses is left out from then on.

    Raises: ConfigError for a missing key or an address that is none.
    """

    compact = False

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> None:
        headers = dict(default_headers or {})
        self._has_headers = bool(headers)
        self._endpoint = find_endpoint(
            "anthropic", model, default_url=_URL, base_url=base_url, api_key=api_key, secrets=headers.values()
        )
        self.name = name or f"anthropic:{model}"
        self.price = price_of(f"anthropic:{model}") if price is None and self._endpoint.hosted else price
        self.overhead_tokens = OVERHEAD_TOKENS if self._endpoint.hosted else 0
        # The SDK sends a bearer token; servers that copy the older protocol look for x-api-key.
        self._headers = headers if self._endpoint.hosted else {"x-api-key": self._endpoint.key, **headers}
        self._refused: frozenset[str] = frozenset() if self._endpoint.hosted else frozenset({"effort"})
        self._transport = Transport(self._endpoint, anthropic.AnthropicError)
        self.health = self._transport.health
        self._client: anthropic.Anthropic | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AnthropicModel({self._endpoint.model!r}) <{self._endpoint.place}>"

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return keyless_copy(type(self), self._endpoint, self.name, self.price, has_headers=self._has_headers)

    def complete(self, request: Request) -> Completion:
        """One message, within the deadline.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        with self._transport.request():
            return self._ask(request, Deadline(request.deadline_s))

    def _ask(self, request: Request, deadline: Deadline) -> Completion:
        answer, refused = negotiate(
            lambda refused: self._attempt(request, refused),
            lambda: self._open().messages.with_streaming_response.create,
            self._refused,
            transport=self._transport,
            endpoint=self._endpoint,
            suspects=_SUSPECTS,
            deadline=deadline,
        )
        self._refused |= refused  # only now: a complaint may have been about something else
        return self._completion(answer, request, deadline.spent())

    def count_tokens(self, text: str) -> int:
        """An estimate on the high side."""
        return estimate_tokens(text)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _attempt(self, request: Request, refused: frozenset[str]) -> Attempt:
        options = _options(request) - refused
        if "format" in options:
            options -= {"tool"}
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        arguments: dict[str, Any] = {
            "model": self._endpoint.model,
            "max_tokens": request.max_tokens + self.overhead_tokens,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages if m.role != "system"],
        }
        if system.strip():
            arguments["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if "temperature" in options:
            arguments["extra_body"] = {"temperature": request.temperature}  # anthropic 2.x has no argument for it
        output: dict[str, Any] = {"effort": "low"} if "effort" in options else {}
        if request.schema is not None and "format" in options:
            output["format"] = {"type": "json_schema", "schema": supported(request.schema)}
        if output:
            arguments["output_config"] = output
        if request.schema is not None and "tool" in options:
            tool = {"name": _TOOL, "description": "Give the reply.", "input_schema": supported(request.schema)}
            arguments |= {"tools": [tool], "tool_choice": {"type": "tool", "name": _TOOL}}
        return Attempt(arguments, options)

    def _completion(self, answer: Answer, request: Request, seconds: float) -> Completion:
        reply = read_reply(_Reply, answer, self._endpoint)
        place, redact = self._endpoint.place, self._endpoint.redact
        if reply.content is None:
            said = clean(str(reply.error or answer.body[:400].decode("utf-8", "replace")), redact)
            raise LLMReplyError(
                f"{place} answered without a reply of model {self._endpoint.model!r} ({said}); check base_url, or ask again"
            )
        finish = _FINISH.get(reply.stop_reason or "")
        if finish is None:
            raise LLMReplyError(
                f"{place} does not say why its reply ended (stop_reason={clean(str(reply.stop_reason), redact, 40)!r}): "
                "it may be cut; ask again"
            )
        tools = [json.dumps(block.input) for block in reply.content if block.type == "tool_use"]
        text = tools[0] if tools else "".join(block.text or "" for block in reply.content if block.type == "text")
        model = clean(reply.model or self._endpoint.model, redact, 100)
        return Completion(text, self._usage(reply.usage, request, text), model, finish, seconds)

    def _usage(self, said: JsonValue, request: Request, text: str) -> Usage:
        usage = said if isinstance(said, dict) else {}
        # Anthropic's input_tokens leave out what was read from the cache and what was written to it.
        cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
        parts = (usage.get("input_tokens"), cached, written)
        counts = [part for part in parts if isinstance(part, int) and part >= 0]
        return bill(
            self.price,
            request,
            text,
            input_tokens=sum(counts) if len(counts) == len(parts) else None,
            output_tokens=usage.get("output_tokens"),
            cached_tokens=cached,
            written_tokens=written,
        )

    def _open(self) -> anthropic.Anthropic:
        with self._lock:
            if self._client is None:
                self._client = anthropic.Anthropic(
                    api_key=self._endpoint.key,
                    base_url=self._endpoint.base_url,
                    default_headers=self._headers,
                    max_retries=0,
                    http_client=self._transport.http_client(),
                )
            return self._client


def supported(schema: JSONSchema) -> JSONSchema:
    """The schema without the keywords that structured output refuses; the caller checks bounds in any case."""
    kept: JSONSchema = {}
    for keyword, value in schema.items():
        if keyword in _UNSUPPORTED or (keyword == "minItems" and value not in (0, 1)):
            continue
        if keyword in _NAMES and isinstance(value, dict):
            kept[keyword] = {name: _supported_node(node) for name, node in value.items()}
        else:
            kept[keyword] = value if keyword in _VALUES else _supported_node(value)
    return kept


def _supported_node(node: object) -> object:
    if isinstance(node, dict):
        return supported(node)
    return [_supported_node(item) for item in node] if isinstance(node, list) else node


def _options(request: Request) -> frozenset[str]:
    options = {"effort"}
    if request.schema is not None:
        options |= {"format", "tool"}
    if request.temperature is not None:
        options |= {"temperature"}
    return frozenset(options)


class _Block(BaseModel):
    type: str
    text: str | None = None
    input: JsonValue = None


class _Reply(BaseModel):
    """What is read of a message; usage is looked at leniently."""

    content: list[_Block] | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: JsonValue = None
    error: JsonValue = None

"""Anthropic's messages: the hosted service and every server that speaks the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import anthropic
import httpx2
from pydantic import BaseModel, JsonValue

from llmhpo.llm.base import Finish, JSONSchema
from llmhpo.llm.client import HostedModel
from llmhpo.llm.hosted import Answer, Counts, Endpoint, Suspects, about, part, read_reply
from llmhpo.llm.wire import TOOL, Asked, Attempt, Reply, Service, Wire

_FINISH: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
# What a server may refuse, and how its complaint is known. Effort and format travel in one field: a complaint that names no
# part of it takes the format first, then the effort. Complaints of a budget for thoughts recommend an effort.
_SUSPECTS: Suspects = (
    ("thinking_budget", re.compile(r"(?i)thinking\.type\.enabled|budget_tokens")),
    ("effort", re.compile(r"(?i)effort")),
    ("temperature", about("temperature")),
    ("format", re.compile(r"(?i)output_config|output_format|schema|structured")),
    ("force", re.compile(r"(?i)tool_choice")),
    ("thinking_budget", re.compile(r"(?i)thinking")),
    ("thinking", re.compile(r"(?i)thinking")),
    ("tool", re.compile(r"(?i)tool|schema")),
    ("effort", re.compile(r"(?i)output_config")),
    ("cache", about("cache_control")),
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


def anthropic_model(model: str, **options: Any) -> HostedModel:
    """A model of Anthropic, or of a compatible server: `options` as `HostedModel` takes them."""
    return HostedModel(SERVICE, model, **options)


def _ask(asked: Asked) -> Attempt:
    options = {"effort", "temperature", "format", "tool", "force", "thinking_budget", "thinking", "cache"}
    options = {option for option in options if asked.sends(option)}
    thinks = bool(options & {"thinking_budget", "thinking"})
    if thinks:  # the service takes neither beside thinking
        options -= {"force", "temperature"}
    schema = None if asked.request.schema is None else supported(asked.request.schema)
    arguments: dict[str, Any] = {
        "model": asked.endpoint.model,
        "max_tokens": asked.max_tokens,
        "messages": asked.turns,
    }
    if asked.system.strip():
        mark = {"cache_control": {"type": "ephemeral"}} if "cache" in options else {}
        arguments["system"] = [{"type": "text", "text": asked.system, **mark}]
    if thinks:
        budget = {"type": "enabled", "budget_tokens": asked.thinking_tokens}
        arguments["thinking"] = budget if "thinking_budget" in options else {"type": "adaptive"}
    if "temperature" in options:
        arguments["extra_body"] = {"temperature": asked.request.temperature}  # anthropic 2.x has no argument for it
    output: dict[str, Any] = {"effort": asked.effort} if "effort" in options else {}
    if "format" in options:
        output["format"] = {"type": "json_schema", "schema": schema}
    if output:
        arguments["output_config"] = output
    if "tool" in options:
        arguments["tools"] = [{"name": TOOL, "description": "Give the reply.", "input_schema": schema}]
        arguments["tool_choice"] = {"type": "tool", "name": TOOL} if "force" in options else {"type": "auto"}
    return Attempt(arguments, options, schema)


def _read(answer: Answer, endpoint: Endpoint) -> Reply:
    said = read_reply(_Message, answer, endpoint)
    reason = f"stop_reason={said.stop_reason!r}"
    counts = _counts(part(said.usage))
    if said.content is None:
        return Reply(None, None, reason, counts, said.model, str(said.error or ""))
    calls = [json.dumps(block.input) for block in said.content if block.type == "tool_use"]
    text = calls[0] if calls else "".join(block.text or "" for block in said.content if block.type == "text")
    return Reply(text, _FINISH.get(said.stop_reason or ""), reason, counts, said.model)


def _counts(usage: dict[str, object]) -> Counts:
    # Anthropic's input_tokens leave out what was read from the cache and what was written to it.
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    parts = (usage.get("input_tokens"), cached, written)
    whole = [one for one in parts if isinstance(one, int) and one >= 0]
    thought = part(usage, "output_tokens_details").get("thinking_tokens")
    return Counts(
        sum(whole) if len(whole) == len(parts) else None, usage.get("output_tokens"), cached, written, thought
    )


def _connect(endpoint: Endpoint, headers: Mapping[str, str], http_client: httpx2.Client) -> anthropic.Anthropic:
    # The SDK sends a bearer token; servers that copy the older protocol look for x-api-key.
    more = {} if endpoint.hosted else {"x-api-key": endpoint.key}
    return anthropic.Anthropic(
        api_key=endpoint.key,
        base_url=endpoint.base_url,
        default_headers={**more, **headers},
        max_retries=0,
        http_client=http_client,
    )


SERVICE = Service(
    "anthropic",
    "https://api.anthropic.com",
    (Wire("messages", _ask, attrgetter("messages.with_streaming_response.create"), _read),),
    _SUSPECTS,
    frozenset({"effort"}),
    anthropic.AnthropicError,
    _connect,
)


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


class _Block(BaseModel):
    type: str
    text: str | None = None
    input: JsonValue = None


class _Message(BaseModel):
    """What is read of a message; usage is looked at leniently."""

    content: list[_Block] | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: JsonValue = None
    error: JsonValue = None

"""OpenAI's two protocols, and the servers that speak them: vLLM, llama.cpp, Ollama, OpenRouter, Gemini's, ..."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, JsonValue

from llmhpo.llm.base import Finish, JSONSchema
from llmhpo.llm.client import HostedModel
from llmhpo.llm.hosted import Answer, Counts, Endpoint, Suspects, about, part, read_reply
from llmhpo.llm.wire import TOOL, Asked, Attempt, Reply, Service, Wire, read_logprobs

_CHAT_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "eos": "stop",  # text-generation servers
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "refusal",
}
_RESPONSE_FINISH: dict[tuple[str | None, str | None], Finish] = {
    ("completed", None): "stop",
    ("incomplete", "max_output_tokens"): "length",
    ("incomplete", "content_filter"): "refusal",
}
# What a server may refuse, and how its complaint is known, the status before its words. A 404 that speaks of a model is about
# the model.
_SUSPECTS: Suspects = (
    ("temperature", about("temperature")),
    ("logprobs", about("logprobs")),
    ("seed", about("seed")),
    ("cache_key", about("prompt_cache_key")),
    ("store", about("store")),
    ("effort", about("effort|reasoning")),
    ("max_completion_tokens", about("max_completion_tokens")),
    ("max_tokens", about("max_tokens")),
    ("responses", re.compile(r"(?is)^40[45]:(?!.{0,300}\bmodel)|not support (?:the )?responses")),
    ("format", re.compile(r"(?i)response_format|text\.format|schema|structured|grammar|guided")),
    ("force", re.compile(r"(?i)tool_choice")),
    ("tool", re.compile(r"(?i)tool|function")),
)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_DESCRIPTION = "Give the reply."


def openai_model(model: str, **options: Any) -> HostedModel:
    """A model of OpenAI, or of a compatible server: `options` as `HostedModel` takes them."""
    return HostedModel(SERVICE, model, **options)


def _ask_responses(asked: Asked) -> Attempt:
    schema = _schema(asked)
    options = {"responses", "store", "cache_key", "effort", "temperature", "logprobs", "format", "tool", "force"}
    options = {option for option in options if asked.sends(option)}
    arguments: dict[str, Any] = {
        "model": asked.endpoint.model,
        "input": asked.turns,
        "max_output_tokens": asked.max_tokens,
    }
    if asked.system:
        arguments["instructions"] = asked.system
    if "store" in options:
        arguments["store"] = False
    if "cache_key" in options:
        arguments["prompt_cache_key"] = _cache_key(asked)
    if "effort" in options:
        arguments["reasoning"] = {"effort": asked.effort}
    if "temperature" in options:
        arguments["temperature"] = asked.request.temperature
    if "logprobs" in options:
        arguments |= {"include": ["message.output_text.logprobs"], "top_logprobs": asked.request.top_logprobs}
    if "format" in options:
        arguments["text"] = {"format": {"type": "json_schema", "name": TOOL, "schema": schema, "strict": True}}
    if "tool" in options:
        tool = {"name": TOOL, "description": _DESCRIPTION, "parameters": schema, "strict": True}
        arguments["tools"] = [{"type": "function", **tool}]
        arguments["tool_choice"] = {"type": "function", "name": TOOL} if "force" in options else "auto"
    return Attempt(arguments, options, schema)


def _ask_chat(asked: Asked) -> Attempt:
    schema = _schema(asked)
    # OpenAI's reasoning models refuse the older name; Ollama and many others ignore the newer one and write on and on.
    limits = (
        ("max_completion_tokens", "max_tokens") if asked.endpoint.hosted else ("max_tokens", "max_completion_tokens")
    )
    options = {limits[0], "cache_key", "effort", "seed", "temperature", "logprobs", "format", "tool", "force"}
    options = {option for option in options if asked.sends(option)}
    limit = limits[0] if limits[0] in options else limits[1]
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    arguments: dict[str, Any] = {
        "model": asked.endpoint.model,
        "messages": system + asked.turns,
        limit: asked.max_tokens,
    }
    if "cache_key" in options:
        arguments["prompt_cache_key"] = _cache_key(asked)
    if "effort" in options:
        arguments["reasoning_effort"] = asked.effort
    if "seed" in options:
        arguments["seed"] = asked.request.number
    if "temperature" in options:
        arguments["temperature"] = asked.request.temperature
    if "logprobs" in options:
        arguments |= {"logprobs": True, "top_logprobs": asked.request.top_logprobs}
    if "format" in options:
        form = {"name": TOOL, "schema": schema, "strict": True}
        arguments["response_format"] = {"type": "json_schema", "json_schema": form}
    if "tool" in options:
        tool = {"name": TOOL, "description": _DESCRIPTION, "parameters": schema, "strict": True}
        arguments["tools"] = [{"type": "function", "function": tool}]
        arguments["tool_choice"] = {"type": "function", "function": {"name": TOOL}} if "force" in options else "auto"
    return Attempt(arguments, options, schema)


def _schema(asked: Asked) -> JSONSchema | None:
    schema = asked.request.schema
    return strict(schema) if schema is not None and asked.endpoint.hosted else schema


def _cache_key(asked: Asked) -> str:
    """Sends requests that begin alike to the same machine, where the beginning is cached."""
    return "llmhpo-" + hashlib.sha256(asked.system.encode("utf-8", "replace")).hexdigest()[:32]


def _counts(usage: JsonValue, given: str, made: str) -> Counts:
    """The two protocols count the same under different names."""
    return Counts(
        part(usage).get(given),
        part(usage).get(made),
        part(usage, f"{given}_details").get("cached_tokens"),
        part(usage, f"{given}_details").get("cache_write_tokens"),
        part(usage, f"{made}_details").get("reasoning_tokens"),
    )


def _read_response(answer: Answer, endpoint: Endpoint) -> Reply:
    said = read_reply(_Response, answer, endpoint)
    counts = _counts(said.usage, "input_tokens", "output_tokens")
    why = part(said.incomplete_details).get("reason")
    reason = f"status={said.status!r}, reason={why!r}"
    if said.output is None or said.status == "failed":
        return Reply(None, None, reason, counts, said.model, str(said.error or ""))
    pieces = [piece for item in said.output if item.type == "message" for piece in item.content or []]
    calls = [item.arguments for item in said.output if item.type == "function_call" and item.arguments is not None]
    refusals = [piece.refusal for piece in pieces if piece.refusal]
    texts = [piece.text for piece in pieces if piece.text]
    finish = _RESPONSE_FINISH.get((said.status, why if isinstance(why, str) else None))
    text = calls[0] if calls else "".join(refusals or texts)
    logprobs = read_logprobs([one for piece in pieces for one in piece.logprobs or []])
    return Reply(text, "refusal" if refusals else finish, reason, counts, said.model, logprobs=logprobs)


def _read_chat(answer: Answer, endpoint: Endpoint) -> Reply:
    said = read_reply(_Completion, answer, endpoint)
    counts = _counts(said.usage, "prompt_tokens", "completion_tokens")
    if not said.choices:
        return Reply(None, None, "", counts, said.model, str(said.error or ""))
    choice = said.choices[0]
    message = choice.message
    calls = [call.function.arguments for call in message.tool_calls or [] if call.function is not None]
    finish = "refusal" if message.refusal else _CHAT_FINISH.get(choice.finish_reason or "")
    text = (calls[0] if calls else None) or message.content or message.refusal or ""
    logprobs = read_logprobs(part(choice.logprobs).get("content"))
    return Reply(text, finish, f"finish_reason={choice.finish_reason!r}", counts, said.model, logprobs=logprobs)


def _connect(endpoint: Endpoint, headers: Mapping[str, str], http_client: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=endpoint.key,
        base_url=endpoint.base_url,
        default_headers=headers,
        max_retries=0,
        http_client=http_client,
    )


SERVICE = Service(
    "openai",
    "https://api.openai.com/v1",
    (
        Wire("responses", _ask_responses, attrgetter("responses.with_streaming_response.create"), _read_response),
        Wire("chat", _ask_chat, attrgetter("chat.completions.with_streaming_response.create"), _read_chat),
    ),
    _SUSPECTS,
    frozenset({"effort", "cache_key"}),
    openai.OpenAIError,
    _connect,
)


def strict(schema: JSONSchema) -> JSONSchema:
    """The schema as OpenAI's strict mode takes it: no lengths of strings, and a type beside every enum.

    Source: https://developers.openai.com/api/docs/guides/structured-outputs, "Supported properties". Servers of one's
    own get the whole schema: some keep to lengths, and none minds an enum without a type.
    """
    kept: JSONSchema = {}
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            kept[keyword] = {name: strict(node) for name, node in value.items()}
        elif keyword in ("items", "anyOf"):
            kept[keyword] = [strict(node) for node in value] if isinstance(value, list) else strict(value)  # type: ignore[arg-type]
        elif keyword not in ("minLength", "maxLength"):
            kept[keyword] = value
    choices = schema.get("enum")
    if isinstance(choices, list) and "type" not in schema:
        types = sorted({_TYPES[type(choice)] for choice in choices})
        kept["type"] = types[0] if len(types) == 1 else types
    return kept


class _Piece(BaseModel):
    text: str | None = None
    refusal: str | None = None
    logprobs: list[JsonValue] | None = None


class _Item(BaseModel):
    type: str
    content: list[_Piece] | None = None
    arguments: str | None = None


class _Response(BaseModel):
    """What is read of a response; usage is looked at leniently."""

    output: list[_Item] | None = None
    status: str | None = None
    incomplete_details: JsonValue = None
    model: str | None = None
    usage: JsonValue = None
    error: JsonValue = None


class _Function(BaseModel):
    arguments: str | None = None


class _Call(BaseModel):
    function: _Function | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: JsonValue = None


class _Completion(BaseModel):
    """What is read of a chat completion; usage is looked at leniently."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: JsonValue = None
    error: JsonValue = None

"""Models behind OpenAI's chat completions: the hosted service and every server that speaks the same."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import openai
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
from llmhpo.usage import Price

_URL = "https://api.openai.com/v1"
_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",  # text-generation servers
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "content_filter": "refusal",
}
# What a server may refuse, and how its complaint is known. A refused argument is left out from then on.
_SUSPECTS: Suspects = (
    ("reasoning_effort", about("effort")),
    ("temperature", about("temperature")),
    ("seed", about("seed")),
    ("max_completion_tokens", about("max_(?:completion_)?tokens")),
    ("response_format", re.compile(r"(?i)response_format|schema|structured|grammar|guided")),
)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class OpenAIModel:
    """A model of OpenAI, or of any compatible server (vLLM, llama.cpp, Ollama, OpenRouter, ...) at `base_url`.

    `base_url` defaults to OPENAI_BASE_URL, then to the hosted service; `api_key` to OPENAI_API_KEY, which the hosted
    service needs and other servers are sent where it is set. The hosted service is asked for a low effort of thought.
    What a server refuses (a JSON schema, an effort, a temperature, a seed, `max_completion_tokens`) is left out from then
    on; the prompt describes the form of the reply in any case.

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
            "openai", model, default_url=_URL, base_url=base_url, api_key=api_key, secrets=headers.values()
        )
        self.name = name or f"openai:{model}"
        self.price = price_of(f"openai:{model}") if price is None and self._endpoint.hosted else price
        self.overhead_tokens = OVERHEAD_TOKENS if self._endpoint.hosted else 0
        self._headers = headers
        self._refused: frozenset[str] = frozenset() if self._endpoint.hosted else frozenset({"reasoning_effort"})
        self._transport = Transport(self._endpoint, openai.OpenAIError)
        self.health = self._transport.health
        self._client: openai.OpenAI | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIModel({self._endpoint.model!r}) <{self._endpoint.place}>"

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return keyless_copy(type(self), self._endpoint, self.name, self.price, has_headers=self._has_headers)

    def complete(self, request: Request) -> Completion:
        """One chat completion, within the deadline.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        with self._transport.request():
            return self._ask(request, Deadline(request.deadline_s))

    def _ask(self, request: Request, deadline: Deadline) -> Completion:
        answer, refused = negotiate(
            lambda refused: self._attempt(request, refused),
            lambda: self._open().chat.completions.with_streaming_response.create,
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
        optional: dict[str, Any] = {
            "max_completion_tokens": request.max_tokens + self.overhead_tokens,
            "reasoning_effort": "low",
            "seed": request.number,
        }
        if request.temperature is not None:
            optional["temperature"] = request.temperature
        if request.schema is not None:
            schema = strict(request.schema) if self._endpoint.hosted else request.schema
            form = {"name": "reply", "schema": schema, "strict": True}
            optional["response_format"] = {"type": "json_schema", "json_schema": form}
        arguments = {option: value for option, value in optional.items() if option not in refused}
        if "max_completion_tokens" in refused:
            arguments["max_tokens"] = optional["max_completion_tokens"]
        arguments["model"] = self._endpoint.model
        arguments["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
        return Attempt(arguments, arguments.keys())

    def _completion(self, answer: Answer, request: Request, seconds: float) -> Completion:
        reply = read_reply(_Reply, answer, self._endpoint)
        place, redact = self._endpoint.place, self._endpoint.redact
        if not reply.choices:
            said = clean(str(reply.error or answer.body[:400].decode("utf-8", "replace")), redact)
            raise LLMReplyError(
                f"{place} answered without a reply of model {self._endpoint.model!r} ({said}); check base_url, or ask again"
            )
        choice = reply.choices[0]
        finish = "refusal" if choice.message.refusal else _FINISH.get(choice.finish_reason or "")
        if finish is None:
            raise LLMReplyError(
                f"{place} does not say why its reply ended (finish_reason="
                f"{clean(str(choice.finish_reason), redact, 40)!r}): it may be cut; ask again"
            )
        text = choice.message.content or choice.message.refusal or ""
        usage = reply.usage if isinstance(reply.usage, dict) else {}
        details = usage.get("prompt_tokens_details")
        details = details if isinstance(details, dict) else {}
        billed = bill(
            self.price,
            request,
            text,
            input_tokens=usage.get("prompt_tokens"),
            output_tokens=usage.get("completion_tokens"),
            cached_tokens=details.get("cached_tokens"),
            written_tokens=details.get("cache_write_tokens"),
        )
        model = clean(reply.model or self._endpoint.model, redact, 100)
        return Completion(text, billed, model, finish, seconds)

    def _open(self) -> openai.OpenAI:
        with self._lock:
            if self._client is None:
                self._client = openai.OpenAI(
                    api_key=self._endpoint.key,
                    base_url=self._endpoint.base_url,
                    default_headers=self._headers,
                    max_retries=0,
                    http_client=self._transport.http_client(),
                )
            return self._client


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


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Reply(BaseModel):
    """What is read of a chat completion; usage is looked at leniently."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: JsonValue = None
    error: JsonValue = None

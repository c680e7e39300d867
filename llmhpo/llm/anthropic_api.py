"""Models behind Anthropic's messages: the hosted service and every server that speaks the same."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, cast

from llmhpo.errors import ConfigError, LLMReplyError, LLMRequestError
from llmhpo.llm.base import Completion, Finish, JSONSchema, Request
from llmhpo.llm.prices import price_of
from llmhpo.llm.transport import SDK, Service, count, estimate_tokens, send
from llmhpo.usage import Price, Usage

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message

_HOSTED = "https://api.anthropic.com"
_FINISH: dict[str, Finish] = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refusal"}
_TOOL = "reply"
_UNSUPPORTED = {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "multipleOf"}


class AnthropicModel:
    """A model of Anthropic, or of any compatible server at `base_url`.

    `base_url` defaults to ANTHROPIC_BASE_URL, then to the hosted service, which needs ANTHROPIC_API_KEY. The form of the
    reply is asked for as structured output, of a server that refuses that as a forced tool, then in words alone. Bounds
    are left out of the schema, because structured output does not know them; `space.coerce` checks them in any case.

    Raises: ConfigError without a key for the hosted service.
    """

    compact = False
    overhead_tokens = 0

    def __init__(self, model: str, *, base_url: str | None = None, price: Price | None = None) -> None:
        url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or _HOSTED
        hosted = url.rstrip("/") == _HOSTED
        key = os.environ.get("ANTHROPIC_API_KEY") or ""
        if not key and hosted:
            raise ConfigError(
                f"llm = 'anthropic:{model}' needs a key: set ANTHROPIC_API_KEY, or give base_url for a server of your own"
            )
        self.name = f"anthropic:{model}"
        self.price = price or (price_of(self.name) if hosted else None)
        self._service = Service("anthropic", model, url, "ANTHROPIC_API_KEY", key or "not-needed")
        self._forms = ["output_config", "tools", ""]  # how to ask for the form of a reply, best first
        self._temperature = True
        self._client: anthropic.Anthropic | None = None

    def complete(self, request: Request) -> Completion:
        """One message.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        import anthropic

        start = time.monotonic()
        while True:
            options = self._options(request)
            try:
                reply = send(
                    lambda left, options=options: self._open().messages.create(  # type: ignore[misc]
                        model=self._service.model, timeout=left, **options
                    ),
                    self._service,
                    cast("SDK", anthropic),
                    deadline_s=request.deadline_s - (time.monotonic() - start),
                    abort=self.close,
                )
                return self._completion(reply, request, time.monotonic() - start)
            except LLMRequestError as error:
                if not self._learn(str(error), options):
                    raise

    def _options(self, request: Request) -> dict[str, Any]:
        system = [m.content for m in request.messages if m.role == "system"]
        turns = [{"role": m.role, "content": m.content} for m in request.messages if m.role != "system"]
        options: dict[str, Any] = {"max_tokens": request.max_tokens, "messages": turns}
        if system:
            text = "\n\n".join(system)
            options["system"] = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        if request.temperature is not None and self._temperature:
            options["temperature"] = request.temperature
        if request.schema is not None and self._forms[0] == "output_config":
            options["output_config"] = {"format": {"type": "json_schema", "schema": _supported(request.schema)}}
        elif request.schema is not None and self._forms[0] == "tools":
            tool = {"name": _TOOL, "description": "Give the reply.", "input_schema": request.schema}
            options |= {"tools": [tool], "tool_choice": {"type": "tool", "name": _TOOL}}
        return options

    def _learn(self, problem: str, options: dict[str, Any]) -> bool:
        """Remember what the server refuses, where its complaint names something that was sent."""
        words = {"output_config": ("output_config", "output_format", "schema"), "tools": ("tool", "schema")}
        form = self._forms[0]
        if form and form in options and any(w in problem for w in words[form]):
            self._forms.pop(0)
            return True
        if "temperature" in options and "temperature" in problem:
            self._temperature = False
            return True
        return False

    def _completion(self, reply: Message, request: Request, seconds: float) -> Completion:
        content = getattr(reply, "content", None)
        if not isinstance(content, list):
            raise LLMReplyError(f"{self.name} at {self._service.url}: the answer holds no content; check base_url")
        text = "".join(block.text for block in content if block.type == "text" and block.text)
        tools = [block.input for block in content if block.type == "tool_use"]
        if tools:
            text = json.dumps(tools[0])
        finish = _FINISH.get(reply.stop_reason or "", "stop")
        if not text.strip() and finish != "refusal":
            raise LLMReplyError(f"{self.name}: the answer is empty (stop reason {reply.stop_reason!r})")
        return Completion(text, self._usage(reply, request, text), reply.model or self.name, finish, seconds)

    def _usage(self, reply: Message, request: Request, text: str) -> Usage:
        """As the service says, where `input_tokens` leaves the cached ones out; estimated where it says nonsense."""
        said = getattr(reply, "usage", None)
        fresh = count(getattr(said, "input_tokens", None))
        answered = count(getattr(said, "output_tokens", None))
        cached = count(getattr(said, "cache_read_input_tokens", None)) or 0
        written = count(getattr(said, "cache_creation_input_tokens", None)) or 0
        asked = (
            sum(self.count_tokens(m.content) for m in request.messages) if fresh is None else fresh + cached + written
        )
        answered = self.count_tokens(text) if answered is None else answered
        cached = min(cached, asked)
        return Usage(
            1, asked, cached, answered, None if self.price is None else self.price.usd(asked, answered, cached)
        )

    def count_tokens(self, text: str) -> int:
        """An estimate, rather too high."""
        return estimate_tokens(text)

    def _open(self) -> anthropic.Anthropic:
        import anthropic

        if self._client is None:
            self._client = anthropic.Anthropic(api_key=self._service.key, base_url=self._service.url, max_retries=0)
        return self._client

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _supported(schema: JSONSchema) -> JSONSchema:
    """The schema without what structured output refuses; the bounds stand in the prompt too."""

    # A parameter may be named like a keyword: names are the keys of "properties" and are not touched.
    def walk(node: object, names: bool = False) -> object:
        if isinstance(node, dict):
            kept = node.items() if names else ((k, v) for k, v in node.items() if k not in _UNSUPPORTED)
            return {k: v if not names and k == "enum" else walk(v, not names and k == "properties") for k, v in kept}
        return [walk(item) for item in node] if isinstance(node, list) else node

    return cast("JSONSchema", walk(schema))

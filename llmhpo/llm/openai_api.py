"""Models behind OpenAI's chat completions: the hosted service and every server that speaks the same."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, cast

from llmhpo.errors import ConfigError, LLMReplyError, LLMRequestError
from llmhpo.llm.base import Completion, Finish, Request
from llmhpo.llm.prices import price_of
from llmhpo.llm.transport import SDK, Service, count, estimate_tokens, send
from llmhpo.usage import Price, Usage

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

_HOSTED = "https://api.openai.com/v1"
_REASONING_TOKENS = 4000  # room for the thoughts of the hosted models, which count as output
_FINISH: dict[str, Finish] = {"length": "length", "content_filter": "refusal"}


class OpenAIModel:
    """A model of OpenAI, or of any compatible server (vLLM, llama.cpp, Ollama, OpenRouter, ...) at `base_url`.

    `base_url` defaults to OPENAI_BASE_URL, then to the hosted service, which needs OPENAI_API_KEY. What a server refuses
    (a JSON schema, `max_completion_tokens`, a temperature, an effort) is left out from then on; the prompt describes the
    form of the reply in any case.

    Raises: ConfigError without a key for the hosted service.
    """

    compact = False

    def __init__(self, model: str, *, base_url: str | None = None, price: Price | None = None) -> None:
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _HOSTED
        hosted = url.rstrip("/") == _HOSTED
        key = os.environ.get("OPENAI_API_KEY") or ""
        if not key and hosted:
            raise ConfigError(
                f"llm = 'openai:{model}' needs a key: set OPENAI_API_KEY, or give base_url for a server of your own"
            )
        self.name = f"openai:{model}"
        self.price = price or (price_of(self.name) if hosted else None)
        self.overhead_tokens = _REASONING_TOKENS if hosted else 0
        self._service = Service("openai", model, url, "OPENAI_API_KEY", key or "not-needed")
        self._refused: set[str] = set() if hosted else {"effort"}
        self._client: openai.OpenAI | None = None

    def complete(self, request: Request) -> Completion:
        """One chat completion.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        import openai

        start = time.monotonic()
        while True:
            options = self._options(request)
            try:
                reply = send(
                    lambda left, options=options: self._open().chat.completions.create(  # type: ignore[misc]
                        model=self._service.model,
                        messages=cast("Any", [{"role": m.role, "content": m.content} for m in request.messages]),
                        timeout=left,
                        **options,
                    ),
                    self._service,
                    cast("SDK", openai),
                    deadline_s=request.deadline_s - (time.monotonic() - start),
                    abort=self.close,
                )
                return self._completion(reply, request, time.monotonic() - start)
            except LLMRequestError as error:
                if not self._learn(str(error), options):
                    raise

    def _options(self, request: Request) -> dict[str, Any]:
        limit = "max_tokens" if "max_completion_tokens" in self._refused else "max_completion_tokens"
        options: dict[str, Any] = {limit: request.max_tokens + self.overhead_tokens}
        if request.schema is not None and "schema" not in self._refused:
            form = {"name": "reply", "schema": request.schema, "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        if request.temperature is not None and "temperature" not in self._refused:
            options["temperature"] = request.temperature
        if "effort" not in self._refused:
            options["reasoning_effort"] = "low"
        return options

    def _learn(self, problem: str, options: dict[str, Any]) -> bool:
        """Remember which option the server refuses, where its complaint names one that was sent."""
        names = {
            "schema": ("response_format", "json_schema", "schema"),
            "max_completion_tokens": ("max_completion_tokens", "max_tokens"),
            "temperature": ("temperature",),
            "effort": ("reasoning_effort", "effort"),
        }
        sent = {"schema": "response_format", "effort": "reasoning_effort"}
        for option, words in names.items():
            if option not in self._refused and sent.get(option, option) in options and any(w in problem for w in words):
                self._refused.add(option)
                return True
        return False

    def _completion(self, reply: ChatCompletion, request: Request, seconds: float) -> Completion:
        choices = getattr(reply, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise LLMReplyError(f"{self.name} at {self._service.url}: the answer holds no choices; check base_url")
        choice = choices[0]
        text, refusal = choice.message.content or "", getattr(choice.message, "refusal", None)
        finish: Finish = "refusal" if refusal else _FINISH.get(choice.finish_reason or "", "stop")
        if not text.strip() and not refusal:
            raise LLMReplyError(f"{self.name}: the answer is empty (finish reason {choice.finish_reason!r})")
        return Completion(
            text or str(refusal), self._usage(reply, request, text), reply.model or self.name, finish, seconds
        )

    def _usage(self, reply: ChatCompletion, request: Request, text: str) -> Usage:
        """As the service says; estimated where it says nothing or nonsense."""
        said = reply.usage
        asked = count(getattr(said, "prompt_tokens", None))
        answered = count(getattr(said, "completion_tokens", None))
        details = getattr(said, "prompt_tokens_details", None)
        cached = count(getattr(details, "cached_tokens", None)) or 0
        asked = sum(self.count_tokens(m.content) for m in request.messages) if asked is None else asked
        answered = self.count_tokens(text) if answered is None else answered
        cached = min(cached, asked)
        return Usage(
            1, asked, cached, answered, None if self.price is None else self.price.usd(asked, answered, cached)
        )

    def count_tokens(self, text: str) -> int:
        """An estimate, rather too high."""
        return estimate_tokens(text)

    def _open(self) -> openai.OpenAI:
        import openai

        if self._client is None:
            self._client = openai.OpenAI(api_key=self._service.key, base_url=self._service.url, max_retries=0)
        return self._client

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

"""A model whose requests and replies are told to a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from llmhpo.errors import LLMError
from llmhpo.llm.base import LLM, Completion, Request, most_it_costs
from llmhpo.llm.health import Health, health_of

Note = Callable[[str, dict[str, Any]], None]


class LoggedModel:
    """`model`, with every request that it is sent told to `note("request", data)` with what came of it.

    Before it is sent, `note("asking", ...)` says what it may cost at most.

    What is told is not redacted yet: the event log does that.
    """

    def __init__(self, model: LLM, note: Note) -> None:
        self._model, self._note = model, note
        self.name, self.price = model.name, model.price
        self.compact, self.overhead_tokens = model.compact, model.overhead_tokens

    @property
    def health(self) -> Health | None:
        """That of the model's service."""
        return health_of(self._model)

    def complete(self, request: Request) -> Completion:
        """See `LLM.complete`."""
        asked: dict[str, Any] = {
            "number": request.number,
            "model": self.name,
            "max_tokens": request.max_tokens,
            "messages": [asdict(m) for m in request.messages],
        }
        most = most_it_costs(self._model, request.messages, request.max_tokens)
        self._note("asking", {"number": request.number, "at_most": asdict(most)})
        try:
            completion = self._model.complete(request)
        except LLMError as error:
            self._note("request", {**asked, "error": f"{type(error).__name__}: {error}"})
            raise
        answer = {"reply": completion.text, "finish": completion.finish, "model": completion.model}
        self._note("request", {**asked, **answer, "usage": asdict(completion.usage), "seconds": completion.seconds})
        return completion

    def count_tokens(self, text: str) -> int:
        """See `LLM.count_tokens`."""
        return self._model.count_tokens(text)

    def close(self) -> None:
        """See `LLM.close`."""
        self._model.close()

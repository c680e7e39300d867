"""A model whose requests and replies are told to a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from llmhpo.errors import LLMError
from llmhpo.llm.base import LLM, Completion, Request, Sampler, Scorer, Scores, Several, most_it_costs
from llmhpo.llm.health import Health, health_of

Note = Callable[[str, dict[str, Any]], None]
_Answer = TypeVar("_Answer")


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
        asked = self._asking(request, request.max_tokens)
        completion = self._told(asked, lambda: self._model.complete(request))
        answer = {"reply": completion.text, "finish": completion.finish, "model": completion.model}
        self._note("request", {**asked, **answer, "usage": asdict(completion.usage), "seconds": completion.seconds})
        return completion

    def _asking(self, request: Request, max_tokens: int) -> dict[str, Any]:
        """Say what is about to be sent, and what it may cost; the request as it is told."""
        most = most_it_costs(self._model, request.messages, max_tokens)
        self._note("asking", {"number": request.number, "at_most": asdict(most)})
        return {
            "number": request.number,
            "model": self.name,
            "max_tokens": max_tokens,
            "messages": [asdict(m) for m in request.messages],
        }

    def _told(self, asked: dict[str, Any], send: Callable[[], _Answer]) -> _Answer:
        try:
            return send()
        except LLMError as error:
            self._note("request", {**asked, "error": f"{type(error).__name__}: {error}"})
            raise

    def count_tokens(self, text: str) -> int:
        """See `LLM.count_tokens`."""
        return self._model.count_tokens(text)

    def close(self) -> None:
        """See `LLM.close`."""
        self._model.close()


class _LoggedSampler(LoggedModel):
    """One that gives several replies at once, and says how likely given texts are."""

    def complete_many(self, request: Request, n: int) -> Several:
        """See `Sampler.complete_many`."""
        inner = self._model
        assert isinstance(inner, Sampler)
        asked = self._asking(request, n * request.max_tokens)
        several = self._told(asked, lambda: inner.complete_many(request, n))
        told = {"replies": list(several.texts), "usage": asdict(several.usage), "seconds": several.seconds}
        self._note("request", {**asked, **told})
        return several

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """See `Scorer.score`."""
        inner = self._model
        assert isinstance(inner, Scorer)
        asked = self._asking(request, sum(map(self._model.count_tokens, candidates)))
        scores = self._told(asked, lambda: inner.score(request, candidates))
        told = {"scored": dict(zip(candidates, scores.logprobs, strict=True)), "usage": asdict(scores.usage)}
        self._note("request", {**asked, **told, "seconds": scores.seconds})
        return scores


def logged(model: LLM, note: Note) -> LLM:
    """`model` with its requests told to `note`, able to do what it can."""
    both = isinstance(model, Sampler) and isinstance(model, Scorer)
    return (_LoggedSampler if both else LoggedModel)(model, note)

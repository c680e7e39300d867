"""Models whose every exchange is kept on a cassette."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError, LLMError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, Request, Sampler, Scorer, Scores, Several
from llmhpo.llm.cassette import VERSION, as_line, question, scored
from llmhpo.llm.health import health_of
from llmhpo.llm.redact import Redactor
from llmhpo.llm.scripted import ERRORS
from llmhpo.llm.streaming import OnText, Streaming

_Answer = TypeVar("_Answer")


class RecordingModel:
    """Passes requests on to another model and keeps every exchange, redacted, as a line of a cassette.

    A request that failed is kept as its error. `replay:FILE` plays the file back to the same questions, `scripted:FILE` to any.
    See `recording`, which makes one that can do what the other model can.

    Raises: ConfigError for a file that cannot be written.
    """

    def __init__(self, inner: LLM, path: str | Path) -> None:
        self._inner, self._path = inner, Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise ConfigError(f"record = {str(path)!r} cannot be written: {error}; name a file that can") from None
        self._redact = Redactor.from_environment()
        self._lock = threading.Lock()
        self.name, self.price, self.compact = inner.name, inner.price, inner.compact
        self.overhead_tokens = inner.overhead_tokens
        self.health = health_of(inner)
        self._is_begun = False

    def complete(self, request: Request) -> Completion:
        """As the other model answers.

        Raises: what the other model raises.
        """
        return self._kept(request, {}, lambda: self._inner.complete(request), _completion_line)

    def _kept(
        self,
        request: Request,
        more: dict[str, object],
        send: Callable[[], _Answer],
        line: Callable[[_Answer, Redactor], dict[str, object]],
    ) -> _Answer:
        """What `send` gives, once it is on the cassette; `more` belongs to the question."""
        asked = {**question(request, self._redact), **more}
        try:
            answer = send()
        except LLMError as error:
            self._write(request.number, {**asked, **_error_line(error, self._redact)})
            raise
        self._write(request.number, {**asked, **line(answer, self._redact)})
        return answer

    def count_tokens(self, text: str) -> int:
        """As the other model counts."""
        return self._inner.count_tokens(text)

    def close(self) -> None:
        """Close the other model."""
        self._inner.close()

    def _write(self, number: int, exchange: dict[str, object]) -> None:
        price = None if self.price is None else asdict(self.price)
        header: dict[str, object] = {"cassette": VERSION, "name": self.name, "price": price, "compact": self.compact}
        header |= {"overhead_tokens": self.overhead_tokens, "sampler": isinstance(self, _RecordingSampler)}
        entry = {"name": self.name, "number": number, **exchange}
        with self._lock:
            lines = (b"" if self._is_begun else as_line(header)) + as_line(entry)
            when_there_is_space(lambda: self._append(lines), f"record {str(self._path)!r}")
            self._is_begun = True

    def _append(self, lines: bytes) -> None:
        """As a whole or not at all. Raises: OSError."""
        with self._path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
            except OSError:
                file.truncate(size)
                raise


class _RecordingStreamer(RecordingModel):
    """One that shows its replies while it writes them."""

    def stream(self, request: Request, on_text: OnText) -> Completion:
        """See `Streaming.stream`."""
        inner = self._inner
        assert isinstance(inner, Streaming)
        return self._kept(request, {}, lambda: inner.stream(request, on_text), _completion_line)


class _RecordingSampler(RecordingModel):
    """One that gives several replies at once, and says how likely given texts are."""

    def complete_many(self, request: Request, n: int) -> Several:
        """See `Sampler.complete_many`."""
        inner = self._inner
        assert isinstance(inner, Sampler)
        return self._kept(request, {"n": n}, lambda: inner.complete_many(request, n), _several_line)

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """See `Scorer.score`."""
        inner = self._inner
        assert isinstance(inner, Scorer)
        asked = scored(candidates, self._redact)
        return self._kept(request, asked, lambda: inner.score(request, candidates), _scores_line)


def recording(model: LLM, path: str | Path) -> RecordingModel:
    """A `RecordingModel` that can do what `model` can. Raises: as `RecordingModel`."""
    if isinstance(model, Sampler) and isinstance(model, Scorer):
        return _RecordingSampler(model, path)
    return (_RecordingStreamer if isinstance(model, Streaming) else RecordingModel)(model, path)


def _completion_line(completion: Completion, redact: Redactor) -> dict[str, object]:
    kept: dict[str, object] = {
        "text": redact(completion.text),
        "finish": completion.finish,
        "model": redact(completion.model),
        "usage": asdict(completion.usage),
        "seconds": completion.seconds,
    }
    if completion.logprobs is not None:
        kept["logprobs"] = [[t.token, t.logprob, t.top] for t in completion.logprobs]
    return kept


def _several_line(several: Several, redact: Redactor) -> dict[str, object]:
    texts = [redact(text) for text in several.texts]
    return {"texts": texts, "usage": asdict(several.usage), "seconds": several.seconds}


def _scores_line(scores: Scores, _: Redactor) -> dict[str, object]:
    return {"scores": scores.tokens, "usage": asdict(scores.usage), "seconds": scores.seconds}


def _error_line(error: LLMError, redact: Redactor) -> dict[str, object]:
    kind = next((kind for kind, form in ERRORS.items() if isinstance(error, form)), "unavailable")
    line: dict[str, object] = {"error": redact(str(error)), "kind": kind}
    if isinstance(error, LLMUnavailableError):
        line |= {"was_cut_off": error.was_cut_off, "retry_after_s": error.retry_after_s}
    return line

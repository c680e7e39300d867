"""Models that answer from a record: for tests, for replays, for runs that must cost nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from llmhpo.errors import ConfigError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, Finish, Request
from llmhpo.llm.transport import redact
from llmhpo.usage import Price, Usage

_FREE = Price(0.0, 0.0)
Reply = str | Exception | Completion


class ScriptedModel:
    """Answers request number k with reply number k; an exception in the list is raised.

    The reply depends on the request's number alone, so a resumed study gets the replies that were not given yet.
    """

    compact = False
    overhead_tokens = 0

    def __init__(self, replies: Sequence[Reply], *, name: str = "scripted", price: Price | None = _FREE) -> None:
        self.replies = tuple(replies)
        self.name, self.price = name, price

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedModel:
        """Read JSON lines, one reply a line, as `RecordingModel` writes them.

        A string is the text of a reply; an object with `text` (and `finish`, `usage`, `model`) is a whole reply; an
        object with `error` stands for an unreachable service; any other object is the reply's text itself.

        Raises: ConfigError.
        """
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"scripted:{path}: cannot be read ({error}); give a file of JSON lines") from None
        replies = [_read_line(f"{path}:{i}", line) for i, line in enumerate(lines, 1) if line.strip()]
        return cls(replies, name=f"scripted:{path}")

    def complete(self, request: Request) -> Completion:
        """The reply of this number.

        Raises: LLMUnavailableError past the end of the script, and whatever exception the script holds.
        """
        if request.number >= len(self.replies):
            raise LLMUnavailableError(
                f"{self.name} holds {len(self.replies)} replies and was asked for number {request.number}; add replies"
            )
        reply = self.replies[request.number]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        asked = sum(self.count_tokens(m.content) for m in request.messages)
        answered = self.count_tokens(reply)
        usd = None if self.price is None else self.price.usd(asked, answered)
        return Completion(reply, Usage(1, asked, 0, answered, usd), self.name)

    def count_tokens(self, text: str) -> int:
        """Four characters a token."""
        return -(-len(text) // 4)

    def close(self) -> None:
        """Nothing to release."""


def _read_line(place: str, line: str) -> Reply:
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place}: is not JSON ({error}); write one JSON string or object a line") from None
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: expected a string or an object, found {type(raw).__name__}")
    if "error" in raw:
        return LLMUnavailableError(str(raw["error"]))
    if "text" not in raw:
        return json.dumps(raw)
    finish = raw.get("finish", "stop")
    if finish not in ("stop", "length", "refusal"):
        raise ConfigError(f"{place}: finish = {finish!r}; use stop, length or refusal")
    try:
        usage = Usage(**raw.get("usage", {"calls": 1}))
    except TypeError as error:
        raise ConfigError(f"{place}: usage = {raw['usage']!r}: {error}") from None
    return Completion(str(raw["text"]), usage, str(raw.get("model", "scripted")), cast("Finish", finish))


class RecordingModel:
    """Passes requests on to another model and keeps every exchange, redacted, as a line of a file.

    A request that failed is kept as its error. `ScriptedModel.from_file` plays the file back.
    """

    def __init__(self, inner: LLM, path: str | Path) -> None:
        self._inner, self._path = inner, Path(path)
        self.name, self.price, self.compact = inner.name, inner.price, inner.compact
        self.overhead_tokens = inner.overhead_tokens

    def complete(self, request: Request) -> Completion:
        """As the other model answers."""
        try:
            completion = self._inner.complete(request)
        except Exception as error:
            self._write(request, {"error": redact(str(error))})
            raise
        kept = {"text": redact(completion.text), "finish": completion.finish, "model": completion.model}
        self._write(request, {**kept, "usage": asdict(completion.usage)})
        return completion

    def _write(self, request: Request, entry: dict[str, object]) -> None:
        prompt = json.dumps([asdict(m) for m in request.messages])
        entry = {"number": request.number, "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(), **entry}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def count_tokens(self, text: str) -> int:
        """As the other model counts."""
        return self._inner.count_tokens(text)

    def close(self) -> None:
        """Close the other model."""
        self._inner.close()

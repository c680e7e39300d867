"""Cassettes: files of every exchange with a model, which `recording` writes and `replay` plays back to the same questions.

A file of JSON lines. A header says which model follows; more headers follow where several models, or several sessions, share the
file. Every other line is an exchange: the question, redacted, and the reply or error. `sum` is a hash of the rest of its line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt, ValidationError

from llmhpo.errors import ConfigError, LLMUnavailableError
from llmhpo.llm.base import Completion, Finish, Request, Scores, Several, TokenLogprob
from llmhpo.llm.redact import Redactor
from llmhpo.llm.scripted import ERRORS, Spent
from llmhpo.usage import Usage

VERSION = 1
_REMEDY = "take the line out, or record it anew; a file of replies alone is played as scripted:FILE"


class Header(BaseModel, extra="forbid", strict=True):
    """Which model the exchanges of its name are of."""

    cassette: int
    name: str
    price: dict[str, float | None] | None
    compact: bool
    overhead_tokens: NonNegativeInt = 0
    sampler: bool = False  # whether it is a `Sampler` and a `Scorer`, too


class Exchange(BaseModel, extra="forbid", strict=True):
    """A question and what came of it: one of `text`, `texts`, `scores` and `error`."""

    name: str
    number: NonNegativeInt
    messages: list[tuple[str, str]]
    schema_: dict[str, Any] | None = None
    temperature: float | None = None
    top_logprobs: int | None = None
    n: int | None = None
    candidates: list[str] | None = None
    text: str | None = None
    texts: list[str] | None = None
    scores: list[list[float]] | None = None
    finish: Finish = "stop"
    model: str = ""
    usage: Spent = Spent()
    seconds: float = 0.0
    logprobs: list[tuple[str, float, list[tuple[str, float]]]] | None = None
    error: str | None = None
    kind: str = "unavailable"
    was_cut_off: bool = False
    retry_after_s: float | None = None

    @property
    def question(self) -> dict[str, object]:
        """As `question` puts it."""
        said = [list(message) for message in self.messages]
        more = {name: getattr(self, name) for name in ("temperature", "top_logprobs", "n", "candidates")}
        return {"messages": said, "schema": self.schema_, **_given(more)}

    @property
    def reply(self) -> Completion | Several | Scores:
        """What came of it. Raises: the error, where that came."""
        usage = Usage(**self.usage.model_dump())
        if self.text is not None:
            logprobs = self.logprobs
            tokens = None if logprobs is None else tuple(TokenLogprob(t, p, tuple(top)) for t, p, top in logprobs)
            return Completion(self.text, usage, self.model, self.finish, self.seconds, tokens)
        if self.texts is not None:
            return Several(tuple(self.texts), usage, self.seconds)
        if self.scores is not None:
            return Scores(tuple(map(tuple, self.scores)), usage, self.seconds)
        form = ERRORS[self.kind]
        if form is LLMUnavailableError:
            raise LLMUnavailableError(str(self.error), retry_after_s=self.retry_after_s, was_cut_off=self.was_cut_off)
        raise form(str(self.error))


@dataclass(slots=True)
class Track:
    """The exchanges of one model."""

    header: Header
    exchanges: list[Exchange]


def question(request: Request, redact: Redactor) -> dict[str, object]:
    """What a reply depends on; not its limits on tokens and time, which hang on what was spent before."""
    said = [[message.role, redact(message.content)] for message in request.messages]
    more = {"temperature": request.temperature, "top_logprobs": request.top_logprobs or None}
    return {"messages": said, "schema": request.schema, **_given(more)}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def scored(candidates: Sequence[str], redact: Redactor) -> dict[str, object]:
    """What a request for scores asks besides."""
    return {"candidates": [redact(text) for text in candidates]}


def as_line(entry: dict[str, object]) -> bytes:
    """A header or an exchange as it stands in the file."""
    return (json.dumps({**entry, "sum": _sum(entry)}) + "\n").encode()


def _sum(entry: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def read_tracks(path: Path) -> list[Track]:
    """What a cassette holds, a track for each model.

    Raises: ConfigError for a file that is no cassette, is of a later version, or is damaged, naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): JSON may hold U+2028 as it is
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"replay:{path}: cannot be read ({error}); give a file that `record` wrote") from None
    tracks: dict[str, Track] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _entry(f"replay:{path}:{number}", line)
        if isinstance(entry, Header):
            tracks.setdefault(entry.name, Track(entry, []))
        elif entry.name in tracks:
            tracks[entry.name].exchanges.append(entry)
        else:
            raise ConfigError(f"replay:{path}:{number}: no header of {entry.name!r} comes before it; {_REMEDY}")
    if not tracks:
        raise ConfigError(f"replay:{path}: holds no exchange; record one with record={str(path)!r}")
    return list(tracks.values())


def _entry(place: str, line: str) -> Header | Exchange:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: is damaged or cut ({error}); {_REMEDY}") from None
    if not isinstance(raw, dict) or "sum" not in raw:
        raise ConfigError(f"{place}: is no line of a cassette; {_REMEDY}")
    kept = raw.pop("sum")
    version = raw.get("cassette", VERSION)
    if version != VERSION:
        raise ConfigError(f"{place}: is of format {version!r}, and this version of llmhpo reads {VERSION}; upgrade it")
    if kept != _sum(raw):
        raise ConfigError(f"{place}: was changed since it was written; {_REMEDY}")
    try:
        if "cassette" in raw:
            return Header.model_validate(raw)
        return Exchange.model_validate_json(json.dumps({"schema_": raw.pop("schema", None), **raw}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {_REMEDY}") from None

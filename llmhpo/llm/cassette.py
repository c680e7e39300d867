"""Cassettes: every exchange with a model kept in a file, and played back to the same questions.

A file of JSON lines. A header says which model follows; more headers follow where several models, or several sessions, share the
file. Every other line is an exchange: the question, redacted, and the reply or error. `sum` is a hash of the rest of its line.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, NonNegativeInt, ValidationError

from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError, LLMError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, Finish, Request, Sampler, Scorer, Scores, Several, TokenLogprob
from llmhpo.llm.health import health_of
from llmhpo.llm.redact import Redactor
from llmhpo.llm.scripted import ERRORS, Spent
from llmhpo.llm.streaming import OnText, Streaming
from llmhpo.usage import Price, Usage

VERSION = 1
_SHOWN = 60  # characters of a prompt around its first difference
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
        asked = {**_question(request, self._redact), **more}
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
            lines = (b"" if self._is_begun else _line(header)) + _line(entry)
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
        asked = _scored(candidates, self._redact)
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


def _line(entry: dict[str, object]) -> bytes:
    return (json.dumps({**entry, "sum": _sum(entry)}) + "\n").encode()


def _sum(entry: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def _question(request: Request, redact: Redactor) -> dict[str, object]:
    """What a reply depends on; not its limits on tokens and time, which hang on what was spent before."""
    said = [[message.role, redact(message.content)] for message in request.messages]
    more = {"temperature": request.temperature, "top_logprobs": request.top_logprobs or None}
    return {"messages": said, "schema": request.schema, **_given(more)}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _scored(candidates: Sequence[str], redact: Redactor) -> dict[str, object]:
    """What a request for scores asks besides."""
    return {"candidates": [redact(text) for text in candidates]}


def _error_line(error: LLMError, redact: Redactor) -> dict[str, object]:
    kind = next((kind for kind, form in ERRORS.items() if isinstance(error, form)), "unavailable")
    line: dict[str, object] = {"error": redact(str(error)), "kind": kind}
    if isinstance(error, LLMUnavailableError):
        line |= {"was_cut_off": error.was_cut_off, "retry_after_s": error.retry_after_s}
    return line


# --- playing back -----------------------------------------------------------------------------------------------------


class _Header(BaseModel, extra="forbid", strict=True):
    cassette: int
    name: str
    price: dict[str, float | None] | None
    compact: bool
    overhead_tokens: NonNegativeInt = 0
    sampler: bool = False  # whether it is a `Sampler` and a `Scorer`, too


class _Exchange(BaseModel, extra="forbid", strict=True):
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
        """As `_question` puts it."""
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
class _Track:
    """The exchanges of one model."""

    header: _Header
    exchanges: list[_Exchange]


class ReplayModel:
    """Answers each question as the model of a cassette did: the same words under the same number, or an error.

    A question that was put more than once is answered in the order of the record, and then as it was last. Tokens are counted
    roughly: under a cap the last request may be refused where the model was asked, or the other way round.
    """

    def __init__(self, path: Path, track: _Track) -> None:
        header = track.header
        self.name, self.compact, self.overhead_tokens = header.name, header.compact, header.overhead_tokens
        self.price = None if header.price is None else Price(**header.price)  # type: ignore[arg-type]
        self._path, self._redact = path, Redactor.from_environment()
        self._by_number: dict[int, list[_Exchange]] = defaultdict(list)
        for exchange in track.exchanges:
            self._by_number[exchange.number].append(exchange)
        self._times: Counter[int] = Counter()  # that a question was put, by the first exchange that has it
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Completion:
        """The reply on record.

        Raises: LLMRequestError for a question that is not on it, naming the first difference; the error that is on record.
        """
        reply = self._played(request, {})
        assert isinstance(reply, Completion)
        return reply

    def _played(self, request: Request, more: dict[str, object]) -> Completion | Several | Scores:
        asked = json.loads(json.dumps({**_question(request, self._redact), **more}))
        with self._lock:
            near = self._by_number.get(request.number, [])
            found = [exchange for exchange in near if exchange.question == asked]
            if not found:
                raise LLMRequestError(self._complaint(asked, request.number, near))
            times = self._times[id(found[0])]
            self._times[id(found[0])] += 1
        return found[min(times, len(found) - 1)].reply

    def count_tokens(self, text: str) -> int:
        """Four characters a token."""
        return -(-len(text) // 4)

    def close(self) -> None:
        """Nothing to release."""

    def _complaint(self, asked: dict[str, Any], number: int, near: list[_Exchange]) -> str:
        place, remedy = f"cassette {str(self._path)!r}", f"record it anew, or play it loosely as scripted:{self._path}"
        if not near:
            last = max(self._by_number, default=-1)
            return f"{place} has no answer of {self.name!r} to request {number}: it ends with request {last}; {remedy}"
        differences = [_difference(exchange.question, asked) for exchange in near]
        return f"{place}: request {number} to {self.name!r} is another one than was recorded: {max(differences)[1]}; {remedy}"


class _ReplaySampler(ReplayModel):
    """One that stands for a `Sampler` and a `Scorer`."""

    def complete_many(self, request: Request, n: int) -> Several:
        """See `Sampler.complete_many`. Raises: as `complete`."""
        reply = self._played(request, {"n": n})
        assert isinstance(reply, Several)
        return reply

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """See `Scorer.score`. Raises: as `complete`."""
        reply = self._played(request, _scored(candidates, self._redact))
        assert isinstance(reply, Scores)
        return reply


def _difference(was: dict[str, Any], now: dict[str, Any]) -> tuple[int, str]:
    """How far two questions are alike, in characters, and where they first differ."""
    alike = 0
    for k, ((_, old), (role, new)) in enumerate(zip(was["messages"], now["messages"], strict=False)):
        if old != new:
            at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
            line, start = old.count("\n", 0, at) + 1, max(0, at - _SHOWN // 3)
            return alike + at, (
                f"message {k + 1} ({role}), line {line}: {old[start : at + _SHOWN]!r} was recorded, "
                f"{new[start : at + _SHOWN]!r} is asked"
            )
        alike += len(old)
    if len(was["messages"]) != len(now["messages"]):
        return alike, f"{len(was['messages'])} messages were recorded, {len(now['messages'])} are asked"
    name = next((n for n in sorted(was.keys() | now.keys()) if was.get(n) != now.get(n)), "role of a message")
    return alike, f"{name} was {_short(was.get(name))}, and is {_short(now.get(name))}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def replay_models(path: str | Path) -> list[ReplayModel]:
    """The models whose exchanges a cassette holds.

    Raises: ConfigError for a file that is no cassette, is of a later version, or is damaged, naming the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): JSON may hold U+2028 as it is
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"replay:{path}: cannot be read ({error}); give a file that `record` wrote") from None
    tracks: dict[str, _Track] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _entry(f"replay:{path}:{number}", line)
        if isinstance(entry, _Header):
            tracks.setdefault(entry.name, _Track(entry, []))
        elif entry.name in tracks:
            tracks[entry.name].exchanges.append(entry)
        else:
            raise ConfigError(f"replay:{path}:{number}: no header of {entry.name!r} comes before it; {_REMEDY}")
    if not tracks:
        raise ConfigError(f"replay:{path}: holds no exchange; record one with record={str(path)!r}")
    return [(_ReplaySampler if t.header.sampler else ReplayModel)(path, t) for t in tracks.values()]


_REMEDY = "take the line out, or record it anew; a file of replies alone is played as scripted:FILE"


def _entry(place: str, line: str) -> _Header | _Exchange:
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
            return _Header.model_validate(raw)
        return _Exchange.model_validate_json(json.dumps({"schema_": raw.pop("schema", None), **raw}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {_REMEDY}") from None

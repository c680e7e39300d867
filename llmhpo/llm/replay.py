"""Models that answer from a cassette: the same words to the same questions."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmhpo.errors import LLMRequestError
from llmhpo.llm.base import Completion, Request, Scores, Several
from llmhpo.llm.cassette import Exchange, Track, question, read_tracks, scored
from llmhpo.llm.redact import Redactor
from llmhpo.usage import Price

_SHOWN = 60  # characters of a prompt around its first difference


class ReplayModel:
    """Answers each question as the model of a cassette did: the same words under the same number, or an error.

    A question that was put more than once is answered in the order of the record, and then as it was last. Tokens are counted
    roughly: under a cap the last request may be refused where the model was asked, or the other way round.
    """

    def __init__(self, path: Path, track: Track) -> None:
        header = track.header
        self.name, self.compact, self.overhead_tokens = header.name, header.compact, header.overhead_tokens
        self.price = None if header.price is None else Price(**header.price)  # type: ignore[arg-type]
        self._path, self._redact = path, Redactor.from_environment()
        self._by_number: dict[int, list[Exchange]] = defaultdict(list)
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
        asked = json.loads(json.dumps({**question(request, self._redact), **more}))
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

    def _complaint(self, asked: dict[str, Any], number: int, near: list[Exchange]) -> str:
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
        reply = self._played(request, scored(candidates, self._redact))
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
    """The models whose exchanges a cassette holds. Raises: ConfigError, as `read_tracks`."""
    path = Path(path)
    return [(_ReplaySampler if t.header.sampler else ReplayModel)(path, t) for t in read_tracks(path)]

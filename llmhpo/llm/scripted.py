"""Models that answer from a record: for tests, for replays, for runs that must cost nothing twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt, ValidationError

from llmhpo.errors import ConfigError, LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion, Finish, Request
from llmhpo.usage import Price, Usage

_FREE = Price(0.0, 0.0)
ERRORS: dict[str, type[LLMError]] = {
    "unavailable": LLMUnavailableError,
    "prompt": LLMPromptError,  # before the error that it is one of
    "request": LLMRequestError,
    "reply": LLMReplyError,
}

Reply = str | Exception | Completion


class Spent(BaseModel, extra="forbid"):
    """`Usage`, as a line holds it."""

    calls: NonNegativeInt = 1
    input_tokens: NonNegativeInt = 0
    cached_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0
    usd: NonNegativeFloat | None = 0.0
    reasoning_tokens: NonNegativeInt = 0


class _About(BaseModel):
    """What a line may say about a reply, besides its text."""

    finish: Finish = "stop"
    model: str = "scripted"
    usage: Spent = Spent()


class ScriptedModel:
    """Answers request number k with reply number k; an exception among the replies is raised.

    The reply depends on the request's number alone, so a resumed study gets the replies that were not given yet. A
    mapping of numbers may have gaps.
    """

    compact = False
    overhead_tokens = 0

    def __init__(
        self, replies: Sequence[Reply] | Mapping[int, Reply], *, name: str = "scripted", price: Price | None = _FREE
    ) -> None:
        self._replies = dict(replies) if isinstance(replies, Mapping) else dict(enumerate(replies))
        self.name, self.price = name, price

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedModel:
        """Read JSON lines, one reply a line, as those of a cassette (see `cassette`), whose questions are not looked at.

        A string is the text of a reply; an object with `text` (and `finish`, `usage`, `model`) is a whole reply; one with
        `error` (and `kind`: unavailable, request or reply) is an error; any other object is the reply's text itself.
        `number` says which request a line answers: by default, the one after that of the line before.

        Raises: ConfigError.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"scripted:{path}: cannot be read ({error}); give a file of JSON lines") from None
        replies: dict[int, Reply] = {}
        number = -1
        for place, line in enumerate(text.split("\n"), 1):  # not splitlines(): JSON may hold U+2028 as it is
            if line.strip() and not line.startswith('{"cassette":'):
                number, reply = _read_line(f"{path}:{place}", line, number + 1)
                replies[number] = reply
        return cls(replies, name=f"scripted:{path}")

    def complete(self, request: Request) -> Completion:
        """The reply of this number.

        Raises: LLMUnavailableError where the script has no such reply, and whatever exception it holds.
        """
        if request.number not in self._replies:
            raise LLMUnavailableError(
                f"{self.name} has only {len(self._replies)} replies and none for request number {request.number}; "
                "add replies, or record more"
            )
        reply = self._replies[request.number]
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


def _read_line(place: str, line: str, following: int) -> tuple[int, Reply]:
    """A line's number (`following` where it gives none) and reply."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: is not JSON ({error}); write one JSON string or object a line") from None
    if isinstance(raw, str):
        return following, raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: expected a string or an object, found {type(raw).__name__}")
    if "sum" in raw and ("texts" in raw or "scores" in raw):
        raise ConfigError(
            f"{place}: several replies to one request, or scores: only replay:FILE plays those back; record it anew"
        )
    if "text" not in raw and "error" not in raw:
        return following, json.dumps(raw, separators=(",", ":"))
    number = raw.get("number", following)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigError(f"{place}: number={number!r} is no request's number; give 0, 1, 2, ... or leave it out")
    if "error" in raw:
        kind = raw.get("kind", "unavailable")
        if kind not in ERRORS:
            raise ConfigError(f"{place}: kind={kind!r} is no kind of error; use one of {', '.join(ERRORS)}")
        return number, ERRORS[kind](str(raw["error"]))
    text = raw.pop("text")
    if not isinstance(text, str):
        raise ConfigError(
            f"{place}: text = {text!r} is no string; put JSON replies into a string, or on a line as they are"
        )
    try:
        about = _About.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{place}: {key} = {first['input']!r}: {first['msg']}") from None
    return number, Completion(text, Usage(**about.usage.model_dump()), about.model, about.finish)

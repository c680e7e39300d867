"""What the clients of hosted services share besides the wire: the endpoint and its key, reading answers, counting."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from llmhpo.errors import ConfigError, LLMReplyError
from llmhpo.llm.base import Request
from llmhpo.llm.redact import Redactor
from llmhpo.usage import Price, Usage

OVERHEAD_TOKENS = 4000  # room for the thoughts of the hosted models, which count as output
_NO_KEY = "not-needed"  # sent to servers that ask for no key, because the SDKs insist on one
_MOST_BYTES = 4_000_000  # of an answer; the longest reply that is asked for has a hundredth of it
_MOST_TOKENS = 10**9  # a count above this in one reply is nonsense
_PROSE = re.compile(rb"[A-Za-z ]")
_UNWANTED = (
    r"unsupported|(?:not|n't) support|unrecogni|unknown|unexpected|extra (?:input|field)|not (?:permitted|allowed)|"
    r"forbidden|deprecated|additional propert"
)

_ReplyT = TypeVar("_ReplyT", bound=BaseModel)
Suspects = Sequence[tuple[str, re.Pattern[str]]]


class Answer(NamedTuple):
    """The body of a 2xx answer, as it came."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go, and what messages say about it. The key shows in no repr."""

    service: str
    model: str
    base_url: str = field(repr=False)  # may hold a password: `place` is for showing
    hosted: bool  # the service's own address, where a key is needed
    key_name: str
    key: str = field(repr=False)
    redact: Redactor = field(repr=False)

    @property
    def place(self) -> str:
        """Service and address for messages: no user, password or query."""
        parts = urlsplit(self.base_url)
        host = parts.netloc.rpartition("@")[2]
        return self.redact(f"{self.service} at {parts.scheme}://{host}{parts.path}")


def find_endpoint(
    service: str,
    model: str,
    *,
    default_url: str,
    base_url: str | None,
    api_key: str | None,
    secrets: Collection[str] = (),
) -> Endpoint:
    """Put together address and key from arguments, else from `SERVICE_BASE_URL` and `SERVICE_API_KEY`.

    A key that is set is sent to any address, not only to the service's own: that is how OpenRouter and vLLM take it.

    Raises: ConfigError.
    """
    url_name, key_name = f"{service.upper()}_BASE_URL", f"{service.upper()}_API_KEY"
    spec = f"llm = '{service}:{model}'"
    url = base_url or os.environ.get(url_name) or default_url
    key = api_key or os.environ.get(key_name, "")
    try:
        parts = urlsplit(url)
        host, password = parts.hostname, parts.password or ""
        valid = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        valid, host, password = False, None, ""
    redact = Redactor.from_environment(key, password, *secrets)
    if not valid:
        raise ConfigError(
            f"{spec}: base_url={redact(url)!r} is no address of a server; "
            f"give one like 'http://127.0.0.1:8000/v1' (argument base_url, or the variable {url_name})"
        )
    hosted = host == urlsplit(default_url).hostname
    if hosted and not key:
        raise ConfigError(
            f"{spec} needs a key: set the environment variable {key_name}, "
            f"or give base_url (or {url_name}) of a server of your own"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{spec}: {key_name} holds characters that no key has; set it to the key alone")
    return Endpoint(service, model, url, hosted, key_name, key or _NO_KEY, redact)


def about(option: str) -> re.Pattern[str]:
    """Matches a complaint that an option, named by a regular expression, is not wanted at all."""
    return re.compile(f"(?is)^(?=.*(?:{option}))(?=.*(?:{_UNWANTED}))")


def blamed(complaint: str, sent: Collection[str], suspects: Suspects) -> str | None:
    """The first of `suspects` that was sent and that the service complains of."""
    return next((option for option, words in suspects if option in sent and words.search(complaint)), None)


def read_body(pieces: Iterable[bytes], endpoint: Endpoint) -> bytes:
    """The whole body, as long as a reply may be.

    Raises: LLMReplyError for a longer one, of which the rest is not read.
    """
    return b"".join(bounded(pieces, endpoint))


def bounded(pieces: Iterable[bytes], endpoint: Endpoint) -> Iterator[bytes]:
    """The pieces of an answer, as they come. Raises: as `read_body`."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _MOST_BYTES:
            raise LLMReplyError(
                f"{endpoint.place} answered with more than {_MOST_BYTES:,} bytes, which is no reply of a model; "
                "check that base_url names the API"
            )
        yield piece


def read_reply(form: type[_ReplyT], answer: Answer, endpoint: Endpoint) -> _ReplyT:
    """The body as `form`.

    Raises: LLMReplyError for HTML, cut or invalid JSON, and JSON of another form.
    """
    try:
        return form.model_validate_json(answer.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
    start = answer.body[:4096].decode("utf-8", "replace")
    raise LLMReplyError(
        f"{endpoint.place} answered with {answer.content_type or 'no content type'!r} that is no reply of a model "
        f"({clean(what, endpoint.redact, 200)}): {clean(start, endpoint.redact, 160)!r}; "
        "check that base_url names the API, not a web page or a proxy"
    )


def clean(text: str, redact: Redactor, longest: int = 400) -> str:
    """A foreign text for a message: redacted first, then made one printable line, then cut."""
    line = " ".join(redact(text).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= longest else line[:longest] + "..."


def estimate_tokens(text: str) -> int:
    """Tokens of `text` without a tokenizer, on the high side: 3 letters or blanks each, 1.5 bytes of all else.

    Tables of numbers cost far more tokens a character than prose does.
    """
    data = text.encode("utf-8", "replace")
    prose = len(_PROSE.findall(data))
    return math.ceil(prose / 3 + (len(data) - prose) / 1.5)


class Counts(NamedTuple):
    """Tokens as a service sent them, not checked yet. `cached` and `written` (to its cache) are parts of `taken`, `thought` of `given`."""

    taken: object = None
    given: object = None
    cached: object = None
    written: object = None
    thought: object = None


def bill(price: Price | None, request: Request, text: str, counts: Counts) -> Usage:
    """One request's usage; a count that is missing or nonsense is estimated."""
    taken = _count(counts.taken) or sum(estimate_tokens(message.content) for message in request.messages)
    given = _count(counts.given) or estimate_tokens(text)
    cached = min(_count(counts.cached) or 0, taken)
    written = min(_count(counts.written) or 0, taken - cached)
    usd = None
    if price is not None:
        # Both services take 1.25 times the input price for tokens they write to their cache.
        usd = price.usd(taken, given, cached) + price.usd(math.ceil(written / 4), 0)
    return Usage(1, taken, cached, given, usd, min(_count(counts.thought) or 0, given))


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def part(value: object, *names: str) -> dict[str, object]:
    """The object at the end of a path of names within a service's answer; empty where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}

"""What every language model looks like to the rest of llmhpo."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from llmhpo.errors import ConfigError
from llmhpo.usage import Price, Usage

JSONSchema = dict[str, object]
_TOKENS_PER_MESSAGE = 8  # its role and what marks its ends
Finish = Literal["stop", "length", "refusal"]


def closed_object(properties: Mapping[str, object]) -> JSONSchema:
    """The schema of an object with just these properties, all of them required: services take no other where they hold to a form."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model, complete: the same request may be answered from a record.

    `number` counts the requests of a study from 0: it seeds local sampling and picks the scripted reply, so that a
    resumed study asks on where it stopped. `max_tokens` bounds the reply; `deadline_s` the whole of it, retries included.

    Raises: ConfigError for a deadline that never comes.
    """

    messages: tuple[Message, ...]
    schema: JSONSchema | None = None  # JSON schema of the reply: root is an object, all properties required
    number: int = 0
    max_tokens: int = 2000
    temperature: float | None = None  # None: the backend's own choice
    deadline_s: float = 120.0
    top_logprobs: int = 0  # alternatives a token whose log-probabilities are asked for, at most 20; 0: none are

    def __post_init__(self) -> None:
        if not self.deadline_s < math.inf:
            raise ConfigError(f"deadline_s={self.deadline_s!r} never comes; give a number of seconds")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a reply, its natural log-probability, and those of the likeliest tokens in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer, as text, which may be empty and is paid for all the same.

    `finish` is never guessed: a reply cut at `max_tokens` says "length". `logprobs` is None where none were asked for, and
    where the backend has none.
    """

    text: str
    usage: Usage
    model: str
    finish: Finish = "stop"
    seconds: float = 0.0
    logprobs: tuple[TokenLogprob, ...] | None = None


class LLM(Protocol):
    """A language model.

    `name` is the spec it was made from ("openai:gpt-5"); `price` is None where it is not known (a local model costs 0);
    `compact` asks for short replies without reasons, for models that write a few words a second; `overhead_tokens` is
    what a reply may cost beyond `max_tokens`, for models that think unseen.
    """

    name: str
    price: Price | None
    compact: bool
    overhead_tokens: int

    def complete(self, request: Request) -> Completion:
        """Answer, within the deadline.

        Raises: LLMUnavailableError, LLMRequestError, LLMReplyError.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`; an upper estimate where the model's tokenizer is not at hand."""
        ...

    def close(self) -> None:
        """Release connections and memory. The model may be used again."""
        ...


@dataclass(frozen=True, slots=True)
class Several:
    """Replies to one request, and what they cost together."""

    texts: tuple[str, ...]
    usage: Usage
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely a model holds given texts: one row a candidate, one natural log-probability a token of it.

    They are those of the model alone: at temperature 1, no schema held. What ends a reply is not in them, so a candidate
    counts as the reply's beginning. `usage` counts the candidates' tokens as input.
    """

    tokens: tuple[tuple[float, ...], ...]
    usage: Usage
    seconds: float = 0.0

    @property
    def logprobs(self) -> tuple[float, ...]:
        """That of each candidate as a whole; 0 for an empty one."""
        return tuple(map(math.fsum, self.tokens))


@runtime_checkable
class Sampler(Protocol):
    """A model that gives several replies to one request for less than so many requests cost."""

    def complete_many(self, request: Request, n: int) -> Several:
        """`n` independent replies; the prompt is read once.

        Raises: as `LLM.complete`.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """A model that says how likely given texts are as its reply."""

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """Log-probabilities of `candidates` as the beginning of the reply to `request`, in their order.

        Where the last message is the assistant's, they go on from its text. The prompt is read once; its schema,
        temperature and `max_tokens` have no part in it.

        Raises: as `LLM.complete`.
        """
        ...


def most_it_costs(model: LLM, messages: Iterable[Message], max_tokens: int) -> Usage:
    """The most that one request may cost: its prompt, and the longest reply that is allowed."""
    prompt = sum(model.count_tokens(m.content) + _TOKENS_PER_MESSAGE for m in messages)
    reply = max_tokens + model.overhead_tokens
    usd = None if model.price is None else model.price.usd(prompt, reply)
    return Usage(calls=1, input_tokens=prompt, output_tokens=reply, usd=usd)

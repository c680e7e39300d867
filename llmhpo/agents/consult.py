"""One consultation of the model: one request for a whole batch, at most one repair turn, everything accounted for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from llmhpo.agents.reply import read_reply, reply_keys, reply_schema
from llmhpo.errors import BudgetError, LLMError, LLMRequestError
from llmhpo.llm.base import LLM, Completion, Message, Request
from llmhpo.prior import Prior
from llmhpo.prompts import Prompt, load
from llmhpo.trial import Batch, Context, Proposal, Provenance
from llmhpo.usage import Caps, Usage

_TOKENS_PER_VALUE = 14  # key, value and punctuation of one parameter in a reply, with room to spare
_TOKENS_PER_REASON = 48
_TOKENS_PER_BELIEF = 40  # its name aside
_BELIEFS_PER_PARAMETER = 2  # a range or choices, and a trend
_TOKENS_SPARE = 64
_QUOTED_CHARS = 8000  # of a first reply, in the repair turn


@dataclass(frozen=True, slots=True)
class Question:
    """A rendered prompt and what it asks for."""

    kind: str  # "warmstart" or "propose"; the source of the proposals that come of it is "llm"
    prompt: Prompt
    system: str
    user: str
    n: int
    reasons: bool
    beliefs: bool = False


class Consultant:
    """Puts questions to a model, within the caps and the deadline. It keeps no state of a study."""

    def __init__(self, llm: LLM, *, caps: Caps, deadline_s: float = 120.0) -> None:
        self.llm, self.caps, self.deadline_s = llm, caps, deadline_s

    def consult(self, context: Context, question: Question) -> Batch:
        """Ask for a batch. Whatever happens comes back as a `Batch`, never as an exception."""
        start = time.monotonic()
        talk = _Talk(self.llm, self.caps, context, question, start + self.deadline_s)
        error, fatal = "", False
        try:
            talk.ask(question.n, beliefs=question.beliefs)
            if talk.problems and not talk.refused and 2 * len(talk.found) <= question.n:
                talk.repair()
        except LLMError as e:
            error, fatal = str(e), isinstance(e, LLMRequestError | BudgetError)
        return Batch(
            kind=question.kind,
            at=len(context.trials),
            asked=question.n,
            proposals=talk.charged(),
            usage=talk.usage,
            problems=(*talk.problems, *talk.doubts),
            prior=talk.prior,
            error=error,
            fatal=fatal,
            seconds=time.monotonic() - start,
        )


@dataclass(slots=True)
class _Talk:
    """The turns of one consultation, and what they have given so far."""

    llm: LLM
    caps: Caps
    context: Context
    question: Question
    deadline: float
    usage: Usage = field(default_factory=Usage)
    problems: list[str] = field(default_factory=list)
    found: dict[str, Proposal] = field(default_factory=dict)  # by the key of the configuration
    prior: Prior | None = None
    doubts: tuple[str, ...] = ()  # problems of beliefs, which are no reason to ask again
    refused: bool = False
    messages: list[Message] = field(init=False)
    known: Mapping[str, str] = field(init=False)  # configurations that need not be proposed again, and what they are

    def __post_init__(self) -> None:
        self.messages = [Message("system", self.question.system), Message("user", self.question.user)]
        key = self.context.space.key
        ideas = {key(p.params): "an earlier proposal" for p in self.context.ideas}
        self.known = ideas | {key(t.params): f"trial {t.number}" for t in self.context.trials}

    def ask(self, n: int, *, beliefs: bool = False) -> None:
        """One turn: a request for `n` configurations, perhaps with `beliefs`, and what its reply is good for."""
        number = self.context.usage.calls + self.usage.calls
        completion = self._request(n, number, beliefs)
        self.messages.append(Message("assistant", completion.text[:_QUOTED_CHARS]))
        if completion.finish == "refusal":
            self.refused = True
            self.problems.append("the model refused to answer")
            return
        reading = read_reply(completion.text, self.context.space)
        self.problems.extend(reading.problems)
        if self.question.beliefs and self.prior is None:
            self.prior, self.doubts = reading.prior, self.doubts or reading.doubts
        if completion.finish == "length":
            self.problems.append(f"the reply was cut at {completion.usage.output_tokens} tokens")
        provenance = Provenance(completion.model, self.question.prompt.name, self.question.prompt.hash, number)
        for i, (params, why) in enumerate(reading.configurations):
            key = self.context.space.key(params)
            if key in self.known or key in self.found:
                self.problems.append(f"configuration {i + 1} repeats {self.known.get(key, 'another one of the batch')}")
            elif len(self.found) < self.question.n:
                self.found[key] = Proposal(params, "llm", why, provenance)

    def repair(self) -> None:
        """The second and last turn: what was wrong, and a request for what is missing."""
        missing = self.question.n - len(self.found)
        text = load("repair.v1").render(
            problems="\n".join(f"- {p}" for p in self.problems),
            n=missing,
            keys=reply_keys(self.context.space, reasons=self.question.reasons),
        )
        self.messages.append(Message("user", text))
        try:
            self.ask(missing)
        except LLMError as e:
            self.problems.append(f"the repair turn failed: {e}")

    def charged(self) -> tuple[Proposal, ...]:
        """What was found, each proposal with its share of the bill."""
        n = max(len(self.found), 1)
        tokens, usd = self.usage.tokens / n, None if self.usage.usd is None else self.usage.usd / n
        return tuple(
            replace(p, provenance=replace(p.provenance, tokens=tokens, usd=usd))
            for p in self.found.values()
            if p.provenance is not None
        )

    def _request(self, n: int, number: int, beliefs: bool) -> Completion:
        max_tokens = self._reply_tokens(n, beliefs)
        self.caps.check(self.context.usage + self.usage, self._worst_case(max_tokens))
        request = Request(
            messages=tuple(self.messages),
            schema=reply_schema(self.context.space, n, reasons=self.question.reasons, beliefs=beliefs),
            number=number,
            max_tokens=max_tokens,
            deadline_s=max(1.0, self.deadline - time.monotonic()),
        )
        try:
            completion = self.llm.complete(request)
        except LLMError:
            self.usage += Usage(calls=1)  # asked for and not answered: it counts as a request
            raise
        self.usage += completion.usage
        return completion

    def _worst_case(self, max_tokens: int) -> Usage:
        prompt = sum(self.llm.count_tokens(m.content) + 8 for m in self.messages)
        max_tokens += self.llm.overhead_tokens
        usd = None if self.llm.price is None else self.llm.price.usd(prompt, max_tokens)
        return Usage(calls=1, input_tokens=prompt, output_tokens=max_tokens, usd=usd)

    def _reply_tokens(self, n: int, beliefs: bool) -> int:
        space = self.context.space
        names = sum(self.llm.count_tokens(name) for name in space.names)
        each = names + _TOKENS_PER_VALUE * len(space) + (_TOKENS_PER_REASON if self.question.reasons else 0)
        stated = _BELIEFS_PER_PARAMETER * (names + _TOKENS_PER_BELIEF * len(space)) if beliefs else 0
        return n * each + stated + _TOKENS_SPARE

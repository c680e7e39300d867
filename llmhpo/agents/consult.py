"""One consultation of the model: one request for a whole batch, at most one repair turn, everything accounted for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llmhpo.agents.reply import Reading, read_reply, reply_schema
from llmhpo.errors import BudgetError, LLMError, LLMRequestError
from llmhpo.llm.base import LLM, Completion, Message, Request
from llmhpo.prompts import Prompt, load
from llmhpo.trial import Batch, Context, Proposal, Provenance
from llmhpo.usage import Caps, Usage

_TOKENS_PER_VALUE = 14  # key, value and punctuation of one parameter in a reply, with room to spare
_TOKENS_PER_REASON = 48
_TOKENS_SPARE = 64


@dataclass(frozen=True, slots=True)
class Question:
    """A rendered prompt and what it asks for."""

    kind: str  # "warmstart" or "propose"; the source of the proposals that come of it is "llm"
    prompt: Prompt
    system: str
    user: str
    n: int
    reasons: bool


@dataclass(slots=True)
class _Account:
    """Running totals of one consultation."""

    usage: Usage = field(default_factory=Usage)
    problems: list[str] = field(default_factory=list)


class Consultant:
    """Puts questions to a model, within the caps and the deadline. It keeps no state of a study."""

    def __init__(self, llm: LLM, *, caps: Caps, deadline_s: float = 120.0) -> None:
        self.llm, self.caps, self.deadline_s = llm, caps, deadline_s

    def consult(self, context: Context, question: Question) -> Batch:
        """Ask for a batch. Whatever happens comes back as a `Batch`, never as an exception."""
        start = time.monotonic()
        account = _Account()
        proposals: tuple[Proposal, ...] = ()
        error, fatal = "", False
        try:
            proposals = self._ask(context, question, account, start + self.deadline_s)
        except LLMError as e:
            error, fatal = str(e), isinstance(e, LLMRequestError | BudgetError)
        return Batch(
            kind=question.kind,
            at=len(context.trials),
            asked=question.n,
            proposals=proposals,
            usage=account.usage,
            problems=tuple(account.problems),
            error=error,
            fatal=fatal,
            seconds=time.monotonic() - start,
        )

    def _ask(self, context: Context, question: Question, account: _Account, deadline: float) -> tuple[Proposal, ...]:
        messages = [Message("system", question.system), Message("user", question.user)]
        number = context.usage.calls
        completion = self._request(context, question, messages, number, account, deadline)
        reading = read_reply(completion.text, context.space)
        found = self._proposals(question, completion, reading, number)
        if len(found) >= question.n or not reading.problems or completion.finish == "refusal":
            account.problems.extend(reading.problems)
            if completion.finish == "refusal":
                account.problems.append("the model refused to answer")
            return found
        # One repair turn, with only the violations: asked once, however it ends.
        account.problems.extend(reading.problems)
        repair = load("repair.v1").render(
            problems="\n".join(f"- {p}" for p in reading.problems),
            n=question.n - len(found),
            keys=", ".join(context.space.names),
        )
        messages += [Message("assistant", completion.text[:8000]), Message("user", repair)]
        try:
            second = self._request(context, question, messages, number + 1, account, deadline)
        except LLMError as e:
            account.problems.append(f"the repair turn failed: {e}")
            return found
        again = read_reply(second.text, context.space)
        account.problems.extend(again.problems)
        return (found + self._proposals(question, second, again, number + 1))[: question.n]

    def _request(
        self,
        context: Context,
        question: Question,
        messages: list[Message],
        number: int,
        account: _Account,
        deadline: float,
    ) -> Completion:
        max_tokens = self._reply_tokens(context, question)
        self.caps.check(context.usage + account.usage, self._worst_case(messages, max_tokens))
        request = Request(
            messages=tuple(messages),
            schema=reply_schema(context.space, question.n, reasons=question.reasons),
            number=number,
            max_tokens=max_tokens,
            deadline_s=max(1.0, deadline - time.monotonic()),
        )
        try:
            completion = self.llm.complete(request)
        except LLMError:
            account.usage += Usage(calls=1)  # asked for and not answered: it counts as a request
            raise
        account.usage += completion.usage
        return completion

    def _worst_case(self, messages: list[Message], max_tokens: int) -> Usage:
        prompt = sum(self.llm.count_tokens(m.content) + 8 for m in messages)
        max_tokens += self.llm.overhead_tokens
        price = self.llm.price
        usd = None if price is None else price.usd(prompt, max_tokens)
        return Usage(calls=1, input_tokens=prompt, output_tokens=max_tokens, usd=usd)

    def _reply_tokens(self, context: Context, question: Question) -> int:
        names = sum(self.llm.count_tokens(name) for name in context.space.names)
        each = names + _TOKENS_PER_VALUE * len(context.space) + (_TOKENS_PER_REASON if question.reasons else 0)
        return question.n * each + _TOKENS_SPARE

    def _proposals(
        self, question: Question, completion: Completion, reading: Reading, number: int
    ) -> tuple[Proposal, ...]:
        provenance = Provenance(completion.model, question.prompt.name, question.prompt.hash, number)
        return tuple(Proposal(params, "llm", why, provenance) for params, why in reading.configurations[: question.n])

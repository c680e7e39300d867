"""One consultation of the model: one request for a whole batch, at most one repair turn, everything accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Question
from llmhpo.agents.conversation import Conversation, shares
from llmhpo.agents.critic import criticise
from llmhpo.agents.llambo import Voice, ranked, sampled_batch
from llmhpo.agents.remarks import with_remarks
from llmhpo.agents.reply import Reading, read_reply, reply_keys, reply_schema
from llmhpo.columns import ideas
from llmhpo.errors import BudgetError, LLMError, LLMPromptError, LLMRequestError
from llmhpo.llm.base import LLM, Message
from llmhpo.llm.logged import Note, logged
from llmhpo.prior import Prior
from llmhpo.prompts import load
from llmhpo.store.purse import Purse
from llmhpo.trial import Batch, Context, Proposal, Provenance, Tally
from llmhpo.usage import Caps, Usage

_TOKENS_PER_VALUE = 14  # key, value and punctuation of one parameter in a reply, with room to spare
_TOKENS_PER_REASON = 48
_TOKENS_PER_BELIEF = 40  # its name aside
_BELIEFS_PER_PARAMETER = 2  # a range or choices, and a trend
_TOKENS_SPARE = 64


class Consultant:
    """Puts questions to a model, within the caps and the deadline. It keeps no state of a study.

    `silenced` says that asking again is pointless: a wrong key stops the calls of a session; the next one may have a right
    one.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        caps: Caps,
        deadline_s: float = 120.0,
        advice: Advice | None = None,
        purse: Purse | None = None,
    ) -> None:
        self.llm, self.caps, self.deadline_s, self.purse = llm, caps, deadline_s, purse
        self.advice = advice or Advice()
        self.silenced = False

    def log(self, note: Note) -> None:
        """Tell `note` of every request from now on."""
        self.llm = logged(self.llm, note)

    def converse(self, context: Context, system: str, user: str) -> Conversation:
        """Begin a conversation; the deadline counts from now."""
        messages = [Message("system", system), Message("user", with_remarks(user, context))]
        end = time.monotonic() + self.deadline_s
        caps = context.steering.budget.over(self.caps)
        return Conversation(self.llm, caps, context.usage, end, messages, lost=context.lost, purse=self.purse)

    def consult(self, context: Context, question: Question, shorter: Callable[[], Question] | None = None) -> Batch:
        """Ask for a batch. Whatever happens comes back as a `Batch`, never as an exception.

        A model to which the prompt is too long is asked what `shorter` gives, once.
        """
        if self.advice.proposer == "llambo":
            return sampled_batch(
                self.converse(context, question.system, ""), context, question.kind, question.n, self.advice
            )
        start = time.monotonic()
        talk = _Talk(context, question, self.converse(context, question.system, question.user))
        error, fatal = "", False
        try:
            try:
                talk.ask(question.n, beliefs=question.beliefs)
            except LLMPromptError:
                if shorter is None:
                    raise
                question = shorter()
                talk = _Talk(
                    context, question, talk.conversation.anew(question.system, with_remarks(question.user, context))
                )
                talk.ask(question.n, beliefs=question.beliefs)
            if talk.problems and not talk.refused and 2 * len(talk.found) <= question.n:
                talk.repair()
        except LLMError as e:
            error, fatal = str(e), isinstance(e, LLMRequestError | BudgetError)
        if self.advice.critic and not error:
            talk.criticise()
        if self.advice.surrogate != "none" and not error:
            talk.rank(self.advice)
        return Batch(
            kind=question.kind,
            at=len(context.trials),
            asked=question.n,
            proposals=talk.charged(),
            usage=talk.conversation.usage,
            problems=(*talk.problems, *talk.doubts),
            prior=talk.prior,
            error=error,
            fatal=fatal,
            seconds=time.monotonic() - start,
            tally=talk.tally,
        )


def _counted(tally: Tally, reading: Reading, repeated: int) -> Tally:
    """A tally with one more reply in it."""
    return replace(
        tally,
        offered=tally.offered + reading.offered,
        inside=tally.inside + reading.inside,
        valid=tally.valid + len(reading.configurations),
        repeated=tally.repeated + repeated,
    )


@dataclass(slots=True)
class _Talk:
    """The turns of one consultation, and what they have given so far."""

    context: Context
    question: Question
    conversation: Conversation
    problems: list[str] = field(default_factory=list)
    found: dict[str, Proposal] = field(default_factory=dict)  # by the key of the configuration
    prior: Prior | None = None
    doubts: tuple[str, ...] = ()  # problems of beliefs, which are no reason to ask again
    refused: bool = False
    tally: Tally | None = None
    known: Mapping[str, str] = field(init=False)  # configurations that need not be proposed again, and what they are

    def __post_init__(self) -> None:
        key = self.context.space.key
        waiting = {key(p.params): "an earlier proposal" for p in ideas(self.context)}
        self.known = waiting | {key(t.params): f"trial {t.number}" for t in self.context.trials}

    def ask(self, n: int, *, beliefs: bool = False) -> None:
        """One turn: a request for `n` configurations, perhaps with `beliefs`, and what its reply is good for."""
        number = self.conversation.number
        schema = reply_schema(self.context.space, n, reasons=self.question.reasons, beliefs=beliefs)
        completion = self.conversation.ask(self._reply_tokens(n, beliefs), schema)
        self.tally = replace(
            self.tally or Tally(completion.model, self.question.prompt.name),
            asked=n if self.tally is None else self.tally.asked + n,
        )
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
        repeated = 0
        for i, (params, why) in enumerate(reading.configurations):
            key = self.context.space.key(params)
            if key in self.known or key in self.found:
                repeated += 1
                self.problems.append(f"configuration {i + 1} repeats {self.known.get(key, 'another one of the batch')}")
            elif len(self.found) < self.question.n:
                self.found[key] = Proposal(params, "llm", why, provenance)
        self.tally = _counted(self.tally, reading, repeated)

    def repair(self) -> None:
        """The second and last turn: what was wrong, and a request for what is missing."""
        missing = self.question.n - len(self.found)
        text = load("repair.v1").render(
            problems="\n".join(f"- {p}" for p in self.problems),
            n=missing,
            keys=reply_keys(self.context.space, reasons=self.question.reasons),
        )
        self.conversation.say(text)
        try:
            self.ask(missing)
        except LLMError as e:
            self.problems.append(f"the repair turn failed: {e}")

    def criticise(self) -> None:
        """A second look at a batch whose first reply broke rules; what it drops may be proposed again another time."""
        if not self.problems or not self.found or self.tally is None:
            return
        before = self.conversation.usage.calls
        try:
            seen = criticise(self.conversation, self.context, list(self.found.values()), self.problems)
        except LLMError as e:
            self.problems.append(f"the second look failed: {e}")
            failed = Usage(calls=self.conversation.usage.calls - before)
            self.tally = replace(self.tally, critic=self.tally.critic + failed)
            return
        self.problems.extend(seen.notes)
        dropped = len(self.found) - len(seen.kept)
        self.tally = replace(self.tally, dropped=dropped, critic=self.tally.critic + seen.usage)
        self.found = {key: p for key, p in self.found.items() if p in seen.kept}

    def rank(self, advice: Advice) -> None:
        """The batch in the order of the model's own surrogate."""
        voice = Voice(self.conversation, self.context, advice)
        found, problem = ranked(voice, self.context, list(self.found.values()), advice.surrogate)
        self.conversation.usage = voice.talk.usage
        self.problems += [problem] if problem else []
        self.found = {self.context.space.key(p.params): p for p in found}

    def charged(self) -> tuple[Proposal, ...]:
        """What was found, each proposal with its share of the bill."""
        tokens, usd = shares(self.conversation.usage, list(self.found))
        return tuple(
            replace(p, provenance=replace(p.provenance, tokens=tokens, usd=usd))
            for p in self.found.values()
            if p.provenance is not None
        )

    def _reply_tokens(self, n: int, beliefs: bool) -> int:
        space = self.context.space
        names = sum(self.conversation.llm.count_tokens(name) for name in space.names)
        each = names + _TOKENS_PER_VALUE * len(space) + (_TOKENS_PER_REASON if self.question.reasons else 0)
        stated = _BELIEFS_PER_PARAMETER * (names + _TOKENS_PER_BELIEF * len(space)) if beliefs else 0
        return n * each + stated + _TOKENS_SPARE

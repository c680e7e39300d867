"""The turns of one consultation of a model: within the caps and the deadline, everything accounted for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llmhpo.errors import LLMError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, JSONSchema, Message, Request, most_it_costs
from llmhpo.llm.redact import Redactor
from llmhpo.usage import Caps, Usage

_QUOTED_CHARS = 8000  # of a first reply, in the repair turn


@dataclass(slots=True)
class Conversation:
    """Messages to a model and its answers, without the secrets in them.

    `spent` is what the study has cost before, `lost` what it may have cost besides; `deadline` is on the monotonic clock.
    """

    llm: LLM
    caps: Caps
    spent: Usage
    deadline: float
    messages: list[Message]
    usage: Usage = field(default_factory=Usage)
    lost: Usage = field(default_factory=Usage)
    redact: Redactor = field(default_factory=Redactor.from_environment)

    @property
    def number(self) -> int:
        """Of the next request, within the study."""
        return self.spent.calls + self.usage.calls

    def ask(self, max_tokens: int, schema: JSONSchema | None = None) -> Completion:
        """Send what has been said so far; the answer becomes part of it.

        Raises: LLMError, BudgetError before a request that could pass a cap.
        """
        most = most_it_costs(self.llm, self.messages, max_tokens)
        self.caps.check(self.spent + self.lost + self.usage, most)
        request = Request(
            messages=tuple(replace(m, content=self.redact(m.content)) for m in self.messages),
            schema=schema,
            number=self.number,
            max_tokens=max_tokens,
            deadline_s=max(1.0, self.deadline - time.monotonic()),
        )
        try:
            completion = self.llm.complete(request)
        except LLMError as error:
            # Asked for and not answered: it counts as a request. One that was cut off in the midst is paid for, unknown how dearly.
            self.usage += most if isinstance(error, LLMUnavailableError) and error.was_cut_off else Usage(calls=1)
            raise
        self.usage += completion.usage
        completion = replace(completion, text=self.redact(completion.text), model=self.redact(completion.model))
        self.messages.append(Message("assistant", completion.text[:_QUOTED_CHARS]))
        return completion

    def anew(self, system: str, user: str) -> Conversation:
        """Another one with other words, that goes on with this one's bill and deadline."""
        messages = [Message("system", system), Message("user", user)]
        return Conversation(
            self.llm, self.caps, self.spent, self.deadline, messages, self.usage, self.lost, self.redact
        )

    def say(self, text: str) -> None:
        """Add a turn of ours."""
        self.messages.append(Message("user", text))


def shares(usage: Usage, found: Sequence[object]) -> tuple[float, float | None]:
    """Tokens and dollars of a consultation that each of what it gave bears."""
    n = max(len(found), 1)
    return usage.tokens / n, None if usage.usd is None else usage.usd / n

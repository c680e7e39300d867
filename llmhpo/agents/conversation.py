"""The turns of one consultation of a model: within the caps and the deadline, everything accounted for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from llmhpo.errors import LLMError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, JSONSchema, Message, Request, Sampler, Scorer, most_it_costs
from llmhpo.llm.redact import Redactor
from llmhpo.llm.streaming import OnText, Streaming
from llmhpo.store.purse import Paid, Purse
from llmhpo.usage import Caps, Usage

_QUOTED_CHARS = 8000  # of a first reply, in the repair turn


class _Paid(Protocol):
    @property
    def usage(self) -> Usage: ...


_Answer = TypeVar("_Answer", bound=_Paid)


@dataclass(slots=True)
class Conversation:
    """Messages to a model and its answers, without the secrets in them.

    `spent` is what the study has cost before, `lost` what it may have cost besides; `deadline` is on the monotonic clock. `purse`
    is shared with whoever else asks for the same study at the same time; without one, nobody does.
    """

    llm: LLM
    caps: Caps
    spent: Usage
    deadline: float
    messages: list[Message]
    usage: Usage = field(default_factory=Usage)
    lost: Usage = field(default_factory=Usage)
    redact: Redactor = field(default_factory=Redactor.from_environment)
    purse: Purse | None = None

    @property
    def number(self) -> int:
        """Of the next request, within the study."""
        return self.spent.calls + self.usage.calls

    def ask(
        self,
        max_tokens: int,
        schema: JSONSchema | None = None,
        *,
        temperature: float | None = None,
        top_logprobs: int = 0,
        on_text: OnText | None = None,
    ) -> Completion:
        """Send what has been said so far; the answer becomes part of it. `on_text` hears it as it comes, where the model streams.

        Raises: LLMError, BudgetError before a request that could pass a cap.
        """
        most = most_it_costs(self.llm, self.messages, max_tokens)
        request = partial(self._request, max_tokens, schema, temperature, top_logprobs)
        llm = self.llm
        if on_text is not None and isinstance(llm, Streaming):
            completion = self._charged(most, request, lambda r: llm.stream(r, lambda text: on_text(self.redact(text))))
        else:
            completion = self._charged(most, request, llm.complete)
        completion = replace(completion, text=self.redact(completion.text), model=self.redact(completion.model))
        self.messages.append(Message("assistant", completion.text[:_QUOTED_CHARS]))
        return completion

    def sample(
        self, n: int, max_tokens: int, schema: JSONSchema | None = None, temperature: float | None = None
    ) -> list[str]:
        """`n` independent answers to what has been said so far; none of them becomes part of it.

        A model that can writes them side by side, and it is one request; any other is asked `n` times. Raises: as `ask`.
        """
        llm, asked = self.llm, len(self.messages)
        if isinstance(llm, Sampler):
            request = partial(self._request, max_tokens, schema, temperature)
            most = most_it_costs(llm, self.messages, n * max_tokens)
            return [self.redact(text) for text in self._charged(most, request, lambda r: llm.complete_many(r, n)).texts]
        texts = []
        for _ in range(n):
            texts.append(self.ask(max_tokens, schema, temperature=temperature).text)
            del self.messages[asked:]
        return texts

    def score(self, opening: str, candidates: Sequence[str]) -> tuple[float, ...] | None:
        """Log-probabilities of `candidates` as what follows `opening` in the answer; None where the model tells none.

        Raises: as `ask`.
        """
        llm = self.llm
        if not isinstance(llm, Scorer):
            return None
        said = (*self.messages, Message("assistant", opening))
        messages = tuple(replace(m, content=self.redact(m.content)) for m in said)
        each = sum(llm.count_tokens(text) for text in candidates)
        most = most_it_costs(llm, said, 0)
        most = replace(most, input_tokens=most.input_tokens + each)
        request = partial(self._request, 1, messages=messages)
        return self._charged(most, request, lambda r: llm.score(r, candidates)).logprobs

    def _request(
        self,
        max_tokens: int,
        schema: JSONSchema | None = None,
        temperature: float | None = None,
        top_logprobs: int = 0,
        messages: tuple[Message, ...] | None = None,
    ) -> Request:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise LLMUnavailableError("the time for this consultation is over; raise deadline_s to let it go on")
        return Request(
            messages=messages or tuple(replace(m, content=self.redact(m.content)) for m in self.messages),
            schema=schema,
            number=self.number,
            max_tokens=max_tokens,
            temperature=temperature,
            deadline_s=max(1.0, left),
            top_logprobs=top_logprobs,
        )

    def _charged(self, most: Usage, request: Callable[[], Request], send: Callable[[Request], _Answer]) -> _Answer:
        """What `send` gives, its cost on the bill, checked before against the caps.

        The request is made when it may be sent: it says how much time is left.
        """
        with self._reserved(most) as paid:
            try:
                timely = request()
            except LLMUnavailableError:
                paid(Usage())
                raise
            try:
                answer = send(timely)
            except LLMError as error:
                # Asked for and not answered: it counts as a request. One that was cut off in the midst is paid for, unknown how dearly.
                cut_off = isinstance(error, LLMUnavailableError) and error.was_cut_off
                self._pay(most if cut_off else Usage(calls=1), paid)
                raise
            except BaseException:  # left by the person, while the model wrote
                self._pay(most, paid)
                raise
            self._pay(answer.usage, paid)
        return answer

    @contextlib.contextmanager
    def _reserved(self, most: Usage) -> Iterator[Paid]:
        spent = self.spent + self.lost + self.usage
        if self.purse is None:
            self.caps.check(spent, most)
            yield lambda _: None
            return
        with self.purse.reserved(self.caps, spent, most, self.deadline) as paid:
            yield paid

    def _pay(self, cost: Usage, paid: Paid) -> None:
        self.usage += cost
        paid(cost)

    def anew(self, system: str, user: str) -> Conversation:
        """Another one with other words, that goes on with this one's bill and deadline."""
        messages = [Message("system", system), Message("user", user)]
        return Conversation(
            self.llm, self.caps, self.spent, self.deadline, messages, self.usage, self.lost, self.redact, self.purse
        )

    def say(self, text: str) -> None:
        """Add a turn of ours."""
        self.messages.append(Message("user", text))


def shares(usage: Usage, found: Sequence[object]) -> tuple[float, float | None]:
    """Tokens and dollars of a consultation that each of what it gave bears."""
    n = max(len(found), 1)
    return usage.tokens / n, None if usage.usd is None else usage.usd / n

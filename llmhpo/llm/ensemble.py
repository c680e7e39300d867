"""Several models as one."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from llmhpo.errors import ConfigError, LLMError, LLMReplyError, LLMUnavailableError
from llmhpo.llm.base import LLM, Completion, Request
from llmhpo.llm.health import Health, health_of
from llmhpo.usage import Price

_log = logging.getLogger(__name__)


class Ensemble:
    """The models of a list: a batch of configurations is shared out among them by `agents.team`.

    A request to the whole is answered by the first of `members` that can: the next ones stand in for it. What is known of the
    whole is what holds for each: the highest price, the most tokens; `compact` where all are.

    Raises: ConfigError for fewer than two models, and for two of one name.
    """

    def __init__(self, members: Sequence[LLM]) -> None:
        self.members = tuple(members)
        names = [member.name for member in self.members]
        if len(names) < 2:
            raise ConfigError(f"llm = {names!r}: a list names two models or more; give one alone as a string")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"llm = {names!r} names {twice[0]!r} twice; its slots can go to it as one, too")
        self.name = " + ".join(names)
        self.compact = all(member.compact for member in self.members)
        self.overhead_tokens = max(member.overhead_tokens for member in self.members)
        self.price = _highest([member.price for member in self.members])
        self.health = _joint([health_of(member) for member in self.members])
        self._told: set[str] = set()
        self._order = self.members

    def complete(self, request: Request) -> Completion:
        """The answer of the first model that gives one.

        One that is down or refuses its key is passed over. One that talks nonsense ends the request, which may be on the bill, and is asked
        last from then on. Raises: the error of that one, or the last one's where none answers.
        """
        end = time.monotonic() + request.deadline_s
        able = [m for m in self._order if (health := health_of(m)) is None or health.may_ask] or list(self._order)
        for member in able[:-1]:
            try:
                return member.complete(request)
            except LLMError as error:
                if isinstance(error, LLMUnavailableError) and error.was_cut_off:  # paid for, and the deadline is over
                    raise
                self._tell(member.name, error)
                if isinstance(error, LLMReplyError):
                    self._order = (*(m for m in self._order if m is not member), member)
                    raise
            request = replace(request, deadline_s=max(1.0, end - time.monotonic()))
        return able[-1].complete(request)

    def _tell(self, name: str, error: LLMError) -> None:
        """Once for each model: who answers in its place shows in the record, and why does not."""
        if name not in self._told:
            self._told.add(name)
            _log.warning("%s; the next model of the list is asked instead of %s", error, name)

    def count_tokens(self, text: str) -> int:
        """As the model counts that counts most."""
        return max(member.count_tokens(text) for member in self.members)

    def close(self) -> None:
        """Close all of them."""
        for member in self.members:
            member.close()


def _highest(prices: Sequence[Price | None]) -> Price | None:
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return None
    return Price(max(p.input for p in known), max(p.output for p in known))


def _joint(healths: Sequence[Health | None]) -> Health | None:
    """None where one of the models keeps none: that one may always be asked."""
    known = [health for health in healths if health is not None]
    return _AnyHealth(known) if len(known) == len(healths) else None


class _AnyHealth(Health):
    """As the healthiest of several: the others are left out meanwhile."""

    def __init__(self, healths: Sequence[Health]) -> None:
        super().__init__()
        self._healths = healths

    @property
    def may_ask(self) -> bool:
        """Whether one of them may be asked now."""
        return any(health.may_ask for health in self._healths)

    @property
    def is_failing(self) -> bool:
        """Whether the last request to each of them failed."""
        return all(health.is_failing for health in self._healths)

    @property
    def is_answering(self) -> bool:
        """Whether one of them is answering."""
        return any(health.is_answering for health in self._healths)

    @property
    def patience_s(self) -> float:
        """That of the one that is worth the longest wait."""
        return max(health.patience_s for health in self._healths)

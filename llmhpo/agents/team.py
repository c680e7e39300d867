"""Several models that share the slots of a batch, by what their trials have improved for their tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Question, generator
from llmhpo.agents.consult import Consultant
from llmhpo.agents.conversation import Conversation
from llmhpo.llm.base import LLM
from llmhpo.llm.ensemble import Ensemble
from llmhpo.llm.health import health_of
from llmhpo.llm.logged import Note
from llmhpo.store.purse import Purse
from llmhpo.trial import Batch, Context, Part, Proposal, Tally
from llmhpo.usage import Caps, Usage

_FAIR_TOKENS = 500.0  # that a proposal is taken to cost before any was paid for; it weighs as two proposals
_FAIR_PROPOSALS = 2.0

Ask = Callable[[Context, int, bool], tuple[Question, Callable[[], Question] | None]]
"""Question for so many configurations, for a compact model or not, and what to ask where that is too long."""


@dataclass(slots=True)
class Record:
    """What came of a model's proposals: trials that improved on all before them, trials that did not, proposals, tokens."""

    hits: int = 0
    misses: int = 0
    proposals: int = 0
    tokens: int = 0

    def draw(self, rng: np.random.Generator) -> float:
        """Improvements for a token, drawn from what is known of them.

        Source: Thompson (1933), with a Beta(1, 1) prior; the cost of a proposal is its mean with a prior of its own.
        """
        cost = (self.tokens + _FAIR_TOKENS * _FAIR_PROPOSALS) / (self.proposals + _FAIR_PROPOSALS)
        return float(rng.beta(1 + self.hits, 1 + self.misses)) / cost


def records(context: Context, names: Sequence[str]) -> dict[str, Record]:
    """What is known of each model, from the study's record alone."""
    found = {name: Record() for name in names}
    asked: dict[int, str] = {}  # requests, and who answered them
    for part in (part for batch in context.batches for part in batch.parts if part.name in found):
        asked |= dict.fromkeys(range(part.first, part.first + part.usage.calls), part.name)
        found[part.name].tokens += part.usage.tokens
    for proposal in (p for batch in context.batches for p in batch.proposals):
        if (name := _asker(proposal, asked)) is not None:
            found[name].proposals += 1
    best: float | None = None
    for trial in context.trials:
        if trial.outcome is None:
            continue
        loss = None if trial.value is None else context.task.loss(trial.value)
        if (name := _asker(trial.proposal, asked)) is not None:
            hit = loss is not None and (best is None or loss < best)
            found[name].hits += hit
            found[name].misses += not hit
        if loss is not None:
            best = loss if best is None else min(best, loss)
    return found


def _asker(proposal: Proposal, asked: dict[int, str]) -> str | None:
    return None if proposal.provenance is None else asked.get(proposal.provenance.request)


def shared_out(context: Context, names: Sequence[str], n: int) -> dict[str, int]:
    """How many of `n` slots go to each model: in turn at first, then each slot to who draws the highest pay-off.

    One that was never asked gets a slot.
    """
    names = sorted(names)  # the order of a list is not the models' worth, and a cassette has none
    known, rng = records(context, names), generator(context, "team")
    slots = dict.fromkeys(names, 0)
    fresh = [name for name in names if known[name].tokens == 0 and known[name].proposals == 0]
    for k in range(n):
        if k < len(fresh) or len(fresh) == len(names):
            slots[fresh[k % len(fresh)]] += 1
        else:
            slots[max(names, key=lambda name: known[name].draw(rng))] += 1
    return slots


class Team:
    """Puts each question to several models, each with its share of the slots, one after the other.

    One after the other, because the caps bound the sum: each knows what those before it have cost and proposed. The slots of one
    that fails go to the next. As a `Consultant`, `llm` is asked where a question cannot be shared.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        *,
        caps: Caps,
        deadline_s: float = 120.0,
        advice: Advice | None = None,
        purse: Purse | None = None,
    ) -> None:
        self.caps, self.deadline_s = caps, deadline_s
        self._whole = Consultant(ensemble, caps=caps, deadline_s=deadline_s, purse=purse)
        self._members = {
            m.name: Consultant(m, caps=caps, deadline_s=deadline_s, advice=advice, purse=purse)
            for m in ensemble.members
        }
        self._is_silenced = False

    @property
    def llm(self) -> LLM:
        """The whole, which answers by the first that can."""
        return self._whole.llm

    @property
    def silenced(self) -> bool:
        """Whether asking any of them again is pointless."""
        return self._is_silenced or all(member.silenced for member in self._members.values())

    @silenced.setter
    def silenced(self, silenced: bool) -> None:
        self._is_silenced = silenced

    def log(self, note: Note) -> None:
        """Tell `note` of every request from now on."""
        self._whole.log(note)
        for member in self._members.values():
            member.log(note)

    def converse(self, context: Context, system: str, user: str) -> Conversation:
        """See `Consultant.converse`."""
        return self._whole.converse(context, system, user)

    def consult(self, context: Context, n: int, ask: Ask) -> Batch:
        """Ask for `n` configurations in all. Whatever happens comes back as one `Batch`, with a `Part` for each model."""
        start, at = time.monotonic(), len(context.trials)
        able = [name for name, member in self._members.items() if _may_ask(member)]
        slots = shared_out(context, able, n) if able else {}
        given: list[tuple[str, int, Batch]] = []
        over = 0  # slots of those that failed
        for name in sorted(slots, key=lambda name: -slots[name]):
            if slots[name] + over == 0:
                continue
            member = self._members[name]
            question, shorter = ask(_own(context, name), slots[name] + over, member.llm.compact)
            first = context.usage.calls
            batch = member.consult(context, question, shorter)
            # A cap that is reached for a dear model may leave room for a cheap one: it is not silenced for good.
            member.silenced |= batch.fatal
            given.append((name, first, batch))
            over = slots[name] + over - len(batch.proposals) if batch.error else 0
            context = replace(context, batches=(*context.batches, batch))
        return _joined(given, at, n, time.monotonic() - start, fatal=self.silenced)


def _own(context: Context, name: str) -> Context:
    """As if only this model's replies were known: how it is asked follows from what it can do, not from what the others can."""
    batches = []
    for batch in context.batches:
        silent = Part(name, 0, Usage(), error="another model was asked" if batch.parts else batch.error)
        part = next((part for part in batch.parts if part.name == name), silent)
        own = replace(batch, tally=part.tally, usage=part.usage, error=part.error, seconds=part.seconds)
        batches.append(own)
    return replace(context, batches=tuple(batches))


def _may_ask(member: Consultant) -> bool:
    health = health_of(member.llm)
    return not member.silenced and (health is None or health.may_ask)


def _joined(given: Sequence[tuple[str, int, Batch]], at: int, n: int, seconds: float, *, fatal: bool) -> Batch:
    batches = [batch for _, _, batch in given]
    errors = [f"{name}: {batch.error}" for name, _, batch in given if batch.error]
    answered = any(not batch.error for batch in batches)
    in_turn = zip_longest(*(batch.proposals for batch in batches))
    parts = tuple(Part(name, first, b.usage, b.tally, b.error, b.seconds) for name, first, b in given)
    return Batch(
        kind=batches[0].kind if batches else "failed",
        at=at,
        asked=n,
        proposals=tuple(p for turn in in_turn for p in turn if p is not None)[:n],
        usage=sum((batch.usage for batch in batches), Usage()),
        problems=(*(p for batch in batches for p in batch.problems), *(errors if answered else ())),
        error="" if answered else "; ".join(errors) or "no model may be asked now",
        fatal=fatal,
        seconds=seconds,
        prior=next((batch.prior for batch in batches if batch.prior is not None), None),
        tally=_summed([batch.tally for batch in batches if batch.tally is not None]),
        parts=parts,
    )


def _summed(tallies: Sequence[Tally]) -> Tally | None:
    if not tallies:
        return None
    total = Tally(" + ".join(t.model for t in tallies), tallies[0].prompt)
    for tally in tallies:
        total = replace(
            total,
            asked=total.asked + tally.asked,
            offered=total.offered + tally.offered,
            inside=total.inside + tally.inside,
            valid=total.valid + tally.valid,
            repeated=total.repeated + tally.repeated,
            dropped=total.dropped + tally.dropped,
            critic=total.critic + tally.critic,
        )
    return total

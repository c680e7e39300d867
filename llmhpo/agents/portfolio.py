"""Who proposes the next trial: the one place where model, classical optimizer and screen meet.

`suggest` never waits for a model: it chooses between what the model has already proposed (`ideas`) and the
classical optimizer. `wants` says when the model should be consulted, `consult` does it. Loop, `Study` and `LLMSampler`
call these three and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llmhpo.agents import questions
from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Question, broken, generator, one_by_one
from llmhpo.agents.classical import N_INITIAL, classical_proposals
from llmhpo.agents.consult import Consultant
from llmhpo.agents.outlook import outlook
from llmhpo.agents.quality import needs_short, usable
from llmhpo.agents.remarks import is_unheard, wanted_ideas
from llmhpo.agents.repeat import repeat_proposal
from llmhpo.agents.team import Team
from llmhpo.columns import columns
from llmhpo.errors import ConfigError
from llmhpo.llm import ModelSpec, make_llm
from llmhpo.llm.base import LLM
from llmhpo.llm.ensemble import Ensemble
from llmhpo.llm.health import Health, health_of
from llmhpo.llm.logged import Note
from llmhpo.store.purse import Purse
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import IMPORTED, Batch, Context, Proposal
from llmhpo.trust import UNTRIED, plateaued, trust
from llmhpo.usage import Caps, Price
from llmhpo.view import view_of

_log = logging.getLogger("llmhpo")

_BATCH = 4
_WARM_MAX = 10
_UNKNOWN_BUDGET = 30  # what is planned for where the number of trials is not known
_SPACING = 6  # trials between two consultations, growing by two with each
_CLASSICAL_EVERY = 4  # every fourth trial is the classical optimizer's, whatever the model's record
_SHARE_AFTER_WARMSTART = 0.3  # Centaur: more than 30 % of the trials to the model hurts
_MIN_TRUST = 0.5


class Portfolio:
    """Combines the proposers. `consultant` None means that there is no model."""

    def __init__(self, consultant: Consultant | Team | None = None) -> None:
        self.consultant = consultant
        self._is_brief = False  # a history of the usual length was too long for the model

    @property
    def model(self) -> LLM | None:
        """The model that is consulted."""
        return None if self.consultant is None else self.consultant.llm

    @property
    def about(self) -> None:
        """It edits no code."""
        return None

    @property
    def _health(self) -> Health | None:
        return health_of(self.model)

    def log_requests(self, note: Note) -> None:
        """Tell `note` of every request to the model from now on."""
        if self.consultant is not None:
            self.consultant.log(note)

    # --- the model ----------------------------------------------------------------------------------------------------

    def wants(self, context: Context) -> int:
        """How many configurations the model should be asked for now; 0 for none.

        A warm start first, then batches that come ever more rarely; each consultation that gave nothing doubles the
        distance to the next, so that a dead server is left alone. Where the model keeps its service's `Health`, time decides on
        that instead.
        """
        health = self._health
        return 0 if health is not None and not health.may_ask else self._wanted(context)

    def _wanted(self, context: Context) -> int:
        left = context.budget_left
        if self.consultant is None or self.consultant.silenced or (left is not None and left < 2):
            return 0
        last = context.batches[-1] if context.batches else None
        if (
            last is not None
            and not is_unheard(context)
            and len(context.trials) < last.at + self._distance(context, last)
        ):
            return 0
        early = len(context.trials) < _WARM_MAX
        size = _warm_size(context) if early and not any(b.proposals for b in context.batches) else _BATCH
        return size if left is None else min(size, left)

    def _distance(self, context: Context, last: Batch) -> int:
        """How many trials lie between the last consultation and the next: ever more, fewer on a plateau."""
        if last.error and not last.fatal and self._health is not None and not self._health.is_answering:
            return 1  # the breaker's cooling counts
        fruitless = _trailing(context.batches)
        spacing = _SPACING + 2 * len(context.batches) if fruitless == 0 else 2 ** (fruitless + 1)
        if self._trust(context) < _MIN_TRUST:
            spacing *= 2
        elif fruitless == 0 and plateaued(context):
            spacing //= 2
        return max(spacing, len(last.proposals))

    def consult(self, context: Context) -> Batch:
        """Ask the model for the batch that `wants` announced. Slow: seconds to minutes. Never raises."""
        assert self.consultant is not None
        n = self._wanted(context)
        try:
            if isinstance(self.consultant, Team):
                batch = self.consultant.consult(context, n, self._question)
            else:
                question, shorter = self._question(context, n, self.consultant.llm.compact)
                batch = self.consultant.consult(context, question, shorter)
        except Exception as error:  # noqa: BLE001 - see `broken`
            batch = broken(error, Batch("failed", len(context.trials), n))
        self.consultant.silenced |= batch.fatal
        return batch

    def _question(self, context: Context, n: int, compact: bool) -> tuple[Question, Callable[[], Question] | None]:
        """What to ask, and what instead where that is too long."""
        reasons = not needs_short(context, compact=compact)
        if all(t.outcome is None for t in context.trials):
            return questions.warmstart(context, n, reasons=reasons), None
        view = None if self._is_brief else outlook(context)

        def shorter() -> Question:
            self._is_brief = True
            return questions.propose(context, n, reasons=reasons, brief=True)

        question = questions.propose(context, n, reasons=reasons, view=view, brief=self._is_brief)
        return question, None if self._is_brief else shorter

    # --- the next trials ----------------------------------------------------------------------------------------------

    def suggest(self, context: Context, n: int) -> list[Proposal]:
        """The next `n` trials, most promising first; fast. Each proposal says which source it came from."""
        return one_by_one(self._next, context, n)

    def is_default_next(self, context: Context) -> bool:
        """Whether the next trial is the default configuration, which needs nobody's advice."""
        if not context.space.has_default or (context.trials and context.trials[-1].proposal.source != IMPORTED):
            return False
        return context.space.key(context.space.default()) not in columns(context).tried

    def _next(self, context: Context) -> Proposal:
        if self.is_default_next(context):
            default = view_of(context).confine(context.space.default())
            return Proposal(default, "default", "the defaults that the space declares")
        if (again := repeat_proposal(context)) is not None and view_of(context).allows(again.params):
            return again
        fresh = wanted_ideas(context)
        if fresh and self._is_models_turn(context):
            if waiting := self._waiting(context):
                return waiting[0]  # the model put the most promising one first, and knows more than a young surrogate
            return (self._screened(context, fresh) or list(fresh))[0]
        classical = classical_proposals(context, 1)
        distrusted = self._trust(context) < _MIN_TRUST
        # Ten ideas against the one point of an initial design: a young surrogate would choose among the ideas.
        if not fresh or self._is_classical_turn(context) or (distrusted and len(context.trials) < N_INITIAL):
            return classical[0]
        return (self._screened(context, (*fresh, *classical)) or classical)[0]

    def _waiting(self, context: Context) -> list[Proposal]:
        """What is left of the warm start, in the model's order."""
        first = next((b for b in context.batches if b.proposals), None)
        return [] if first is None else [idea for idea in wanted_ideas(context) if idea in first.proposals]

    def _screened(self, context: Context, candidates: tuple[Proposal, ...]) -> list[Proposal]:
        return fit_screen(context).pick(candidates, 1, generator(context, "screen"))

    def _trust(self, context: Context) -> float:
        """`trust`, its odds lowered by the share of the model's replies that could not be used: who cannot read cannot know."""
        compact = self.consultant is not None and self.consultant.llm.compact
        belief, good = trust(context, compact=compact), usable(context)
        return belief * good / (belief * good + 1.0 - belief)

    def _is_classical_turn(self, context: Context) -> bool:
        """Every fourth trial, but for a warm start whose trials have not disappointed: all of it is tried first."""
        number = len(context.trials)
        if number % _CLASSICAL_EVERY != _CLASSICAL_EVERY - 1:
            return False
        spared = number <= _WARM_MAX and self._trust(context) >= UNTRIED and self._waiting(context)
        return not spared

    def _is_models_turn(self, context: Context) -> bool:
        """Whether the model's own order counts, without the surrogate's consent: while it has earned that."""
        belief = self._trust(context)
        if self._is_classical_turn(context) or belief < _MIN_TRUST:
            return False
        called = len(context.trials) <= 2 * _warm_size(context) or plateaued(context)
        share = belief if called else belief * _SHARE_AFTER_WARMSTART
        return bool(generator(context, "turn").random() < share)


def make_portfolio(
    llm: ModelSpec,
    *,
    base_url: str | None,
    price: Price | None,
    caps: Caps,
    deadline_s: float,
    advice: Advice | Mapping[str, Any] | None = None,
    purse: Purse | None = None,
) -> Portfolio:
    """The proposers around the model that `llm` names (see `make_llm`), which keeps to `caps`; `advice` says how it is used.

    `purse` is for studies whose model may be asked by other processes, too.

    A cap on money needs a price. Where that is not known, a cap on tokens stands in, and a warning says so.

    Raises: ConfigError for a model that cannot be made, for settings of `advice` that are not known, and for `max_usd` alone where the price is not known.
    """
    model, used = make_llm(llm, base_url=base_url, price=price), Advice.of(advice)
    if model is None:
        return Portfolio()
    if model.price is None and caps.max_usd is not None:
        if caps.max_tokens is None:
            raise ConfigError(
                f"max_usd={caps.max_usd} cannot be kept for {model.name!r}: its price is not known; "
                "give `price` (dollars for a million tokens), or cap max_tokens"
            )
        _log.warning(
            "max_usd=%s is not kept for %r, whose price is not known: max_tokens=%s alone bounds its bill; "
            "give `price` (dollars for a million tokens) to have both caps",
            caps.max_usd,
            model.name,
            caps.max_tokens,
        )
        caps = replace(caps, max_usd=None)
    if isinstance(model, Ensemble):
        return Portfolio(Team(model, caps=caps, deadline_s=deadline_s, advice=used, purse=purse))
    return Portfolio(Consultant(model, caps=caps, deadline_s=deadline_s, advice=used, purse=purse))


def warn_if_fatal(batch: Batch) -> None:
    """For faces that show no events: say, once a session, why the model is not asked again."""
    if batch.fatal:
        _log.warning(
            "model: %s; it is not asked again in this session, and the classical optimizer goes on", batch.error
        )


def _warm_size(context: Context) -> int:
    left = _UNKNOWN_BUDGET if context.budget_left is None else context.budget_left
    return max(2, min(_WARM_MAX, (len(context.trials) + left) // 3))


def _trailing(batches: tuple[Batch, ...]) -> int:
    """How many of the latest consultations in a row gave no proposal."""
    count = 0
    for batch in reversed(batches):
        if batch.proposals:
            break
        count += 1
    return count

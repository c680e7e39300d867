"""Edits and configurations in one search: a bandit between the user's own code, new edits, and edits worth tuning.

It looks like a `Portfolio` from outside, and around one: of the user's own code that chooses the configurations, so that a
study whose model writes nothing useful runs the trials of a plain one. All is a function of the context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from llmhpo.agents.base import broken, generator, one_by_one
from llmhpo.agents.edit.author import EDIT, Author
from llmhpo.agents.edit.halving import next_to_tune
from llmhpo.agents.edit.inherit import with_inheritance
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.tree import Node, commission, tree
from llmhpo.agents.portfolio import Portfolio
from llmhpo.llm.base import LLM
from llmhpo.llm.health import health_of
from llmhpo.llm.logged import Note
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import REPEAT, Batch, Context, Proposal, Trial

Arm = Literal["plain", "edit", "tune"]
_PRIORS: dict[Arm, tuple[float, float]] = {
    "plain": (1.0, 4.0),
    "edit": (1.0, 2.0),
    "tune": (1.0, 3.0),
}  # Beta: gains, none
_MEMORY = 0.9  # what a trial of an arm still counts after the arm's next one
_PLAIN_EVERY = 4  # every fourth trial is the user's own code: the edits are measured against its best configuration
_FIRST_EDITS = 2  # are tried as soon as they are there: nothing is known of edits before
_SPACING = 2  # trials between two requests for edits that give something, while edits gain as much as the rest


class EditSearch:
    """Chooses the next trial and the next request in a study that may edit code.

    `author` None: edits that were made are tried and tuned, no new ones are asked for.
    """

    def __init__(self, portfolio: Portfolio, options: EditOptions, author: Author | None = None) -> None:
        self._portfolio, self._options, self._author = portfolio, options, author
        self._tuner = Portfolio()

    @property
    def model(self) -> LLM | None:
        """The model that is consulted."""
        return self._portfolio.model

    def log_requests(self, note: Note) -> None:
        """Tell `note` of every request to the model from now on."""
        self._portfolio.log_requests(note)

    @property
    def about(self) -> dict[str, Any] | None:
        """The settings that its decisions hang on, as JSON."""
        return self._options.to_dict()

    # --- the model ----------------------------------------------------------------------------------------------------

    def wants(self, context: Context) -> int:
        """How many edits, or else configurations of the user's own code, the model should be asked for now; 0 for none."""
        health = health_of(self.model)
        if health is not None and not health.may_ask:
            return 0
        if self._author is not None and self._wants_edits(context, tree(context)):
            return self._author.candidates
        return self._portfolio.wants(context.within("")) if self._wants_configurations(context) else 0

    def _wants_edits(self, context: Context, nodes: Sequence[Node]) -> bool:
        """Whether edits are due: what the last ones did is known, and the distance to them is wide enough.

        The distance grows with how much more the other trials gain than edits do, and doubles with each request in a row
        that gave no edit.
        """
        assert self._author is not None
        left = context.budget_left
        if self._author.consultant.silenced or (left is not None and left < 1):
            return False
        if commission(context, nodes, ()) is None or any(n.state in ("fresh", "running") for n in nodes):
            return False
        batches = [b for b in context.batches if b.kind == EDIT]
        if not batches:
            return True
        guarded = health_of(self.model) is not None  # then time decides when to ask again after an error
        answers = [b for b in batches if not (b.error and guarded)]
        fruitless = next((i for i, b in enumerate(reversed(answers)) if b.revisions), len(answers))
        gain = _gains(context)
        other = max(gain["plain"], gain["tune"])
        spacing = 2 ** (fruitless + 1) if fruitless else round(_SPACING * other / gain["edit"])
        return len(context.trials) >= batches[-1].at + max(1, spacing)

    def _wants_configurations(self, context: Context) -> bool:
        """The model is asked for configurations of the user's own code alone, and as long as no edit has overtaken it."""
        best = incumbent(context)
        return best is None or best.proposal.code == ""

    def consult(self, context: Context) -> Batch:
        """Ask the model for what `wants` announced. Slow: seconds to minutes. Never raises."""
        nodes = tree(context)
        if self._author is None or not self._wants_edits(context, nodes):
            return replace(self._portfolio.consult(context.within("")), at=len(context.trials))
        task = commission(context, nodes, self._options.descriptors)
        assert task is not None
        try:
            batch = self._author.consult(context, nodes, task)
        except Exception as error:  # noqa: BLE001 - see `broken`
            batch = broken(error, Batch(EDIT, len(context.trials), 0, code=task.parent.revision.id))
        self._author.consultant.silenced |= batch.fatal
        return batch

    # --- the next trials ----------------------------------------------------------------------------------------------

    def is_default_next(self, context: Context) -> bool:
        """Whether the next trial is the default configuration of the user's own code, which needs nobody's advice."""
        return not context.trials and context.space.has_default

    def suggest(self, context: Context, n: int) -> list[Proposal]:
        """The next `n` trials, most promising first; fast. Each names its source and its revision of the code."""
        return one_by_one(self._next, context, n)

    def _next(self, context: Context) -> Proposal:
        plain = context.within("")
        if not context.revisions or not plain.trials:
            return self._portfolio.suggest(plain, 1)[0]
        nodes = tree(context)
        fresh = [n for n in nodes if n.state == "fresh"]
        tunable = next_to_tune(context, nodes)
        arm = self._arm(context, can_edit=bool(fresh), can_tune=tunable is not None)
        if arm == "edit":
            return first_trial(context, fresh[0])
        if arm == "tune" and tunable is not None:
            proposal = self._tuner.suggest(with_inheritance(context, tunable.code), 1)[0]
            return replace(proposal, code=tunable.code)
        return self._portfolio.suggest(plain, 1)[0]

    def _arm(self, context: Context, *, can_edit: bool, can_tune: bool) -> Arm:
        """Thompson sampling between the arms that have something to offer, within the shares of the user and of ours."""
        begun = len(context.trials)
        firsts = sum(t.proposal.source == EDIT for t in context.trials)
        can_edit = can_edit and firsts + 1 <= max(_FIRST_EDITS, math.floor(self._options.share * (begun + 1)))
        if can_edit and firsts < _FIRST_EDITS:
            return "edit"
        if begun % _PLAIN_EVERY == _PLAIN_EVERY - 1:
            return "plain"
        arms: list[Arm] = ["plain"]
        arms += ["edit"] if can_edit else []
        arms += ["tune"] if can_tune else []
        rng = generator(context, "arm")
        evidence = _evidence(context)
        return max(arms, key=lambda arm: float(rng.beta(*evidence[arm])))


def first_trial(context: Context, node: Node) -> Proposal:
    """What a new revision is tried with first: the configuration that it was made at, on the same seed."""
    return next(
        replace(proposal, params=context.space_of(node.code).complete(proposal.params))
        for batch in context.batches
        if batch.kind == EDIT
        for proposal in batch.proposals
        if proposal.code == node.code
    )


def _arm_of(trial: Trial) -> Arm:
    if trial.proposal.source == EDIT:
        return "edit"
    return "tune" if trial.proposal.code else "plain"


def _evidence(context: Context) -> dict[Arm, tuple[float, float]]:
    """For each arm, how often its trials improved on the best and how often not; the older, the less they count."""
    seen = dict(_PRIORS)
    best = math.inf
    for trial in context.trials:
        if trial.outcome is None or trial.proposal.source in (REPEAT, "default"):
            loss = math.inf if trial.value is None else context.task.loss(trial.value)
            best = min(best, loss)
            continue
        loss = math.inf if trial.value is None else context.task.loss(trial.value)
        arm = _arm_of(trial)
        gain = float(loss < best)
        best = min(best, loss)
        (a, b), (one, zero) = seen[arm], _PRIORS[arm]
        seen[arm] = one + _MEMORY * (a - one) + gain, zero + _MEMORY * (b - zero) + 1.0 - gain
    return seen


def _gains(context: Context) -> dict[Arm, float]:
    """How likely the next trial of each arm improves on the best."""
    return {arm: a / (a + b) for arm, (a, b) in _evidence(context).items()}

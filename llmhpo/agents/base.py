"""What every proposer looks like: all that is known in, configurations out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from llmhpo.llm.base import LLM
from llmhpo.llm.health import service_state
from llmhpo.llm.logged import Note
from llmhpo.llm.redact import Redactor
from llmhpo.prompts import Prompt
from llmhpo.trial import Batch, Context, Proposal, Trial
from llmhpo.usage import Usage


class Proposer(Protocol):
    """A source of configurations.

    It keeps no trial state: the same context (and the same replies of the model) gives the same proposals, so that a
    resumed study goes on as one that never stopped.
    """

    name: str

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """At most `n` valid configurations, best first; they may repeat what was tried, the screen drops repeats."""
        ...


class Search(Protocol):
    """Chooses the next trials of a study, and says when its model is to be asked: `Portfolio`, or with edits `EditSearch`.

    All that it chooses is a function of the context, the settings in `about`, and whether the model is a compact one.
    """

    @property
    def model(self) -> LLM | None:
        """The model that is consulted."""
        ...

    @property
    def about(self) -> dict[str, Any] | None:
        """The settings of the search for edits, as JSON; None where code is not edited."""
        ...

    def log_requests(self, note: Note) -> None:
        """Tell `note` of every request to the model from now on."""
        ...

    def wants(self, context: Context) -> int:
        """How many proposals the model should be asked for now; 0 for none."""
        ...

    def consult(self, context: Context) -> Batch:
        """Ask the model for what `wants` announced. Slow. Never raises."""
        ...

    def suggest(self, context: Context, n: int) -> list[Proposal]:
        """The next `n` trials, most promising first; fast."""
        ...

    def is_default_next(self, context: Context) -> bool:
        """Whether the next trial is the default configuration, which needs nobody's advice."""
        ...


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


def asked(search: Search, context: Context) -> tuple[int, tuple[bool, bool] | None]:
    """What `wants` says, and the state of the model's service that it said so in: a replay needs both."""
    while True:
        service = service_state(search.model)
        n = search.wants(context)
        if service_state(search.model) == service:
            return n, service


def one_by_one(choose: Callable[[Context], Proposal], context: Context, n: int) -> list[Proposal]:
    """`n` trials of `choose`, each chosen as if those before it were running."""
    chosen: list[Proposal] = []
    for _ in range(n):
        chosen.append(choose(context))
        left = None if context.budget_left is None else max(0, context.budget_left - 1)
        begun = (*context.trials, Trial(len(context.trials), chosen[-1]))
        context = replace(context, trials=begun, budget_left=left)
    return chosen


def broken(error: Exception, batch: Batch) -> Batch:
    """The batch of a request that raised: somebody's own `LLM`, a disk that is full; no model may end a study."""
    words = Redactor.from_environment()(f"{type(error).__name__}: {error}")
    return replace(batch, usage=Usage(calls=1), error=words, fatal=True)


def generator(context: Context, salt: str) -> np.random.Generator:
    """The random generator of one proposer at one point of a study: a function of seed, trials so far and `salt`."""
    return np.random.default_rng([context.seed, len(context.trials), *salt.encode()])

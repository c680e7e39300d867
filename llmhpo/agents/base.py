"""What every proposer looks like: all that is known in, configurations out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from llmhpo.trial import Context, Proposal


class Proposer(Protocol):
    """A source of configurations.

    It keeps no trial state: the same context (and the same replies of the model) gives the same proposals, so that a
    resumed study goes on as one that never stopped.
    """

    name: str

    def propose(self, context: Context, n: int) -> list[Proposal]:
        """At most `n` valid configurations, best first; they may repeat what was tried, the screen drops repeats."""
        ...


def generator(context: Context, salt: str) -> np.random.Generator:
    """The random generator of one proposer at one point of a study: a function of seed, trials so far and `salt`."""
    return np.random.default_rng([context.seed, len(context.trials), *salt.encode()])

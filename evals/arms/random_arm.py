"""Random search."""

from __future__ import annotations

import numpy as np

from evals.arms.base import Asked
from evals.tasks.base import Result, Task
from llmhpo import Usage


class RandomArm:
    """Uniform over the space, logarithmic where the space is."""

    def __init__(self, task: Task, seed: int) -> None:
        self._space, self._rng, self._count = task.space, np.random.default_rng([seed, 7]), 0

    def ask(self) -> Asked:
        """As `Arm`."""
        self._count += 1
        return Asked(self._count, self._space.sample(self._rng, 1)[0], "random")

    @property
    def usage(self) -> Usage:
        """As `Arm`: there is no model."""
        return Usage()

    @property
    def completions(self) -> int:
        """As `Arm`."""
        return 0

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`: nothing is learned."""

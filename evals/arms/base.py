"""What every arm of a comparison looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from evals.tasks.base import Params, Result
from llmhpo import Usage

CLASSICAL = ("random", "tpe", "tpe_default", "gp", "cmaes", "smac")


@dataclass(frozen=True, slots=True)
class Asked:
    """A configuration to evaluate; `source` says who proposed it, `ticket` is handed back with the result."""

    ticket: int
    params: Params
    source: str


class Arm(Protocol):
    """An optimizer that is asked and told. Several configurations may be asked for before they are told."""

    @property
    def usage(self) -> Usage:
        """What the model has cost so far."""
        ...

    @property
    def completions(self) -> int:
        """How many replies the model has written: several to a request, where it can."""
        ...

    def ask(self) -> Asked:
        """The next configuration to evaluate."""
        ...

    def tell(self, asked: Asked | None, result: Result) -> None:
        """What came of it; `result.params` is what was evaluated. `asked` is None for a configuration that was given."""
        ...

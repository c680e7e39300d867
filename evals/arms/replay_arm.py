"""Recorded proposals first, whatever comes of them, then another arm: the simplest use of a model."""

from __future__ import annotations

from evals.arms.base import Arm, Asked
from evals.tasks.base import Result, Task
from llmhpo import Usage


class ReplayArm:
    """Asks for the task's recorded configurations in their order, each once; `inner` is told all and goes on after them."""

    def __init__(self, task: Task, inner: Arm) -> None:
        self._task, self._inner = task, inner
        self._left = list(reversed(task.recorded))
        self._known: set[str] = set()
        self._open = 0  # trials of the inner arm that it has not been told of
        self._given: list[Result] = []  # recorded ones that wait until it has been told of those

    @property
    def usage(self) -> Usage:
        """As the inner arm: the recording was free."""
        return self._inner.usage

    @property
    def completions(self) -> int:
        """As the inner arm."""
        return self._inner.completions

    def ask(self) -> Asked:
        """As `Arm`."""
        while self._left:
            params = self._left.pop()
            key = self._task.space.key(params if self._task.snap is None else self._task.snap(params))
            if key not in self._known:
                self._known.add(key)
                return Asked(-1, params, "recorded")
        self._open += 1
        return self._inner.ask()

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`."""
        self._known.add(self._task.space.key(result.params))
        if asked is None or asked.source == "recorded":
            self._given.append(result)
        else:
            self._open -= 1
            self._inner.tell(asked, result)
        if self._open == 0:
            for given in self._given:
                self._inner.tell(None, given)
            self._given.clear()

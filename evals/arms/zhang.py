"""One configuration a request, from a conversation or from a list of what was tried: no surrogate, no screen.

Source: Zhang, Desai, Bae, Lorraine, Ba, "Using Large Language Models for Hyperparameter Optimization", 2023 (arXiv
2312.04528). Temperature 0; an answer that cannot be used is named and asked for again. Prompts are our own words. Of the
paper's appendix we had no copy: that repeats are run again, and how often an error is answered, are our assumptions. A random configuration, labelled so, stands in for an answer that never came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from evals.arms.base import Asked
from evals.arms.models import Meter
from evals.arms.wording import about, configuration_in, configuration_schema, in_words, json_in, number, prompt
from evals.tasks.base import Params, Result, Task
from llmhpo import Usage
from llmhpo.llm.base import Message, Request

ATTEMPTS = 3  # a trial: the first one, and two after an error
TEMPERATURE = 0.0
_DEADLINE_S = 600.0
_TOKENS_A_PARAM = 40

History = Literal["chat", "compressed"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A configuration, and what came of it once it is known."""

    params: Params
    result: Result | None = None


class ZhangArm:
    """`chat`: every answer and every result stays a turn. `compressed`: one message with a list of results.

    The sources of its trials: "zhang", and "random" where no answer could be used.
    """

    def __init__(self, task: Task, meter: Meter, history: History, seed: int, budget: int) -> None:
        self._task, self._meter, self._history = task, meter, history
        self._rng = np.random.default_rng([seed, 23])
        self._numbers = count()
        self._turns: list[Turn] = []
        self._start = prompt("zhang_start", budget=budget, **about(task))

    @property
    def usage(self) -> Usage:
        """As `Arm`."""
        return self._meter.usage

    @property
    def completions(self) -> int:
        """As `Arm`."""
        return self._meter.completions

    def ask(self) -> Asked:
        """As `Arm`."""
        params = self._proposed()
        source = "zhang" if params is not None else "random"
        self._turns.append(Turn(params or self._task.space.sample(self._rng, 1)[0]))
        return Asked(len(self._turns) - 1, self._turns[-1].params, source)

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`."""
        if asked is None:
            self._turns.append(Turn(result.params, result))
        else:
            self._turns[asked.ticket] = Turn(result.params, result)

    def _proposed(self) -> Params | None:
        messages = self._conversation() if self._history == "chat" else self._list()
        schema, space = configuration_schema(self._task.space), self._task.space
        for _ in range(ATTEMPTS):
            request = Request(
                tuple(messages), schema, next(self._numbers), _TOKENS_A_PARAM * len(space), TEMPERATURE, _DEADLINE_S
            )
            for reply in self._meter.sample(request, 1):
                params = configuration_in(json_in(reply), space)
                if isinstance(params, dict):
                    return params
                error = f"That cannot be run: {params}. Answer with one JSON object: another configuration."
                messages = [*messages, Message("assistant", reply[:2000]), Message("user", error)]
        return None

    def _conversation(self) -> list[Message]:
        messages = [Message("user", self._start)]
        for turn in self._turns:
            messages.append(Message("assistant", json.dumps(turn.params)))
            messages.append(Message("user", f"{self._outcome(turn)} Answer with the next configuration, as JSON."))
        return messages

    def _list(self) -> list[Message]:
        lines = [f"Config {i}: {in_words(t.params)} {self._outcome(t)}" for i, t in enumerate(self._turns, 1)]
        tried = "\n\nTried so far:\n" + "\n".join(lines) if lines else ""
        return [Message("user", f"{self._start}{tried}\n\nAnswer with the next configuration, as JSON.")]

    def _outcome(self, turn: Turn) -> str:
        if turn.result is None:
            return "It is still running."
        if turn.result.value is None:
            return "It failed."
        return f"{self._task.metric}: {number(turn.result.value)}."

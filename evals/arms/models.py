"""Models that arms speak to: a meter around any of them, recorded replies, and garbage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from evals.tasks.base import Params, Task
from llmhpo import LLMHPOError, Usage, make_llm
from llmhpo.llm.base import Sampler, Scorer, Scores, Several
from llmhpo.llm.scripted import ScriptedModel

if TYPE_CHECKING:
    from llmhpo.llm.base import LLM, Completion, Request


_Answer = TypeVar("_Answer", Several, Scores)


class Meter:
    """A model with a meter on it, whose configurations snap to the rows of a pool before the optimizer reads them.

    Without the snapping the optimizer would wait for ever for the outcome of a configuration that was never evaluated.
    """

    def __init__(self, inner: LLM, task: Task) -> None:
        self._inner, self._task = inner, task
        self.name, self.price, self.compact = inner.name, inner.price, inner.compact
        self.overhead_tokens = inner.overhead_tokens
        self.usage, self.completions, self.seconds = Usage(), 0, 0.0

    def complete(self, request: Request) -> Completion:
        """As the inner model."""
        start = time.perf_counter()
        try:
            completion = self._inner.complete(request)
        except LLMHPOError:
            self.usage += Usage(calls=1)
            raise
        finally:
            self.seconds += time.perf_counter() - start
        self.usage += completion.usage
        self.completions += 1
        return completion if self._task.snap is None else replace(completion, text=self._snapped(completion.text))

    def sample(self, request: Request, n: int) -> list[str]:
        """Up to `n` independent replies: of one request where the model can, else of `n` requests, numbered on.

        Replies that failed are missing.
        """
        start = time.perf_counter()
        if isinstance(self._inner, Sampler):
            texts = self._several(self._inner, request, n)
        else:
            texts = [text for i in range(n) for text in self._one(replace(request, number=request.number + i))]
        self.seconds += time.perf_counter() - start
        self.completions += len(texts)
        return texts

    def _several(self, model: Sampler, request: Request, n: int) -> list[str]:
        try:
            several = model.complete_many(request, n)
        except LLMHPOError:
            self.usage += Usage(calls=1)
            return []
        self.usage += several.usage
        return list(several.texts)

    def _one(self, request: Request) -> list[str]:
        try:
            completion = self._inner.complete(request)
        except LLMHPOError:
            self.usage += Usage(calls=1)
            return []
        self.usage += completion.usage
        return [completion.text]

    def _snapped(self, text: str) -> str:
        start, end = text.find("{"), text.rfind("}") + 1  # fences and thoughts around it stay
        try:
            reply = json.loads(text[start:end])
            if reply.keys() <= {*self._task.space.names}:  # one configuration and nothing around it
                reply = self._snap(reply)
            else:
                reply["configurations"] = [self._snap(raw) for raw in reply["configurations"]]
        except (ValueError, TypeError, KeyError, AttributeError):
            return text  # not what was asked for: the optimizer's business
        return text[:start] + json.dumps(reply) + text[end:]

    def _snap(self, raw: object) -> object:
        space, snap = self._task.space, self._task.snap
        assert snap is not None
        if not isinstance(raw, dict):
            return raw
        params = space.coerce(space.drop_inactive({k: v for k, v in raw.items() if k in space}))
        return {**raw, **dict.fromkeys(space.names), **snap(params)} if isinstance(params, dict) else raw

    def count_tokens(self, text: str) -> int:
        """As the inner model."""
        return self._inner.count_tokens(text)

    def close(self) -> None:
        """Close the inner model."""
        self._inner.close()


class _SamplingMeter(Meter):
    """One on a model that writes several replies at once, and says how likely given texts are."""

    def complete_many(self, request: Request, n: int) -> Several:
        """As the inner model."""
        assert isinstance(self._inner, Sampler)
        several = self._timed(partial(self._inner.complete_many, request, n))
        self.completions += len(several.texts)
        if self._task.snap is None:
            return several
        return replace(several, texts=tuple(self._snapped(text) for text in several.texts))

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """As the inner model."""
        assert isinstance(self._inner, Scorer)
        return self._timed(partial(self._inner.score, request, candidates))

    def _timed(self, send: Callable[[], _Answer]) -> _Answer:
        start = time.perf_counter()
        try:
            answer = send()
        except LLMHPOError:
            self.usage += Usage(calls=1)
            raise
        finally:
            self.seconds += time.perf_counter() - start
        self.usage += answer.usage
        return answer


def metered(model: LLM, task: Task) -> Meter:
    """A meter on a model that can do what the model can."""
    both = isinstance(model, Sampler) and isinstance(model, Scorer)
    return (_SamplingMeter if both else Meter)(model, task)


def recorded_model(task: Task) -> LLM:
    """Answers the first request with the task's ten recorded configurations, and no other."""
    reply = json.dumps({"configurations": [{**dict.fromkeys(task.space.names), **p} for p in task.recorded]})
    return ScriptedModel([reply], name="recorded")


_GARBAGE_REPLIES = 200


def garbage_model(task: Task, seed: int) -> LLM:
    """Replies that fit the schema and help nobody: bounds, repeats, noise, beliefs that are surely held and drawn by lot.

    Of five replies one is missing and one is cut off.
    """
    rng = np.random.default_rng([seed, 13])
    beliefs = _drawn_beliefs(task, np.random.default_rng([seed, 14]))
    replies: dict[int, str] = {}
    corner = _corner(task, rng)
    for number in range(_GARBAGE_REPLIES):
        if number % 5 == 3:
            continue  # unavailable
        configurations = [corner, *(_corner(task, rng) for _ in range(4)), corner, *task.space.sample(rng, 5)]
        keyed = [{**dict.fromkeys(task.space.names), **p} for p in configurations]
        reply = json.dumps({"configurations": keyed, **(beliefs if number == 0 else {})})
        replies[number] = reply[: len(reply) // 2] if number % 5 == 4 else reply
    return ScriptedModel(replies, name="garbage")


def _drawn_beliefs(task: Task, rng: np.random.Generator) -> dict[str, object]:
    """A tenth of every range, one choice of every category, an end of every ordered list."""
    stated: dict[str, list[dict[str, object]]] = {"ranges": [], "choices": [], "trends": []}
    for param in task.space.params:
        said: dict[str, object] = {"parameter": param.name, "confidence": 0.95}
        low = float(rng.uniform(0.0, 0.9))
        if param.ordered:
            stated["trends"].append({**said, "better": "lower" if low < 0.45 else "higher"})
        elif param.choices:
            stated["choices"].append({**said, "likely": [param.from_unit(low)]})
        else:
            stated["ranges"].append({**said, "low": param.from_unit(low), "high": param.from_unit(low + 0.1)})
    return {"beliefs": {name: entries for name, entries in stated.items() if entries}}


def _corner(task: Task, rng: np.random.Generator) -> Params:
    return task.space.from_unit(rng.integers(0, 2, len(task.space)).astype(float))


@lru_cache(maxsize=2)
def shared_model(spec: str, record: Path | None = None) -> LLM | None:
    """A model, one for all runs of a process; `record` is a cassette for its exchanges.

    Raises: ConfigError.
    """
    return make_llm(spec, record=record)

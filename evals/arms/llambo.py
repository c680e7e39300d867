"""LLAMBO: a language model as candidate sampler and as surrogate, re-implemented from the paper.

Source: Liu, Astorga, Seedat, van der Schaar, "Large Language Models to Enhance Bayesian Optimization", ICLR 2024
(arXiv 2402.03921): sections 4 to 6, appendices B and D. Prompts are our own words; replies are JSON instead of text
between hash signs.

What the paper leaves open follows its authors' program (github.com/tennisonliu/LLAMBO): few-shots stand in `ORDERS`
random orders, each of which gets an equal share of the samples; a request for `n` replies is one request and `n`
completions; invalid, repeated and tried candidates are dropped and more are sampled, `ROUNDS` times at most, while there
are fewer than `ENOUGH`. Here a random configuration takes the place of a candidate that never came, and says so, where
that program stops with an error. The paper's benchmarks have no failures: a failed
configuration stands in no prompt, but is not tried again.

Differences: no nucleus cut (top-p 0.95), which our protocol of models has not; no bounds on the target value. Where paper
and program differ the paper is followed: the program has 10 candidates (about 110 completions a trial instead of 220),
alpha 0.1 (a target beyond the best instead of short of it), and warmer candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from scipy.stats import norm

from evals.arms.base import Asked
from evals.arms.models import Meter
from evals.arms.wording import about, configuration_in, configuration_schema, in_words, json_in, number, prompt
from evals.tasks.base import Array, Params, Result, Task
from llmhpo import Usage
from llmhpo.llm.base import JSONSchema, Message, Request, closed_object

INITIAL = 5  # section 7: points before the model takes over; the given one is among them
CANDIDATES = 20  # M of appendix D
SAMPLES = 10  # K of appendix D
ALPHA = -0.1  # of appendix D; section 6 uses -0.2
TOP = 0.25  # tau of appendix B, as a share of what was observed
TEMPERATURE = 0.7  # appendix D
ORDERS = 2
ENOUGH = 5
ROUNDS = 4
_LEAST_STD = 1e-5
_DEADLINE_S = 600.0
_NUMBER_TOKENS = 24
_WORD_TOKENS = 12
_TOKENS_A_PARAM = 40

Surrogate = Literal["disc", "gen"]


@dataclass(frozen=True, slots=True)
class Observation:
    """A configuration and its score."""

    params: Params
    score: float


class LlamboArm:
    """LLAMBO with its discriminative ("disc") or its generative ("gen") surrogate.

    The sources of its trials: "warmstart", "llambo", and "random" where the model gave nothing that could be used.
    """

    def __init__(self, task: Task, meter: Meter, surrogate: Surrogate, seed: int, budget: int) -> None:
        self._task, self._meter, self._surrogate = task, meter, surrogate
        self._initial = min(INITIAL, budget)
        self._rng = np.random.default_rng([seed, 19])
        self._numbers, self._tickets = count(), count()
        self._seen: list[Observation] = []
        self._asked = 0
        self._known: set[str] = set()
        self._warmstart: Iterator[Params] | None = None

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
        params, source = self._next()
        if params is None:
            params, source = self._random(), "random"
        self._asked += 1
        self._known.add(self._task.space.key(params))
        return Asked(next(self._tickets), params, source)

    def tell(self, asked: Asked | None, result: Result) -> None:
        """As `Arm`."""
        self._asked += asked is None
        self._known.add(self._task.space.key(result.params))
        if result.value is not None:
            self._seen.append(Observation(result.params, result.value))

    def _next(self) -> tuple[Params | None, str]:
        if self._asked < self._initial:
            if self._warmstart is None:
                self._warmstart = iter(self._points(self._initial - self._asked))
            return next(self._warmstart, None), "warmstart"
        if not self._seen:
            return None, "random"
        candidates = self._candidates()
        if not candidates:
            return None, "random"
        scores = self._improvement(candidates) if self._surrogate == "disc" else self._share_of_top(candidates)
        return candidates[int(np.argmax(scores))], "llambo"

    def _random(self) -> Params:
        for _ in range(100):
            params = self._task.space.sample(self._rng, 1)[0]
            if self._task.space.key(params) not in self._known:
                break
        return params

    # --- what the model is asked --------------------------------------------------------------------------------------

    def _sample(self, text: str, schema: JSONSchema, n: int, max_tokens: int) -> list[object]:
        """`n` replies at most, as JSON."""
        first = next(self._numbers)
        for _ in range(n - 1):
            next(self._numbers)  # a model without such requests is asked n times
        request = Request((Message("user", text),), schema, first, max_tokens, TEMPERATURE, _DEADLINE_S)
        return [json_in(reply) for reply in self._meter.sample(request, n)]

    def _points(self, n: int) -> list[Params]:
        """Zero-shot: section 4, with all of the context that the harness has."""
        space = self._task.space
        item = configuration_schema(space)
        schema = closed_object({"configurations": {"type": "array", "minItems": n, "maxItems": n, "items": item}})
        text = prompt("llambo_warmstart", n=n, **about(self._task))
        (reply,) = self._sample(text, schema, 1, n * _TOKENS_A_PARAM * len(space)) or [None]
        listed = reply.get("configurations") if isinstance(reply, dict) else None
        return self._usable(listed if isinstance(listed, list) else [])

    def _candidates(self) -> list[Params]:
        """Configurations conditioned on a target: section 6. The target lies within what was seen while alpha < 0."""
        found: list[Params] = []
        schema, tokens = configuration_schema(self._task.space), _TOKENS_A_PARAM * len(self._task.space)
        target = number(self._target())
        for _ in range(ROUNDS):
            replies: list[object] = []
            for examples in self._orders(
                [f"{self._score(o)}\nConfiguration: {in_words(o.params)}" for o in self._seen]
            ):
                text = prompt("llambo_candidate", examples=examples, target=target, **about(self._task))
                replies += self._sample(text, schema, CANDIDATES // ORDERS, tokens)
            found = self._usable(replies, found)
            if len(found) >= ENOUGH:
                break
        return found

    def _improvement(self, candidates: Sequence[Params]) -> Array:
        """Expected improvement of each candidate: section 5.1."""
        lines = [f"Configuration: {in_words(o.params)}\n{self._score(o)}" for o in self._seen]
        schema = closed_object({"score": {"type": "number"}})
        replies = self._about_each(candidates, lines, "llambo_score", schema, _NUMBER_TOKENS)
        mean, std = moments([[v for r in row if (v := _score_in(r)) is not None] for row in replies])
        scores = np.array([o.score for o in self._seen])
        gain = scores.min() - mean if self._task.direction == "minimize" else mean - scores.max()
        z = gain / std
        improvement: Array = gain * norm.cdf(z) + std * norm.pdf(z)
        return improvement

    def _share_of_top(self, candidates: Sequence[Params]) -> Array:
        """How often the model says that a candidate is among the best quarter: appendix B, without log-probabilities."""
        scores = np.array([o.score for o in self._seen])
        low = self._task.direction == "minimize"
        bar = float(np.quantile(scores, TOP if low else 1 - TOP))
        tops = [o.score <= bar if low else o.score >= bar for o in self._seen]
        lines = [
            f"Configuration: {in_words(o.params)}\nClass: {'yes' if top else 'no'}"
            for o, top in zip(self._seen, tops, strict=True)
        ]
        schema = closed_object({"top": {"enum": ["yes", "no"]}})
        replies = self._about_each(candidates, lines, "llambo_top", schema, _WORD_TOKENS, percent=round(100 * TOP))
        votes = [[r.get("top") for r in row if isinstance(r, dict)] for row in replies]
        return np.array([v.count("yes") / (v.count("yes") + v.count("no") or 1) for v in votes])

    def _about_each(
        self,
        candidates: Sequence[Params],
        lines: Sequence[str],
        name: str,
        schema: JSONSchema,
        max_tokens: int,
        **values: object,
    ) -> list[list[object]]:
        """Replies about each candidate. Order by order: what stands before the question is read once by a local model."""
        replies: list[list[object]] = [[] for _ in candidates]
        for examples in self._orders(lines):
            for row, params in zip(replies, candidates, strict=True):
                text = prompt(name, examples=examples, query=in_words(params), **about(self._task), **values)
                row += self._sample(text, schema, SAMPLES // ORDERS, max_tokens)
        return replies

    def _orders(self, lines: Sequence[str]) -> list[str]:
        return ["\n\n".join(lines[i] for i in self._rng.permutation(len(lines))) for _ in range(ORDERS)]

    def _score(self, observation: Observation) -> str:
        return f"{self._task.metric}: {number(observation.score)}"

    def _target(self) -> float:
        scores = [o.score for o in self._seen]
        best, worst = (min, max) if self._task.direction == "minimize" else (max, min)
        spread = best(scores) - worst(scores)
        if spread == 0:
            spread = (-0.1 if self._task.direction == "minimize" else 0.1) * max(map(abs, scores))
        return best(scores) + ALPHA * spread

    def _usable(self, replies: Sequence[object], found: Sequence[Params] = ()) -> list[Params]:
        """`found` and what is valid and new among replies. Where a pool snaps, its rows count."""
        space, good = self._task.space, {self._task.space.key(p): p for p in found}
        for raw in replies:
            params = configuration_in(raw, space)
            if isinstance(params, dict):
                params = params if self._task.snap is None else self._task.snap(params)
                if space.key(params) not in self._known:
                    good.setdefault(space.key(params), params)
        return list(good.values())


def _score_in(reply: object) -> float | None:
    score = reply.get("score") if isinstance(reply, dict) else None
    fits = isinstance(score, int | float) and not isinstance(score, bool) and abs(score) < 1e100
    return float(score) if fits and score is not None else None


def moments(samples: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    """Mean and standard deviation of each row's samples, each (n,); a row without any gets the mean of the others'."""
    means = np.array([np.mean(row) if row else np.nan for row in samples])
    stds = np.array([np.std(row) if row else np.nan for row in samples])
    known = ~np.isnan(means)
    means[~known] = means[known].mean() if known.any() else 0.0
    stds[~known] = stds[known].mean() if known.any() else 0.0
    return means, np.maximum(stds, _LEAST_STD)

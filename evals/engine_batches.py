"""What a local model's batches are worth as they come: on ten spaces, and what of them reaches the executor.

For each space, contexts with no trials and with a few; for each context, the product's own question and schema, answered
several times side by side. Each reply then takes the product's own path: reader, consultation, portfolio.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from llmhpo.agents import questions
from llmhpo.agents.base import Question
from llmhpo.agents.consult import Consultant
from llmhpo.agents.portfolio import Portfolio
from llmhpo.agents.reply import reply_schema
from llmhpo.llm.base import Message, Request
from llmhpo.llm.local import LocalModel
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.param import Param
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps

_N = 3  # configurations to a reply
_SIDE_BY_SIDE = 4
_TRIALS = (0, 4, 8, 12, 16)


def _float(low: float, high: float, **more: object) -> dict[str, object]:
    return {"type": "float", "low": low, "high": high, **more}


def _int(low: int, high: int, **more: object) -> dict[str, object]:
    return {"type": "int", "low": low, "high": high, **more}


def _one_of(*choices: object, **more: object) -> dict[str, object]:
    return {"type": "categorical", "choices": list(choices), **more}


SPACES: Mapping[str, dict[str, dict[str, object]]] = {
    "network": {
        "lr": _float(1e-5, 0.1, log=True, default=0.01),
        "optimizer": _one_of("sgd", "adam", "rmsprop"),
        "momentum": _float(0.0, 0.99, when={"optimizer": "sgd"}),
        "layers": _int(1, 4),
    },
    "forest": {
        "trees": _int(10, 1000, log=True),
        "bootstrap": _one_of(True, False),
        "sample_share": _float(0.1, 1.0, when={"bootstrap": True}),
    },
    "whole numbers": {"units": _int(16, 256), "depth": _int(1, 12), "warmup": _int(0, 10_000), "batch": _int(8, 512, step=8)},
    "tiny numbers": {"weight_decay": _float(1e-8, 1e-3, log=True), "epsilon": _float(1e-9, 1e-6, log=True)},
    "choices": {
        "activation": _one_of("relu", "gelu", "tanh", "silu"),
        "batch_size": {"type": "ordinal", "choices": [16, 32, 64, 128, 256]},
        "rate": _one_of(0.1, 0.01, 0.001),
        "nesterov": _one_of(True, False),
    },
    "nested": {
        "model": _one_of("linear", "kernel"),
        "kernel": _one_of("rbf", "poly", when={"model": "kernel"}),
        "degree": _int(2, 5, when={"kernel": "poly"}),
        "gamma": _float(1e-4, 10.0, log=True, when={"model": "kernel"}),
        "C": _float(1e-3, 1e3, log=True),
    },
    "steps": {"dropout": _float(0.0, 0.6, step=0.05), "width": _int(32, 1024, step=32), "patience": _int(1, 30)},
    "boosting": {
        "eta": _float(0.001, 0.5, log=True, default=0.3),
        "max_depth": _int(2, 14, default=6),
        "subsample": _float(0.3, 1.0),
        "colsample": _float(0.3, 1.0),
        "reg_lambda": _float(1e-3, 100.0, log=True),
    },
    "one": {"temperature": _float(0.05, 5.0)},
    "either side of zero": {"x": _float(-5.0, 10.0), "shift": _int(-100, 100), "scale": _float(1e3, 1e6, log=True)},
}  # fmt: skip


def holds(param: Param, value: object) -> bool:
    """Whether a value lies in a parameter's range or among its choices, type included; null where it may be inactive."""
    if value is None:
        return bool(param.when)
    if param.choices:
        return any(value == choice and type(value) is type(choice) for choice in param.choices)
    low, high = param.distribution.low, param.distribution.high  # type: ignore[attr-defined]
    whole = type(param.distribution).__name__ == "IntDistribution"
    return type(value) in ((int,) if whole else (int, float)) and low <= value <= high


def contexts(name: str, most: int) -> Iterator[Context]:
    """A study of this space after no, four, eight... trials with values that mean nothing."""
    space = SearchSpace.from_dict(SPACES[name])
    for trials in _TRIALS[:most]:
        rng = np.random.default_rng(trials)
        sampled = [Proposal(params, "random") for params in space.sample(rng, trials)]
        ended = tuple(Trial(i, p, Outcome("ok", float(rng.lognormal()))) for i, p in enumerate(sampled))
        yield Context(Task(f"tune a {name} model", "loss"), space, ended, 20, trials)


def _asked(context: Context) -> Question:
    ask = questions.propose if context.trials else questions.warmstart
    return ask(context, _N, reasons=False)


def tally_space(model: LocalModel, name: str, batches: int) -> Counter[str]:
    """What `batches` replies on one space held: replies, valid ones, configurations, those inside of all
    ranges and choices, proposals that the product made of them, what it would run, and what of that is wrong or repeated."""
    total: Counter[str] = Counter()
    each = min(_SIDE_BY_SIDE, batches)
    for i, context in enumerate(contexts(name, -(-batches // each))):
        question = _asked(context)
        messages = (Message("system", question.system), Message("user", question.user))
        schema = reply_schema(context.space, _N, reasons=False)
        request = Request(messages, schema, number=100 * i, max_tokens=900, deadline_s=3600.0)
        for text in model.complete_many(request, min(each, batches - total["replies"])).texts:
            total += _raw(text, context) + _taken(text, context, question) + Counter(replies=1)
    return total


def _raw(text: str, context: Context) -> Counter[str]:
    """What the reply itself holds, judged without the product's reader."""
    space = context.space
    try:
        batch = json.loads(text)["configurations"]
    except (ValueError, KeyError, TypeError):
        return Counter()
    whole = len(batch) == _N and all(list(one) == list(space.names) for one in batch)
    inside = sum(all(holds(p, one.get(p.name)) for p in space.params) for one in batch)
    return Counter(valid=int(whole), configurations=len(batch), inside=inside)


def _taken(text: str, context: Context, question: Question) -> Counter[str]:
    """The product's own path: what of the reply becomes a proposal, and what the portfolio would run."""
    consultant = Consultant(ScriptedModel([text]), caps=Caps())
    batch = consultant.consult(context, question)
    chosen = Portfolio(consultant).suggest(replace(context, batches=(batch,)), _N)
    own = [p.params for p in batch.proposals]
    run = [*own, *(p.params for p in chosen if p.params not in own)]
    space = context.space
    wrong = sum(not all(holds(p, params[p.name]) for p in space.params if space.is_active(p, params)) for params in run)
    tried = {space.key(t.params) for t in context.trials}  # random ones, which may repeat each other
    fresh = {space.key(params) for params in run} - tried
    return Counter(proposals=len(own), executed=len(run), wrong=wrong, repeated=len(run) - len(fresh))

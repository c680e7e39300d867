"""What a run of 25 trials in batches of 4 asks of its model, beside LLAMBO's discriminative protocol on the same tasks.

python -m evals.bench_tokens [--trials 25] [--tasks 'hpob/*'] [--no-llambo]

The model keeps to every schema, with reasons of a dozen words. It is measured twice: answering at random, for which it is asked ever
more rarely, and as an insider whose every proposal is better than the one before, which is asked as often as any. Tokens are counted with SmolLM2's tokenizer, which takes a token for each
digit: for hosted models, which take fewer, they are upper bounds. Money leaves out caches, and thoughts that are not shown.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tokenizers import Tokenizer

from evals.arms.base import Arm
from evals.arms.llambo import LlamboArm
from evals.arms.models import Meter
from evals.arms.optuna_arm import OptunaArm
from evals.run import first_configuration
from evals.tasks import MINI, Params, Task, load
from llmhpo import LLMSampler, Usage
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.prices import price_of
from llmhpo.llm.smollm2 import install
from llmhpo.usage import Price

MOST_REQUESTS, MOST_TOKENS = 8, 15_000  # that a run of 25 trials may take
_IDEAS = 60
_TEMPLATE_TOKENS = 4  # of a chat template, around each message
_REASON = "the values near the best trials did well, so this one stays close"
_PRICED = ("openai:gpt-5.4-mini", "openai:gpt-5-nano", "anthropic:claude-sonnet-5-5", "anthropic:claude-haiku-4-5")


class Chatter:
    """Answers any schema at random, and counts tokens. `shared` is the bill where replies to one prompt are one request."""

    compact = False
    overhead_tokens = 0
    name = "chatter"
    price: Price | None = None

    def __init__(self, seed: int, count: Tokenizer, ideas: Sequence[Params] = ()) -> None:
        self._ideas = list(ideas)  # the worst first
        self._rng, self._count = np.random.default_rng(seed), count
        self.shared = Usage()
        self._last: tuple[Message, ...] = ()

    def complete(self, request: Request) -> Completion:
        """A reply of the schema's form."""
        text = json.dumps(self._value(request.schema or {"type": "string"}))
        asked = sum(self.count_tokens(m.content) + _TEMPLATE_TOKENS for m in request.messages)
        answered = self.count_tokens(text)
        if request.messages != self._last:
            self.shared += Usage(1, asked)
        self.shared += Usage(0, 0, 0, answered)
        self._last = request.messages
        return Completion(text, Usage(1, asked, 0, answered), self.name)

    def count_tokens(self, text: str) -> int:
        """As SmolLM2 reads it."""
        return len(self._count.encode(text).ids)

    def close(self) -> None:
        """Nothing to release."""

    def _value(self, node: Any) -> Any:
        if "anyOf" in node:
            return self._value(self._rng.choice(node["anyOf"]))
        if "enum" in node:
            return node["enum"][int(self._rng.integers(len(node["enum"])))]
        match node.get("type"):
            case "object":
                return {name: self._value(one) for name, one in node.get("properties", {}).items()}
            case "array" if self._ideas and "why" in node["items"].get("properties", {}):
                keys = node["items"]["properties"]
                return [self._idea(keys) for _ in range(node["maxItems"])]
            case "array":
                return [self._value(node["items"]) for _ in range(min(node.get("maxItems", 2), 10))]
            case "integer":
                return int(self._rng.integers(node.get("minimum", 0), node.get("maximum", 1000) + 1))
            case "number":
                low, high = node.get("minimum", 0.0), node.get("maximum", 1.0)
                return float(f"{self._rng.uniform(low, high):.4g}")
            case "boolean":
                return bool(self._rng.integers(2))
            case "null":
                return None
            case _:
                return _REASON

    def _idea(self, keys: Any) -> Any:
        idea = self._ideas.pop(0) if len(self._ideas) > 1 else self._ideas[0]
        return {name: idea.get(name, _REASON if name == "why" else None) for name in keys}


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run asked of a model that answers at random, and of an insider."""

    task: str
    parameters: int
    random: Usage
    ours: Usage
    llambo: Usage | None


def measure(task: Task, trials: int, batch: int, count: Tokenizer, *, llambo: bool, seed: int = 0) -> Bill:
    """One run of llmhpo, in batches, and one of LLAMBO, which proposes one at a time."""
    spent = []
    for chatter in (Chatter(seed, count), Chatter(seed, count, _ideas(task, seed))):
        sampler = LLMSampler(
            Meter(chatter, task),
            task=task.words,
            search_space=task.space,
            metric=task.metric,
            n_trials=trials,
            seed=seed,
        )
        _drive(OptunaArm(task, sampler, "chatter", ordinals_as_integers=False), task, trials, batch, seed)
        spent.append(chatter.shared)
    other = None
    if llambo:
        partner = Chatter(seed, count)
        _drive(LlamboArm(task, Meter(partner, task), "disc", seed, trials), task, trials, 1, seed)
        other = partner.shared
    return Bill(task.id, len(task.space), spent[0], spent[1], other)


def _ideas(task: Task, seed: int) -> list[Params]:
    """Configurations of the task, each better than the one before."""
    found = task.space.sample(np.random.default_rng([seed, 7]), _IDEAS)
    values = [(value, k) for k, params in enumerate(found) if (value := task.evaluate(params).value) is not None]
    return [found[k] for _, k in sorted(values, reverse=task.direction == "minimize")]


def _drive(arm: Arm, task: Task, trials: int, batch: int, seed: int) -> None:
    arm.tell(None, task.evaluate(first_configuration(task, "unseeded", seed)))
    done = 1
    while done < trials:
        asked = [arm.ask() for _ in range(min(batch, trials - done))]
        for one in asked:
            arm.tell(one, task.evaluate(one.params))
        done += len(asked)


HEAD = f"{'task':<26s}{'params':>7s}{'requests':>10s}{'in':>9s}{'out':>8s}{'tokens':>9s}{'random':>9s}   LLAMBO: requests, tokens"


def row(bill: Bill) -> str:
    """A line of the table."""
    u, other = bill.ours, "" if bill.llambo is None else f"{bill.llambo.calls:>19,d}{bill.llambo.tokens:>12,d}"
    counts = f"{u.calls:>10d}{u.input_tokens:>9,d}{u.output_tokens:>8,d}{u.tokens:>9,d}{bill.random.tokens:>9,d}"
    return f"{bill.task[:25]:<26s}{bill.parameters:>7d}{counts}{other}"


def money(bills: Sequence[Bill]) -> list[str]:
    """Dollars for the mean run at today's prices."""
    ours = sum((b.ours for b in bills), Usage())
    others = [b.llambo for b in bills if b.llambo is not None]
    lines = []
    for name in _PRICED:
        price = price_of(name)
        assert price is not None, name
        line = f"{name:<32s}${price.usd(ours.input_tokens, ours.output_tokens) / len(bills):.4f} a run"
        if others:
            total = sum(others, Usage())
            line += f"   LLAMBO ${price.usd(total.input_tokens, total.output_tokens) / len(others):.2f}"
        lines.append(line)
    return lines


def tokenizer() -> Tokenizer:
    """SmolLM2's."""
    return Tokenizer.from_file(str(install(print) / "tokenizer.json"))


def main() -> int:
    """Print the tables; status 1 where a run of 25 trials passed its bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=MINI)
    parser.add_argument("--suite", default="mini")
    parser.add_argument("--tasks", default="*")
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--llambo", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    count = tokenizer()
    tasks = load(args.data, args.suite, pattern=args.tasks)
    bills: list[Bill] = []
    print(HEAD)
    for task in tasks:
        bills.append(measure(task, args.trials, args.batch, count, llambo=args.llambo))
        print(row(bills[-1]), flush=True)
    print("\n" + "\n".join(money(bills)))
    over = [b.task for b in bills for u in (b.ours, b.random) if u.calls > MOST_REQUESTS or u.tokens > MOST_TOKENS]
    print(f"\nover {MOST_REQUESTS} requests or {MOST_TOKENS:,} tokens: {', '.join(over) or 'none'}")
    return int(bool(over) and args.trials == 25)


if __name__ == "__main__":
    raise SystemExit(main())

"""What the local engine does on this machine: its figures, each with its bar.

    python -m evals engine                    # SmolLM2; about ten minutes of one CPU core
    python -m evals engine --model PATH --device cuda
    python -m evals engine --small            # a few tokens of everything: CI

On a CPU all times are CPU seconds of this process, one thread unless `--threads` says more: on a busy machine only those
can be compared. On a GPU they are wall-clock seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from evals.engine_batches import SPACES, tally_space
from evals.engine_prompts import CARD, prompt, question, rows
from llmhpo.llm.base import JSONSchema, Message, Request, closed_object
from llmhpo.llm.local import LocalModel
from llmhpo.llm.local.decode import draw
from llmhpo.llm.smollm2 import install
from llmhpo.usage import Usage

T = TypeVar("T")
GOOD = {"learning_rate": 0.0031, "hidden_units": 64, "dropout": 0.12}
_EXACT = ("100 %", "0 %", "<= 1e-4")  # bars that hold whatever the size and the machine
_LONG_S = 3600.0
_TEMPLATE_TOKENS = 12  # around a message, and what a row overshoots
_CONFIGURATION = closed_object(
    {
        "learning_rate": {"type": "number", "minimum": 1e-5, "maximum": 0.1},
        "hidden_units": {"type": "integer", "minimum": 16, "maximum": 256},
        "dropout": {"type": "number", "minimum": 0, "maximum": 0.6},
    }
)
SCHEMA = closed_object({"configurations": {"type": "array", "minItems": 4, "maxItems": 4, "items": _CONFIGURATION}})


class Figure(NamedTuple):
    """One line of the report; `holds` is None where there is no bar."""

    what: str
    found: str
    bar: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    rows: int = 20
    more_rows: int = 20
    reply_tokens: int = 96
    samples: int = 8
    candidates: int = 50
    prefix_tokens: int = 900
    alone: int = 4  # candidates that are scored without cache; the time of all is extrapolated from these
    batches: int = 20  # on each space
    spaces: int = len(SPACES)
    times: int = 3  # that reading is measured: neighbours on the machine slow some down


SMALL = Amount(
    rows=4,
    more_rows=4,
    reply_tokens=12,
    samples=2,
    candidates=4,
    prefix_tokens=150,
    alone=2,
    batches=2,
    spaces=2,
    times=1,
)


class Engine:
    """A model under measurement, and the clock that fits its device."""

    def __init__(self, path: str, device: str | None, dtype: str | None, threads: int | None) -> None:
        self.model = LocalModel(path, name="engine", device=device, dtype=dtype, threads=threads)
        self.ask(prompt(0), 2, SCHEMA)
        self.loaded, self._prefixes = self.model._load()
        self.on_cpu = self.loaded.device == "cpu"

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and the seconds that it took."""
        clock = time.process_time if self.on_cpu else time.perf_counter
        start = clock()
        return work(), clock() - start

    def ask(self, messages: tuple[Message, ...], tokens: int, schema: JSONSchema | None = None, n: int = 1) -> Usage:
        """What `n` replies side by side cost."""
        request = Request(messages, schema, 0, tokens, deadline_s=_LONG_S)
        return self.model.complete_many(request, n).usage

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def logits(self, ids: Sequence[int], keep: int) -> torch.Tensor:
        """As plain transformers computes them, without a cache: the last `keep`."""
        with torch.inference_mode():
            tokens = torch.tensor([list(ids)], device=self.loaded.device)
            logits: torch.Tensor = self.model._model(input_ids=tokens, use_cache=False, logits_to_keep=keep).logits[0]
        return logits.float()


def prefill(engine: Engine, amount: Amount) -> list[Figure]:
    """The second request of a run, with more rows of history, against the same one cold."""
    more = amount.more_rows
    again = second_request(engine, prompt(amount.rows), prompt(amount.rows + more), amount.times)
    own = questions_of_a_run(engine, [question(n) for n in range(4, 4 + amount.rows + more, 4)])
    return [
        Figure("prompt read cold", f"{again.tokens} tokens, {again.tokens / again.cold_s:.0f} tokens/s"),
        Figure("prompt without any trial", f"{len(engine.tokens(prompt(0)[0].content))} tokens"),
        Figure(f"second request, {more} rows more, against cold", str(again), "<= 0.35", again.share <= 0.35),
        Figure("the questions of a study, each 4 trials after the one before", str(own)),
    ]


class Again(NamedTuple):
    """What a request costs that follows another: `new` of its `tokens` are read; CPU seconds with and without the other."""

    tokens: int
    new: int
    warm_s: float
    cold_s: float

    @property
    def share(self) -> float:
        """Of the cold request's time."""
        return self.warm_s / self.cold_s

    def __str__(self) -> str:
        """In words."""
        return f"{self.share:.2f} ({self.new} of {self.tokens} tokens are read)"


def second_request(engine: Engine, first: tuple[Message, ...], second: tuple[Message, ...], times: int) -> Again:
    """Measure `second` after `first`, and cold; the best of each."""
    colds, warms, used = [], [], Usage()
    for _ in range(times):
        engine.model.release()
        colds.append(engine.timed(lambda: engine.ask(second, 1))[1])
        engine.model.release()
        engine.ask(first, 1)
        used, seconds = engine.timed(lambda: engine.ask(second, 1))
        warms.append(seconds)
    return Again(used.input_tokens, used.input_tokens - used.cached_tokens, min(warms), min(colds))


def questions_of_a_run(engine: Engine, asked: Sequence[tuple[Message, ...]]) -> Again:
    """All questions but the first in their order, and each of them cold."""
    engine.model.release()
    engine.ask(asked[0], 1)
    warm = [engine.timed(partial(engine.ask, one, 1)) for one in asked[1:]]
    cold_s = 0.0
    for one in asked[1:]:
        engine.model.release()
        cold_s += engine.timed(partial(engine.ask, one, 1))[1]
    used = sum((usage for usage, _ in warm), Usage())
    return Again(used.input_tokens, used.input_tokens - used.cached_tokens, sum(s for _, s in warm), cold_s)


def writing(engine: Engine, amount: Amount) -> list[Figure]:
    """Replies one by one and side by side, free and held to a schema; the prompt is in the cache."""
    asked, n = prompt(amount.rows), amount.samples
    speeds: dict[tuple[str, str], float] = {}
    for manner, schema in (("free", None), ("schema", SCHEMA)):
        engine.ask(asked, 1, schema)
        ask = partial(engine.ask, asked, amount.reply_tokens, schema)
        alone = [engine.timed(ask) for _ in range(3)]
        together, seconds = engine.timed(partial(ask, n))
        speeds[manner, "alone"] = sum(u.output_tokens for u, _ in alone) / sum(s for _, s in alone)
        speeds[manner, "beside"] = together.output_tokens / seconds
    free, held = (speeds[manner, "alone"] for manner in ("free", "schema"))
    beside, held_beside = (speeds[manner, "beside"] for manner in ("free", "schema"))
    grammar_s, draw_s = _grammar_cost(engine)
    share = max(0.0, grammar_s - draw_s) * free
    plain, bound = _plain(engine, amount)
    return [
        Figure("one reply, free", f"{free:.1f} tokens/s"),
        Figure("transformers' generate, same prompt", f"{plain:.1f} tokens/s", "ours is no slower", free >= 0.95 * plain),
        Figure("bound by memory bandwidth", f"{bound:.0f} tokens/s ({free / bound:.0%} of it)"),
        Figure("one reply, held to a schema", f"{held:.1f} tokens/s ({held / free - 1:+.0%})", ">= -5 %", held >= 0.95 * free),
        Figure(
            "what the grammar adds to a token that is drawn",
            f"{share:.1%} ({1000 * grammar_s:.2f} ms, a free draw {1000 * draw_s:.2f} ms)",
            "<= 5 %",
            share <= 0.05,
        ),
        Figure(f"{n} replies side by side, free", f"{beside:.1f} tokens/s ({beside / free:.1f} x)", "> 1 x", beside > free),
        Figure(f"{n} replies, held to a schema", f"{held_beside:.1f} tokens/s ({held_beside / held:.1f} x)", "> 1 x", held_beside > held),
    ]  # fmt: skip


def _grammar_cost(engine: Engine) -> tuple[float, float]:
    """Seconds that grammar and draw take for a token that is drawn, and what a free draw takes."""
    rng, logits = np.random.default_rng(0), np.zeros(engine.loaded.vocabulary, dtype=np.float32)
    reply = engine.tokens(json.dumps({"configurations": [GOOD] * 4}, separators=(",", ":")))

    def walk() -> int:
        grammar, drawn = engine.loaded.grammar(SCHEMA), 0
        said: list[int] = []
        while not grammar.ended and len(said) < len(reply):
            said += grammar.forced()
            if len(said) >= len(reply):
                break
            draw(logits, allowed := grammar.allowed(said), 1.0, rng)
            token = reply[len(said)] if len(said) < len(reply) and reply[len(said)] in allowed else int(allowed[0])
            grammar.say(token)
            said.append(token)
            drawn += 1
        return drawn

    walk()
    drawn, held_s = engine.timed(walk)
    _, free_s = engine.timed(lambda: [draw(logits, None, 1.0, rng) for _ in range(drawn)])
    return held_s / drawn, free_s / drawn


def _plain(engine: Engine, amount: Amount) -> tuple[float, float]:
    """Tokens a second of transformers' own loop, and what reading all weights once a token would allow."""
    model, n = engine.model._model, amount.reply_tokens
    ids = torch.tensor([engine.tokens(prompt(amount.rows)[0].content)], device=engine.loaded.device)
    form = {"attention_mask": torch.ones_like(ids), "do_sample": True, "pad_token_id": 0, "min_new_tokens": n}
    with torch.inference_mode():
        _, one_s = engine.timed(lambda: model.generate(ids, max_new_tokens=1, **(form | {"min_new_tokens": 1})))
        _, all_s = engine.timed(lambda: model.generate(ids, max_new_tokens=n, **form))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    block = torch.ones(1 << 28, dtype=torch.uint8, device=engine.loaded.device)
    other = block.clone()  # pages that were touched before
    _, copy_s = engine.timed(lambda: int(other.copy_(block)[-1]))
    return (n - 1) / (all_s - one_s), 2 * block.numel() / copy_s / weights


def scoring(engine: Engine, amount: Amount) -> list[Figure]:
    """Given candidates after a shared prefix, against one by one without cache, in float32."""
    card = next(
        text for n in count() if len(engine.tokens(text := CARD + rows(n))) >= amount.prefix_tokens - _TEMPLATE_TOKENS
    )
    request = Request((Message("user", card),), deadline_s=_LONG_S)
    texts = [candidate(i) for i in range(amount.candidates)]
    cold, warm = [], []
    for _ in range(2):  # the best of each: neighbours on the machine slow some down
        engine.model.release()
        scores, seconds = engine.timed(lambda: engine.model.score(request, texts))
        cold.append(seconds)
        warm.append(engine.timed(lambda: engine.model.score(request, texts))[1])
    start = engine.model._prompt(request, engine.loaded).ids
    few = np.linspace(0, len(texts) - 1, amount.alone).astype(int)
    worst, alone = 0.0, []
    for k in few:
        own = engine.tokens(texts[k])
        logits, seconds = engine.timed(partial(engine.logits, [*start, *own[:-1]], len(own)))
        alone.append(seconds)
        found = logits.log_softmax(-1)[range(len(own)), own].cpu().numpy()
        worst = max(worst, float(np.abs(found - scores.tokens[k]).max()))
    gain = min(alone) * len(texts) / min(cold)
    length = len(engine.tokens(texts[0]))
    return [
        Figure(
            f"{len(texts)} candidates of {length} tokens after {len(start)}, against one by one without cache",
            f"{gain:.1f} x ({min(cold):.1f} s; with the prefix read before {min(warm):.1f} s)",
            ">= 10 x",
            gain >= 10,
        ),
        Figure("largest difference of a log-probability, float32", f"{worst:.1e}", "<= 1e-4", worst <= 1e-4),
    ]


def candidate(i: int) -> str:
    """A configuration as JSON."""
    rng = np.random.default_rng(1000 + i)
    one = {
        "learning_rate": round(float(10 ** rng.uniform(-5, -1)), 6),
        "hidden_units": int(rng.integers(16, 256)),
        "optimizer": str(rng.choice(["adam", "sgd"])),
        "dropout": round(float(rng.random()), 3),
        "momentum": round(float(rng.random()), 3),
        "batch_size": int(rng.choice([16, 32, 64])),
    }
    return json.dumps(one)


def replies(engine: Engine, amount: Amount, say: Callable[[str], None]) -> list[Figure]:
    """Batches on different spaces, and what of them reaches the executor."""
    total: Counter[str] = Counter()
    for name in list(SPACES)[: amount.spaces]:
        found = tally_space(engine.model, name, amount.batches)
        say(f"  {name}: {dict(found)}")
        total += found
    n, all_ = total["replies"], total["configurations"]
    return [
        Figure(f"valid replies, {n} on {amount.spaces} spaces", _share(total["valid"], n), "100 %", total["valid"] == n),
        Figure("configurations in bounds", _share(total["inside"], all_), "100 %", total["inside"] == all_ > 0),
        Figure("configurations that are new and complete", _share(total["proposals"], all_)),
        Figure("out of bounds among what reaches the executor", _share(total["wrong"], total["executed"]), "0 %", not total["wrong"]),
        Figure("repeats among what reaches the executor", _share(total["repeated"], total["executed"]), "0 %", not total["repeated"]),
    ]  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.0%} ({part} of {whole})"


def measure(
    path: str, amount: Amount, *, device: str | None, dtype: str | None, threads: int | None, say: Callable[[str], None]
) -> list[Figure]:
    """All figures; `say` gets each as soon as it is known."""
    found: list[Figure] = []

    def add(figures: list[Figure]) -> None:
        for figure in figures:
            if amount is SMALL and figure.bar not in _EXACT:
                figure = figure._replace(bar="", holds=None)
            found.append(figure)
            verdict = "" if figure.holds is None else f"   bar {figure.bar}: {'holds' if figure.holds else 'MISSED'}"
            say(f"{figure.what}: {figure.found}{verdict}")

    engine = Engine(path, device, dtype, threads)
    say(f"{engine.model.describe()}; {about()}")
    exact = Engine(path, device, "float32", threads)
    add(scoring(exact, amount))
    exact.model.close()
    for part in (prefill, writing):
        add(part(engine, amount))
    add(replies(engine, amount, say))
    engine.model.close()
    return found


def about() -> str:
    """Versions and machine."""
    names = ("torch", "transformers", "llguidance")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"Python {platform.python_version()}, {versions}; {platform.machine()}{gpu}"


def main(args: argparse.Namespace) -> int:
    """Print all figures; 1 where a bar is missed."""
    path = args.model or str(install(print))
    amount = SMALL if args.small else replace(Amount(), batches=args.batches)
    options = {"device": args.device, "dtype": args.dtype, "threads": args.threads}
    found = measure(path, amount, **options, say=lambda line: print(line, flush=True))
    return int(any(figure.holds is False for figure in found))

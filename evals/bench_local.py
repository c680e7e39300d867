"""How fast a local model reads and writes here, and what share of its replies hold.

    python -m evals.bench_local [--model PATH] [--threads 1] [--dtype bfloat16] [--batches 3]

The space is made up: nine parameters, four configurations to a reply, a prompt of about a thousand tokens. Two forms of
the same reply are compared: objects with keys, and bare rows of values in the order of the parameters.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence

from llmhpo.llm.base import Completion, JSONSchema, Message, Request
from llmhpo.llm.local import LocalModel
from llmhpo.llm.smollm2 import install

Value = dict[str, object]
PARAMS: Mapping[str, Value] = {
    "learning_rate": {"type": "number", "minimum": 1e-5, "maximum": 0.1},
    "weight_decay": {"type": "number", "minimum": 1e-8, "maximum": 0.01},
    "optimizer": {"enum": ["adam", "sgd", "rmsprop"]},
    "momentum": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 0.99}, {"type": "null"}]},
    "hidden_units": {"type": "integer", "minimum": 16, "maximum": 256},
    "num_layers": {"type": "integer", "minimum": 1, "maximum": 4},
    "dropout": {"type": "number", "minimum": 0, "maximum": 0.6},
    "batch_size": {"enum": [16, 32, 64, 128]},
    "activation": {"enum": ["relu", "gelu", "tanh"]},
}
_GOOD = (0.003, 0.0001, "adam", None, 64, 2, 0.1, 32, "relu")
_N = 4


def objects_schema(*, why: bool) -> JSONSchema:
    properties = ({"why": {"type": "string", "maxLength": 60}} if why else {}) | dict(PARAMS)
    item = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return _batch(item)


def rows_schema() -> JSONSchema:
    n = len(PARAMS)
    item = {"type": "array", "prefixItems": list(PARAMS.values()), "items": False, "minItems": n, "maxItems": n}
    return _batch(item)


def _batch(item: Mapping[str, object]) -> JSONSchema:
    configurations = {"type": "array", "minItems": _N, "maxItems": _N, "items": item}
    return {
        "type": "object",
        "properties": {"configurations": configurations},
        "required": ["configurations"],
        "additionalProperties": False,
    }


def prompt(trials: int, *, rows: bool) -> tuple[Message, ...]:
    """A task, a space and a table of `trials` lines."""
    card = "\n".join(f"- {name}: {json.dumps(value)}" for name, value in PARAMS.items())
    lines = []
    for i in range(trials):
        row = [round(0.001 * (i + 1), 4), 1e-4, *_GOOD[2:4], 32 + 8 * i, *_GOOD[5:]]
        lines.append(f"{i}: {json.dumps(row)} accuracy={0.9 + 0.003 * i:.4f}")
    form = list(_GOOD) if rows else dict(zip(PARAMS, _GOOD, strict=True))
    text = (
        "Task: a small network on 1,797 images of digits; maximize accuracy on held-out images.\n"
        f"Parameters:\n{card}\nTrials:\n" + "\n".join(lines) + f"\nPropose {_N} new configurations that differ from "
        f"each other, as JSON of this form: {json.dumps({'configurations': [form]})}"
    )
    return (Message("system", "You tune the hyperparameters of training jobs."), Message("user", text))


def holds(completion: Completion) -> tuple[int, int]:
    """Configurations in a reply that are complete and in bounds, and those that repeat another."""
    try:
        batch = json.loads(completion.text)["configurations"]
    except (ValueError, KeyError, TypeError):
        return 0, 0
    rows = [list(c) if isinstance(c, list) else [c.get(name) for name in PARAMS] for c in batch]
    good = [r for r in rows if len(r) == len(PARAMS) and all(map(_in_bounds, PARAMS.values(), r))]
    return len(good), len(good) - len({json.dumps(r) for r in good})


def _in_bounds(schema: Value, value: object) -> bool:
    if "anyOf" in schema:
        options = schema["anyOf"]
        assert isinstance(options, list)
        return any(_in_bounds(option, value) for option in options)
    if "enum" in schema:
        choices = schema["enum"]
        assert isinstance(choices, list)
        return value in choices
    if schema["type"] == "null":
        return value is None
    low, high = schema["minimum"], schema["maximum"]
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    return isinstance(value, int if schema["type"] == "integer" else (int, float)) and low <= value <= high


def timed(work: Callable[[], Completion]) -> tuple[Completion, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder, .gguf file or hub id; default: the embedded model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8, help="lines of history in the prompt")
    parser.add_argument("--temperature", type=float)
    options = parser.parse_args(arguments)
    path = options.model or str(install(print))
    model = LocalModel(path, name="bench", device=options.device, dtype=options.dtype, threads=options.threads)
    print(model.describe())
    _, load_s = timed(lambda: model.complete(Request((Message("user", "Hello"),), max_tokens=1)))
    print(f"load and first token: {load_s:.1f} s")

    cold, prefill_s = timed(lambda: model.complete(Request(prompt(options.trials, rows=False), max_tokens=1)))
    print(f"prefill: {cold.usage.input_tokens} tokens, {cold.usage.input_tokens / prefill_s:.0f} tok/s")
    story = Request((Message("user", "Tell a long story about a harbour."),), max_tokens=60)
    free, free_s = timed(lambda: model.complete(story))
    print(f"decode, free: {free.usage.output_tokens / free_s:.1f} tok/s")

    forms = (
        ("objects", objects_schema(why=False)),
        ("objects with why", objects_schema(why=True)),
        ("rows", rows_schema()),
    )
    for name, schema in forms:
        messages = prompt(options.trials, rows=name == "rows")
        model.complete(Request(messages, schema, max_tokens=1))  # the prompt is in the cache from here on
        requests = [Request(messages, schema, i, 900, options.temperature) for i in range(options.batches)]
        replies = [model.complete(request) for request in requests]
        tokens, seconds = sum(r.usage.output_tokens for r in replies), sum(r.seconds for r in replies)
        counts = [holds(r) for r in replies]
        asked = _N * len(replies)
        print(
            f"{name}: {seconds / len(replies):.1f} s and {tokens / len(replies):.0f} tokens a reply of {_N}, "
            f"{tokens / seconds:.1f} tok/s, in bounds {sum(g for g, _ in counts)} of {asked}, "
            f"repeats {sum(r for _, r in counts)}, cut {sum(r.finish == 'length' for r in replies)}"
        )
    model.close()


if __name__ == "__main__":
    main()

"""Knowledge cards: what the literature says about the parameters of a kind of model, each with its source.

A card is a Markdown file in `llmhpo/prompts/cards/` with YAML front matter: `title`, `source`, `words` to be found by, and, where
there are any, `ranges` of parameters and a formula (`inputs`, `outputs` as arithmetic expressions, and what it `holds` for).
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from llmhpo.errors import ConfigError
from llmhpo.prompts import rough_tokens

if TYPE_CHECKING:
    from bm25s import BM25

_WORD = re.compile(r"[a-z0-9]+")
_ENDINGS = re.compile(r"(?<=[a-z]{3})(?:ing|ed|es|s)$")
_TITLE_WEIGHT, _WORDS_WEIGHT = 2, 3  # a card's own words say more of what it is about than its text
_LEAST_SHARE = 0.35  # of the best card's score: below, the task is about something else
_SAY_NOTHING = frozenset(
    ["tune", "tuning", "train", "training", "model", "small", "large", "data", "good", "best", "set", "use"]
)

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "sqrt": math.sqrt, "log": math.log}


@dataclass(frozen=True, slots=True)
class Card:
    """One card. `inputs` maps the formula's inputs to what they mean, `outputs` its results to their expressions.

    `ranges` maps a parameter to its usual range, as in a `[space.NAME]` table without a type; `default` is the library's own.
    """

    name: str
    title: str
    source: str
    words: tuple[str, ...]
    text: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    holds: str = ""
    ranges: Mapping[str, Mapping[str, float | bool]] = field(default_factory=dict)

    def evaluate(self, values: Mapping[str, float]) -> dict[str, float]:
        """The formula's results, by name. All are finite.

        Raises: ConfigError where an input is missing, unknown or no positive number, and where the card has no formula.
        """
        if not self.outputs:
            raise ConfigError(f"card {self.name!r} has no formula; those with one: {', '.join(formulas())}")
        for name, value in values.items():
            if name not in self.inputs:
                raise ConfigError(f"{name!r} is not an input of {self.name!r}; its inputs are: {self._inputs()}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r} is not a positive number; {name} is: {self.inputs[name]}")
        if missing := [name for name in self.inputs if name not in values]:
            raise ConfigError(f"{self.name!r} needs {', '.join(missing)} too; its inputs are: {self._inputs()}")
        try:
            found = {name: _value(ast.parse(text, mode="eval").body, values) for name, text in self.outputs.items()}
        except (ArithmeticError, ValueError):
            found = {}
        if not found or not all(isinstance(v, float | int) and math.isfinite(v) for v in found.values()):
            raise ConfigError(f"{self.name!r} has no finite value at {dict(values)!r}; it holds for: {self.holds}")
        return found

    def _inputs(self) -> str:
        return "; ".join(f"{name} ({meaning})" for name, meaning in self.inputs.items())


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    """An expression of numbers, inputs, + - * / **, min, max, sqrt and log."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _FUNCTIONS[name](*(_value(a, values) for a in args))
    raise AssertionError(f"a card's formula has {ast.unparse(node)!r}")


@cache
def cards() -> Mapping[str, Card]:
    """All cards of the package, by name."""
    folder = resources.files("llmhpo.prompts").joinpath("cards")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    read = [_read(f.name.removesuffix(".md"), f.read_text(encoding="utf-8")) for f in files]
    return {card.name: card for card in read}


def _read(name: str, text: str) -> Card:
    import yaml

    _, head, body = text.split("---\n", 2)
    front: dict[str, Any] = yaml.safe_load(head)
    return Card(name=name, text=body.strip(), **front | {"words": tuple(front["words"])})


def formulas() -> tuple[str, ...]:
    """The names of the cards that can be evaluated."""
    return tuple(card.name for card in cards().values() if card.outputs)


def find_cards(words: str, *, most: int = 3) -> list[Card]:
    """The cards that a task's words are about, best first; [] where none is.

    Source: BM25 (Robertson and Zaragoza 2009), by the library bm25s.
    """
    index, own = _index()
    asked = [word for word in _stems(words) if word in index.vocab_dict]
    about = [name for name, stems in own.items() if not stems.isdisjoint(asked)]
    if not about:
        return []
    scores = dict(zip(own, index.get_scores(asked).tolist(), strict=True))
    ranked = sorted(about, key=lambda name: (-scores[name], name))
    return [cards()[name] for name in ranked[:most] if scores[name] >= _LEAST_SHARE * scores[ranked[0]]]


def knowledge(words: str, max_tokens: int) -> str:
    """What the cards say about a task, in whole lines of at most `max_tokens` in all; "" where nothing fits."""
    lines: list[str] = []
    for card in find_cards(words):
        head = f"{card.title} ({card.source}):"
        body = [head, *card.text.splitlines()]
        for count in range(len(body), 1, -1):
            if rough_tokens("\n".join([*lines, *body[:count]])) <= max_tokens:
                lines += body[:count]
                break
    return "\n".join(lines)


@cache
def _index() -> tuple[BM25, Mapping[str, frozenset[str]]]:
    """The index, and by card the words that say what it is about."""
    from bm25s import BM25

    texts = [
        " ".join([card.title] * _TITLE_WEIGHT + list(card.words) * _WORDS_WEIGHT + list(card.ranges) + [card.text])
        for card in cards().values()
    ]
    index = BM25()
    index.index([_stems(text) for text in texts], show_progress=False)
    return index, {name: frozenset(_stems(" ".join(card.words))) for name, card in cards().items()}


def _stems(text: str) -> list[str]:
    from bm25s.stopwords import STOPWORDS_EN

    words = (word for word in _WORD.findall(text.lower()) if word not in STOPWORDS_EN and word not in _SAY_NOTHING)
    return [_ENDINGS.sub("", word) for word in words]

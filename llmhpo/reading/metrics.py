"""Metrics that a script is seen to print, or that stand in its output: names and patterns to choose from, never a choice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmhpo.reading.base import Place, Source
from llmhpo.reading.values import dotted

_NUMBER = (
    r"[-+]?(?:\d*\.?\d+(?:[eE][-+]?\d+)?|nan|inf)"  # nan too: a run that diverged must not count with an earlier value
)
_METRIC = re.compile(
    r"(?:loss|acc|accuracy|error|err|auc|auroc|roc|f1|precision|recall|rmse|mse|mae|mape|r2|score|reward|return|perplexity|ppl|bpc|bpb"
    r"|bleu|rouge\w*|wer|cer|iou|miou|dice|map|ndcg|mrr|kappa|mcc|logloss|nll|elbo|fid|psnr|ssim|wasserstein|distance|throughput)"
)
_WORDS = r"[A-Za-z][A-Za-z0-9_@%/-]*(?: [A-Za-z][A-Za-z0-9_@%/-]*){0,2}"
_SHOWN = re.compile(
    rf"(?P<name>{_WORDS})[\"']?(?:\s*[:=]\s*|\s+(?:is\s+|of\s+)?)(?P<number>{_NUMBER})(?![\w.]*[A-Za-z])"
)
_BEFORE = re.compile(rf"(?P<name>{_WORDS})[\"']?\s*(?:[:=]|is|of)?\s*$")
_PRINTS = ("print", "echo", "info", "debug", "warning", "write", "log", "secho", "success")
_MOST = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """A number that a job shows under a name. `pattern` is the metric_pattern that reads it, "" where the job hands it in itself.

    `where` is its place in the code, None for what was seen in the output; `value` is the last number that was seen.
    """

    name: str
    pattern: str
    where: Place | None = None
    value: float | None = None


def is_metric(name: str) -> bool:
    """Whether one of the words of a name is that of a metric: "val_loss", "Test accuracy"."""
    return any(_METRIC.fullmatch(word) for word in re.split(r"[^a-z0-9]+", name.lower()))


def same_name(first: str, second: str) -> bool:
    """Whether two spellings mean one metric: "val loss" and "val_loss"."""
    return _plain(first) == _plain(second)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def pattern_of(name: str) -> str:
    """The metric_pattern that finds the number behind a name in an output: "name 1", "name: 1", "name=1", "'name': 1", "name is 1"."""
    return rf"(?<!\w){re.escape(name)}(?: is| of)?\W{{1,4}}?({_NUMBER})".replace("\\ ", " ")


def find_metric(shown: Sequence[Shown], name: str) -> Shown | None:
    """The one that the person calls `name`: the same name, else the only one that ends in it ("final accuracy" for "accuracy").

    What is measured on the training data is no metric that goes by a shorter name.
    """
    if (same := next((s for s in shown if same_name(s.name, name)), None)) is not None:
        return same
    longer = {
        _plain(s.name): s for s in shown if not re.search("(?<![a-z])train", s.name.lower()) and _ending(s.name, name)
    }
    return next(iter(longer.values())) if len(longer) == 1 else None


def _ending(words: str, name: str) -> str | None:
    """The last of the words that together spell `name`; None where they do not."""
    parts = re.split(r"(?<=[^A-Za-z0-9])", words)
    endings = ("".join(parts[at:]) for at in range(len(parts)))
    return next((e for e in endings if _plain(name) and same_name(e, name)), None)


def shown_in(output: str, asked: str = "") -> tuple[Shown, ...]:
    """The metrics in an output, each with its last value, the last ones first; `asked` is one by the person's word alone."""
    found: dict[str, Shown] = {}
    for match in _SHOWN.finditer(output):
        name = _metric_words(match["name"]) or _ending(match["name"], asked)
        if name is not None:
            found.pop(name, None)
            found[name] = Shown(name, pattern_of(name), value=float(match["number"]))
    return tuple(found.values())[::-1][:_MOST]


def _metric_words(words: str) -> str | None:
    """Of words before a number, those from the first on that make sense before the metric: "step val loss" is "val loss"."""
    parts = re.sub(r" (is|of)$", "", words).split(" ")
    if not is_metric(parts[-1]):
        return None
    start = len(parts) - 1
    while start > 0 and re.fullmatch(
        r"(?i)(val(id|idation)?|test|train(ing)?|eval|dev|best|final|cv|mean|oof|episodic)", parts[start - 1]
    ):
        start -= 1
    return " ".join(parts[start:])


def read_metrics(source: Source) -> tuple[Shown, ...]:
    """The metrics that the code of a script prints or hands in, in the order of the text."""
    found: dict[str, Shown] = {}
    calls = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    for call in sorted(calls, key=lambda c: (c.lineno, c.col_offset)):
        last = dotted(call.func).rpartition(".")[2] or getattr(call.func, "attr", "")
        if dotted(call.func) in ("job.result", "llmhpo.job.result"):
            for name in _keys(call):
                found.setdefault(name, Shown(name, "", source.place(call.lineno)))
        elif last in _PRINTS:
            for text in _texts(call):
                if (match := _BEFORE.search(text)) and (said := _metric_words(match["name"])) is not None:
                    found.setdefault(said, Shown(said, pattern_of(said), source.place(call.lineno)))
    return tuple(found.values())[:_MOST]


def _keys(call: ast.Call) -> Iterator[str]:
    for table in (a for a in call.args if isinstance(a, ast.Dict)):
        for key in table.keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value


def _texts(call: ast.Call) -> Iterator[str]:
    """The texts that stand before a value: in f-strings, before a %-form, before the next argument, keys of a printed table."""
    for at, arg in enumerate(call.args):
        if isinstance(arg, ast.BinOp) and isinstance(arg.op, ast.Mod):
            arg = arg.left
        elif isinstance(arg, ast.Call) and isinstance(arg.func, ast.Attribute) and arg.func.attr == "format":
            arg = arg.func.value
        if isinstance(arg, ast.JoinedStr):
            for before, value in zip(arg.values, arg.values[1:], strict=False):
                if isinstance(before, ast.Constant) and isinstance(value, ast.FormattedValue):
                    yield str(before.value)
        elif isinstance(arg, ast.Constant) and isinstance(arg.value, str):
            pieces = re.split(r"%[-+ #0-9.]*[dfegs]|\{[^{}]*\}", arg.value)
            yield from pieces[:-1]
            if len(pieces) == 1 and at + 1 < len(call.args):
                yield pieces[0]
        elif isinstance(arg, ast.Dict):
            yield from (k.value for k in arg.keys if isinstance(k, ast.Constant) and isinstance(k.value, str))

"""What the model is shown of space and trials: text of a bounded size, the same for 5 trials and for 5,000."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from llmhpo.param import Param, ParamValue
from llmhpo.prompts import as_line, rough_tokens
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import Context, Trial

_DOC_CHARS = 60
_TABLE_DIGITS = 3  # a digit is a token for many tokenizers
_REASON_CHARS = 50


def show_number(value: float, digits: int = 4) -> str:
    """At most so many significant digits, and no exponent where plain digits are short."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits}g}"


def show_value(value: ParamValue, digits: int = 4) -> str:
    """A parameter value as it stands in a table."""
    return show_number(value, digits) if isinstance(value, float) else as_line(str(value), 40)


def space_card(space: SearchSpace, max_tokens: int = 450) -> str:
    """One line a parameter: name, range, unit, default, condition, doc. Docs go first where room is short."""
    for doc_chars in (_DOC_CHARS, 30, 0):
        text = "\n".join(_param_line(p, doc_chars) for p in space.params)
        if rough_tokens(text) <= max_tokens:
            break
    return text


def _param_line(param: Param, doc_chars: int) -> str:
    if param.choices:
        shown = [as_line(str(c), 40) for c in param.choices[:30]] + (["..."] if len(param.choices) > 30 else [])
        text = ("ordered: " if param.ordered else "one of: ") + ", ".join(shown)
    else:
        text = param.describe_range().removeprefix("a ").removeprefix("an ")
    parts = [f"- {param.name}: {text}"]
    if param.unit:
        parts.append(f" [{as_line(param.unit, 20)}]")
    if param.default is not None:
        parts.append(f", default {show_value(param.default)}")
    if param.when:
        parts.append(f", only if {' and '.join(str(w) for w in param.when)}")
    if param.doc and doc_chars:
        parts.append(f"; {as_line(param.doc, doc_chars)}")
    return "".join(parts)


def summary(context: Context) -> str:
    """Counts in words: "12 finished, 1 failed, 2 running"."""
    counts = [("finished", len(context.finished)), ("failed", len(context.failed)), ("running", len(context.pending))]
    return ", ".join(f"{n} {what}" for what, n in counts if n or what == "finished")


def history_table(context: Context, *, max_tokens: int, sensitivities: Mapping[str, float] | None = None) -> str:
    """The trials that matter, a row each under one header, in about `max_tokens` tokens.

    In order of claim to the room: the best 3, the running ones, the last 2 failures, the next best, the latest. What is
    left out is said. `sensitivities` (share of each parameter in the surrogate's eyes) add a line.
    """
    names = context.space.names
    head = ", ".join(["value", *names])
    ranked = sorted(context.finished, key=lambda t: context.task.loss(t.value if t.value is not None else math.inf))
    latest = sorted(ranked[3:], key=lambda t: -t.number)[:3]
    wanted = [*ranked[:3], *context.pending[-4:], *context.failed[-2:], *ranked[3:6], *latest, *ranked[6:10]]
    note = _sensitivity_line(sensitivities or {})
    room = max_tokens - rough_tokens(head) - rough_tokens(note) - 10
    chosen: dict[int, str] = {}
    for trial in wanted:
        row = _row(trial, names)
        cost = rough_tokens(row) + 1
        if trial.number not in chosen and (room >= cost or not chosen):
            chosen[trial.number] = row
            room -= cost
    order = [*ranked, *context.pending, *context.failed]
    rows = [chosen[t.number] for t in order if t.number in chosen]
    left_out = len(context.trials) - len(rows)
    more = [f"({left_out} more trials not shown)"] if left_out else []
    return "\n".join([head, *rows, *more, *([note] if note else [])])


def _row(trial: Trial, names: Sequence[str]) -> str:
    if trial.outcome is None:
        value = "running"
    elif trial.outcome.value is not None:
        value = show_number(trial.outcome.value)
    else:
        reason = as_line(trial.outcome.message, _REASON_CHARS)
        value = trial.outcome.status.upper() + (f" ({reason})" if reason else "")
    return ", ".join(
        [value, *(show_value(trial.params[n], _TABLE_DIGITS) if n in trial.params else "-" for n in names)]
    )


def _sensitivity_line(sensitivities: Mapping[str, float]) -> str:
    top = sorted(sensitivities.items(), key=lambda item: -item[1])[:4]
    shown = [f"{name} {share:.0%}" for name, share in top if share >= 0.05]
    return f"Effect on the value so far: {', '.join(shown)}" if shown else ""


def one_line(params: Params, names: Iterable[str] | None = None) -> str:
    """A configuration on one line: "lr=0.01 optimizer=sgd"."""
    return " ".join(f"{n}={show_value(params[n])}" for n in (names or params) if n in params)

"""What the model is shown of space and trials: text of a bounded size, the same for 5 trials and for 5,000."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from llmhpo.param import UNSET, Param, ParamValue, When
from llmhpo.prompts import as_json, as_line, escape, rough_tokens
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import Context, Task, Trial

_TABLE_DIGITS = 3  # a digit is a token for many tokenizers
_REASON_CHARS = 50
_REASON_TOKENS = 20
_MOST_NAME_TOKENS = 120  # of all names together, that they are repeated in
_NOTE_TOKENS = 12  # of the line that says how many rows are left out
_LEAST_VALUE = 6  # tokens of a choice in a row
_BEST = 4  # trials that are named as the best
_RUNNING = 4  # that are shown
_FEW = 12  # rows: fewer of them in order say less than the best ones would


class _Detail(NamedTuple):
    """How much a space card says of each parameter, in tokens."""

    doc: int
    values: int  # of a list of choices, of a condition, of a default
    name: int


_DETAILS = (
    _Detail(20, 90, 90),
    _Detail(10, 90, 90),
    _Detail(0, 60, 90),
    _Detail(0, 30, 90),
    _Detail(0, 16, 60),
    _Detail(0, 10, 30),
    _Detail(0, 6, 16),
    _Detail(0, 0, 10),
)


def show_number(value: float, digits: int = 4) -> str:
    """At most so many significant digits, and no exponent where plain digits are short."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits}g}"


def show_value(value: ParamValue, digits: int = 4) -> str:
    """A parameter value as people read it; `as_json` is what a model reads."""
    return show_number(value, digits) if isinstance(value, float) else as_line(str(value), 40)


def space_card(space: SearchSpace, max_tokens: int = 560) -> str:
    """One line a parameter: name, range, unit, default, condition, doc.

    Docs may fill four fifths of the room. Where it is short, they go first, then values beyond the first few, then the
    middle of names, then whole lines; what is left out of a list is counted, and the schema of the reply has it.
    """
    for detail in _DETAILS:
        names = {name: _name(name, detail.name, i) for i, name in enumerate(space.names, 1)}
        lines = [_param_line(p, detail, names) for p in space.params]
        if rough_tokens("\n".join(lines)) <= (max_tokens * 4 // 5 if detail.doc else max_tokens):
            return "\n".join(lines)
    while lines:
        lines.pop()
        text = "\n".join([*lines, f"({len(space) - len(lines)} more parameters)"])
        if rough_tokens(text) <= max_tokens:
            break
    return text


def _param_line(param: Param, detail: _Detail, names: Mapping[str, str]) -> str:
    parts = [f"- {names[param.name]}: {show_range(param, detail.values)}"]
    if param.unit:
        parts.append(f" [{as_line(param.unit, 20, 6)}]")
    if param.default is not UNSET:
        default = show_literal(param, param.default)
        parts.append(f", default {default}" if rough_tokens(default) <= max(detail.values, 8) else "")
    if param.when:
        conditions = (show_condition(w, detail.values, names[w.parent]) for w in param.when[:3])
        parts.append(f", only if {' and '.join(conditions)}")
        parts.append(" and more" if len(param.when) > 3 else "")
    if param.doc and detail.doc:
        parts.append(f"; {as_line(param.doc, 3 * detail.doc, detail.doc)}")
    return "".join(parts)


def show_range(param: Param, max_tokens: int) -> str:
    """The values of a parameter in words; choices as JSON literals, as many as there is room for."""
    if not param.choices:
        return param.describe_range().removeprefix("a ").removeprefix("an ")
    return ("ordered: " if param.ordered else "one of: ") + _first_few(param.choices, max_tokens)


def show_condition(when: When, max_tokens: int, name: str) -> str:
    """A condition, its values as JSON literals, as many as there is room for."""
    values = _first_few(when.values, max_tokens)
    return f"{name} " + (f"= {values}" if len(when.values) == 1 else f"in ({values})")


def _first_few(values: Sequence[ParamValue], max_tokens: int) -> str:
    shown: list[str] = []
    for value in values:
        literal = as_json(value)
        max_tokens -= rough_tokens(literal) + 1
        if max_tokens < 0:
            break
        shown.append(literal)
    left_out = len(values) - len(shown)
    more = f"{left_out} more" if shown else f"{left_out} value{'s' * (left_out > 1)} not shown"
    return ", ".join([*shown, *([more] if left_out else [])])


def _name(name: str, max_tokens: int, position: int) -> str:
    """A parameter's name; where it is cut, its position among the parameters tells it from others."""
    name = escape(name)
    return name if rough_tokens(name) <= max_tokens else f"{as_line(name, 200, max_tokens)} (no. {position})"


def names_fit(names: Iterable[str]) -> bool:
    """Whether parameter names are short enough, all together, to stand in a prompt more than once."""
    return rough_tokens(", ".join(names)) <= _MOST_NAME_TOKENS


def goal(task: Task) -> str:
    """What is to be achieved, in one line: direction, metric and the limit on time."""
    limit = f"; a trial is cut after {task.timeout_s:g} s" if task.timeout_s else ""
    return f"{task.direction} {as_line(task.metric, 60, 20)}{limit}"


def summary(context: Context) -> str:
    """Counts in words: "12 finished, 1 failed, 2 running"."""
    counts = [("finished", len(context.finished)), ("failed", len(context.failed)), ("running", len(context.pending))]
    return ", ".join(f"{n} {what}" for what, n in counts if n or what == "finished")


def history_table(context: Context, *, max_tokens: int, sensitivities: Mapping[str, float] | None = None) -> str:
    """The trials that matter, the best first, a row each under one header, in about `max_tokens` tokens.

    A better trial changes it from its first row on, and what follows is read anew: it is for where there is no room for
    `trial_rows`. In order of claim to the room: the best 3, the running ones, the last 2 failures, the next best, the latest.
    What is left out is said. `sensitivities` (share of each parameter in the surrogate's eyes) add a line. Of a noisy task it
    is given the trials as `settled`.
    """
    space = context.space
    head, ranked = ",".join(_head(space, "expected value" if context.task.noisy else "value")), _ranked(context)
    latest = sorted(ranked[3:], key=lambda t: -t.number)[:3]
    wanted = [*ranked[:3], *context.pending[-4:], *context.failed[-2:], *ranked[3:6], *latest, *ranked[6:10]]
    note = _sensitivity_line(sensitivities or {})
    room = max_tokens - rough_tokens(head) - rough_tokens(note) - 10
    value_tokens = max(_LEAST_VALUE, room // (4 * len(space)))
    chosen: dict[int, str] = {}
    for trial in wanted:
        row = ",".join(_row(trial, space, value_tokens))
        cost = rough_tokens(row) + 1
        if trial.number not in chosen and (room >= cost or not chosen):
            chosen[trial.number] = row
            room -= cost
    order = [*ranked, *context.pending, *context.failed]
    rows = [chosen[t.number] for t in order if t.number in chosen]
    left_out = len(context.trials) - len(rows)
    what = "configurations" if context.task.noisy else "trials"
    more = [f"({left_out} more {what} not shown)"] if left_out else []
    return "\n".join([head, *rows, *more, *([note] if note else [])])


class Rows(NamedTuple):
    """Trials as lines of text, and the numbers of those that have a line. `value_tokens`: room for a choice in a line."""

    text: str
    numbers: frozenset[int]
    value_tokens: int


class Best(NamedTuple):
    """A trial that stands for a configuration among the best, what that one is worth, and after how many runs of it."""

    trial: Trial
    value: float
    runs: int = 1


def rows_suffice(context: Context, *, max_tokens: int) -> bool:
    """Whether `trial_rows` show enough in so many tokens: all the trials, or so many that the latest of them tell something.

    The first trials decide, so that a study that has come to the other table keeps to it.
    """
    first = [t for t in context.trials if t.outcome is not None][:_FEW]
    _, room, value_tokens = _layout(context.space, max_tokens)
    return sum(rough_tokens(_numbered(t, context.space, value_tokens)) + 1 for t in first) <= room


def trial_rows(context: Context, *, max_tokens: int) -> Rows:
    """The trials that have ended, by number, a row each under one header: text that grows at its end alone.

    A model that keeps what it has read, and a service that charges less for it, then read the new rows only. Where the rows would
    pass `max_tokens`, so many go from the front at once that half of the room is free, or a quarter where a dozen rows need the
    rest, and the next ones are again only added. A trial that ends after later ones takes its place by number, and what follows it
    is read anew. One that repeats another of the rows names that one, where this is shorter than its parameters.
    """
    space, ended = context.space, [t for t in context.trials if t.outcome is not None]
    head, room, value_tokens = _layout(space, max_tokens)
    rows = [_numbered(trial, space, value_tokens) for trial in ended]
    begin = _first_shown([rough_tokens(row) + 1 for row in rows], room)
    note = [f"({begin} earlier trial{'s' * (begin > 1)} left out)"] if begin else []
    shown = _without_repeats(ended[begin:], rows[begin:], space)
    return Rows("\n".join([head, *note, *shown]), frozenset(t.number for t in ended[begin:]), value_tokens)


def _layout(space: SearchSpace, max_tokens: int) -> tuple[str, int, int]:
    """The header of the rows, the tokens that it leaves to them, and those of a choice in a row."""
    head = ",".join(["trial", *_head(space)])
    room = max(0, max_tokens - rough_tokens(head) - _NOTE_TOKENS)
    return head, room, max(_LEAST_VALUE, room // (3 * len(space)))


def _first_shown(costs: Sequence[int], room: int) -> int:
    """The place of the first row that is shown; it depends on the rows that came later no more than it must."""
    begin, taken = 0, 0
    for last, cost in enumerate(costs):
        taken += cost
        if taken > room:
            while taken > _kept(last + 1 - begin, room):
                taken -= costs[begin]
                begin += 1
    return begin


def _kept(rows: int, room: int) -> int:
    """Tokens that so many rows may keep where rows have to go."""
    if rows == 1:
        return room
    return room // 2 if rows > _FEW else room * 3 // 4


def _without_repeats(trials: Sequence[Trial], rows: Sequence[str], space: SearchSpace) -> list[str]:
    """The `rows` of `trials`; the first one of a configuration alone has its parameters."""
    first: dict[str, int] = {}
    shown = []
    for trial, row in zip(trials, rows, strict=True):
        same = first.setdefault(space.key(trial.params), trial.number)
        short = f"{trial.number},{_result(trial)},=trial {same}"
        shown.append(short if same != trial.number and rough_tokens(short) < rough_tokens(row) else row)
    return shown


def standing(
    context: Context,
    rows: Rows,
    *,
    max_tokens: int,
    best: Sequence[Best] | None = None,
    sensitivities: Mapping[str, float] | None = None,
) -> str:
    """What changes with every trial, to stand behind the `rows`: counts, which trials are the best, what runs.

    The best that have no row there get one here, and so do the running ones, as far as `max_tokens` go; the very best has one
    in any case. `best` are those of a noisy task, the best expected value first; of any other task the values say it.
    `sensitivities` (share of each parameter in the surrogate's eyes) add a line.
    """
    if best is None:
        best = [Best(t, t.value) for t in _ranked(context) if t.value is not None]
    best = best[:_BEST]
    named = ", ".join(f"trial {b.trial.number} ({_worth(b)})" for b in best)
    title = "Best by expected value (runs differ by chance)" if context.task.noisy else "Best first"
    lines = [f"So far {summary(context)}." + (f" {title}: {named}" if named else "")]
    note = _sensitivity_line(sensitivities or {})
    room = max_tokens - rough_tokens(lines[0]) - rough_tokens(note)
    gone = [b.trial for b in best if b.trial.number not in rows.numbers]
    kept = best[0].trial if best else None
    for title, trials in (
        ("Rows of the best that are left out above:", gone),
        ("Still running:", context.pending[-_RUNNING:]),
    ):
        found: list[str] = []
        for trial in trials:
            row = _numbered(trial, context.space, rows.value_tokens)
            cost = rough_tokens(row) + 1 + (0 if found else rough_tokens(title))
            if room >= cost or trial is kept:
                found.append(row)
                room -= cost
        lines += [title, *found] if found else []
    return "\n".join([*lines, *([note] if note else [])])


def _worth(best: Best) -> str:
    return show_number(best.value) + (f" over {best.runs} runs" if best.runs > 1 else "")


def _ranked(context: Context) -> list[Trial]:
    """The trials that ended well, the best first, the earlier of equals."""
    return sorted(context.finished, key=lambda t: context.task.loss(t.value if t.value is not None else math.inf))


def _head(space: SearchSpace, value: str = "value") -> list[str]:
    """The names of the columns; those of the parameters only where they are short."""
    fits = names_fit(space.names)
    return [value, *(map(_column, space.names) if fits else ["then the parameters in the order above"])]


def _column(name: str) -> str:
    """A name as one column of the header: quoted where it would read as several."""
    return as_json(name) if "," in name else escape(name)


def _numbered(trial: Trial, space: SearchSpace, value_tokens: int) -> str:
    """A row that begins with the number of its trial."""
    return ",".join([str(trial.number), *_row(trial, space, value_tokens)])


def _row(trial: Trial, space: SearchSpace, value_tokens: int) -> list[str]:
    """Value and parameters of a trial; to be joined without blanks, each of which would be a token before a digit."""
    cells = (_cell(p, trial.params[p.name], value_tokens) if p.name in trial.params else "-" for p in space.params)
    return [_result(trial), *cells]


def _result(trial: Trial) -> str:
    """What came of a trial; no comma in it, which would shift the columns behind it."""
    if trial.outcome is None:
        return "running"
    if trial.outcome.value is not None:
        return show_number(trial.outcome.value)
    reason = as_line(trial.outcome.message, _REASON_CHARS, _REASON_TOKENS).replace(",", ";")
    return trial.outcome.status.upper() + (f" ({reason})" if reason else "")


def _cell(param: Param, value: ParamValue, max_tokens: int) -> str:
    """A value in a row. A choice stands as it must be written in a reply, or by its position where that is too long."""
    literal = show_literal(param, value, _TABLE_DIGITS)
    fits = not param.choices or rough_tokens(literal) <= max_tokens
    return literal if fits else f"choice {param.index(value) + 1}"


def show_configuration(params: Params, space: SearchSpace) -> str:
    """A configuration as the rows of the table show it: values in the order of the parameters, with their names."""
    named = ((as_line(escape(p.name), 60, 16), p) for p in space.params if p.name in params)
    return ", ".join(f"{name} {_cell(p, params[p.name], 12)}" for name, p in named)


def show_literal(param: Param, value: ParamValue, digits: int = 4) -> str:
    """A value as it is written in a reply; rounded where a number near it would do as well."""
    return show_number(value, digits) if isinstance(value, float) and not param.choices else as_json(value)


def _sensitivity_line(sensitivities: Mapping[str, float]) -> str:
    top = sorted(sensitivities.items(), key=lambda item: -item[1])[:4]
    shown = [f"{as_line(escape(name), 60, 16)} {share:.0%}" for name, share in top if share >= 0.05]
    return f"Effect on the value so far: {', '.join(shown)}" if shown else ""


def one_line(params: Params, names: Iterable[str] | None = None) -> str:
    """A configuration on one line: "lr=0.01 optimizer=sgd"."""
    return " ".join(f"{n}={show_value(params[n])}" for n in (names or params) if n in params)

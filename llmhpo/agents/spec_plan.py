"""One plan of a model for a search space, checked against what reading has found: only ranges and choices can come from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict

from llmhpo.cards import cards
from llmhpo.errors import SpaceError
from llmhpo.param import UNSET, Param, param_from_dict
from llmhpo.prompts import as_line
from llmhpo.reading.base import Found, Source, to_kind
from llmhpo.reading.literals import Literal, literals
from llmhpo.reading.names import Verdict, judge
from llmhpo.spec import Origin, Setting, StudySpec
from llmhpo.trial import Context, Trial

WHY_CHARS = 160
_WIDEST = 1e10  # times the low bound of a range on a log scale
_MOST_CHOICES = 20
_WORD = re.compile(r"\w[\w.+-]{0,39}")  # a choice becomes a word of the command line: no flag, no path
_OPEN: Final = (
    "text",
    "unknown",
    "choice",
)  # roles of settings that reading leaves alone only for want of choices or a known name
_LADDERS: Final = ("batch", "accumulation", "width", "rank", "lora_alpha", "heads")


class Entry(BaseModel):
    """One parameter of a plan, as the model writes it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    line: int | None = None
    low: float | None = None
    high: float | None = None
    log: bool | None = None
    choices: list[str | float | bool] | None = None
    why: str = ""


class Draft(BaseModel):
    """A plan, as the model writes it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    why: str = ""
    parameters: list[Entry]


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked plan: settings in the order of the spec. `dropped` says what of it did not hold, `why` is the model's own reason."""

    settings: tuple[Setting, ...]
    dropped: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a plan is checked against: the settings by name, values in the code, and the texts in which a choice must stand."""

    known: Mapping[str, Found]
    written: tuple[Literal, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, spec: StudySpec, sources: Sequence[Source]) -> Ground:
        """The ground of a spec, whose files are `sources`."""
        known = {s.found.name: s.found for s in spec.settings}
        known |= {f.name: f for f, _ in spec.fixed if judge(f).role in _OPEN and f.kind != "list"}
        written = [one for source in sources if source.tree.body for one in literals(source)]
        return cls(known, tuple(_loose(written, spec)), tuple(source.text for source in sources))


def _loose(written: Sequence[Literal], spec: StudySpec) -> list[Literal]:
    """Numbers and switches that no setting reaches, each under a name that stands in the code once, and is no setting to leave alone."""
    names = [one.name for one in written]
    taken = {f.name for s in spec.settings for f in (s.found,)} | {f.name for f, _ in spec.fixed}
    lines = {f.where.line for s in spec.settings for f in (s.found,)} | {f.where.line for f, _ in spec.fixed}
    loose = []
    for one in written:
        is_number = isinstance(one.value, int | float)
        if (
            is_number
            and names.count(one.name) == 1
            and one.name not in taken
            and one.where.line not in lines
            and judge(_claimed(one)).is_tunable
        ):
            loose.append(one)
    return loose


def _claimed(one: Literal) -> Found:
    return Found(one.name, to_kind(one.value), one.where, "keyword", one.name, default=one.value)


def check_plan(draft: Draft, spec: StudySpec, ground: Ground, model: str) -> Plan:
    """What of a plan holds. Names that are not there, and claims of lines that do not hold them, are dropped and said."""
    dropped: list[str] = []
    chosen: dict[str, tuple[Found, Param, Origin]] = {}
    for entry in draft.parameters:
        name = as_line(entry.name, 60)
        if entry.name in chosen:
            dropped.append(f"{name}: is given twice; the first counts")
            continue
        found = _found(entry, ground)
        if isinstance(found, str):
            dropped.append(f"{name}: {found}")
            continue
        param = _param(entry, found, spec, ground.texts)
        if isinstance(param, str):
            dropped.append(f"{name}: {param}")
            continue
        chosen[entry.name] = (found, param, _origin(entry, found, param, model))
    return Plan(_settings(spec, chosen, model), tuple(dropped), as_line(draft.why, WHY_CHARS))


def _found(entry: Entry, ground: Ground) -> Found | str:
    if (found := ground.known.get(entry.name)) is not None:
        return found
    for one in ground.written:
        if one.name == entry.name and entry.line in (None, one.where.line):
            return _claimed(one)
    if entry.line is not None:
        return f"line {entry.line} gives no value that may be tuned to such a name; dropped"
    return "is no setting that was found; dropped"


def _settings(spec: StudySpec, chosen: Mapping[str, tuple[Found, Param, Origin]], model: str) -> tuple[Setting, ...]:
    """The spec's settings with the plan's ranges, and those that it adds."""
    left_out = Origin("model", model, "left out, as it matters less here; add a table to tune it")
    old = [
        Setting(s.found, s.verdict, *chosen[s.found.name][1:])
        if s.found.name in chosen
        else Setting(s.found, s.verdict, None, left_out)
        for s in spec.settings
    ]
    known = {s.found.name for s in spec.settings}
    new = [
        Setting(f, Verdict(True, judge(f).role, "taken up by the model", is_sure=False), param, origin)
        for name, (f, param, origin) in chosen.items()
        if name not in known
    ]
    return (*old, *new)


def _origin(entry: Entry, found: Found, param: Param, model: str) -> Origin:
    why = as_line(entry.why, WHY_CHARS)
    last = found.name.rpartition(".")[2].lower()
    for card in cards().values():
        known = card.ranges.get(last, {})
        if known and not param.choices and (known.get("low"), known.get("high")) == (entry.low, entry.high):
            return Origin("card", card.name, why)
    return Origin("model", model, why)


# --- one parameter ------------------------------------------------------------------------------------------------------


def _param(entry: Entry, found: Found, spec: StudySpec, texts: Sequence[str]) -> Param | str:
    """The parameter that an entry describes, or what is wrong with it."""
    before = next((s.param for s in spec.settings if s.found.name == entry.name), None)
    kind = found.kind if found.kind != "unknown" else "float" if found.default is UNSET else to_kind(found.default)
    if kind == "bool":
        table: dict[str, object] | str = {"type": "categorical", "choices": [False, True]}
    elif kind == "str" or (found.choices and not _is_number(found.choices[0])):
        table = _choices(entry, found, texts)
    elif kind in ("int", "float"):
        table = _numbers(entry, found, kind == "int")
    else:
        table = "its type is not known; dropped"
    if isinstance(table, str):
        return table
    default = found.default
    if default is not UNSET and default is not None:
        table["default"] = default
    if before is not None:
        table |= {"doc": before.doc, "unit": before.unit, "when": {w.parent: list(w.values) for w in before.when}}
    try:
        return param_from_dict(entry.name, table)
    except SpaceError as error:
        return f"{error}; dropped"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choices(entry: Entry, found: Found, texts: Sequence[str]) -> dict[str, object] | str:
    """The choices that the program takes: those that it lists, or words that stand in its text."""
    given = [c for c in entry.choices or () if isinstance(c, str)] or [c for c in found.choices if isinstance(c, str)]
    allowed = [c for c in dict.fromkeys(given) if c in found.choices or (not found.choices and _stands_in(c, texts))]
    if isinstance(found.default, str) and found.default not in allowed:
        allowed.append(found.default)
    if len(allowed) < 2:
        return f"of its choices {as_line(repr(given), 80)} fewer than two stand in the program's text; dropped"
    return {"type": "categorical", "choices": allowed[:_MOST_CHOICES]}


def _stands_in(word: str, texts: Sequence[str]) -> bool:
    pattern = re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])")
    return _WORD.fullmatch(word) is not None and any(pattern.search(text) for text in texts)


def _numbers(entry: Entry, found: Found, is_int: bool) -> dict[str, object] | str:
    default = found.default if _is_number(found.default) else None
    if entry.choices:
        return _steps(entry.choices, found, default, is_int=is_int)
    low, high = entry.low, entry.high
    if low is None or high is None:
        return "has neither a range nor choices; dropped"
    if not (math.isfinite(low) and math.isfinite(high) and abs(low) < 1e15 and abs(high) < 1e15):
        return "its range is not finite; dropped"
    low, high = (
        (max(low, found.low) if found.low is not None else low),
        (min(high, found.high) if found.high is not None else high),
    )
    if isinstance(default, int | float):  # the default is tried first, and has to lie inside
        low, high = min(low, default), max(high, default)
    if not low < high:
        return f"its range from {low:g} to {high:g} holds nothing; dropped"
    log = entry.log is True and low > 0
    if log and high / low > _WIDEST:
        return f"its range from {low:g} to {high:g} is too wide to be meant; dropped"
    if is_int and isinstance(default, int) and default > 0 and judge(found).role in _LADDERS:
        steps = [v for k in range(-8, 9) if (v := default * 2**k) == int(v) and low <= v <= high]
        return (
            {"type": "ordinal", "choices": [int(v) for v in steps]}
            if len(steps) > 1
            else f"no doubling of {default} lies in its range; dropped"
        )
    if is_int:
        return {
            "type": "int",
            "low": math.floor(low) if not log else max(1, math.floor(low)),
            "high": math.ceil(high),
        } | ({"log": True} if log else {})
    return {"type": "float", "low": float(low), "high": float(high)} | ({"log": True} if log else {})


def _steps(choices: Sequence[object], found: Found, default: object, *, is_int: bool) -> dict[str, object] | str:
    """Numbers in their order, within the bounds of the script."""
    numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool) and math.isfinite(c)]
    inside = {
        int(c) if is_int else float(c)
        for c in numbers
        if (not is_int or c == int(c))
        and (found.low is None or c >= found.low)
        and (found.high is None or c <= found.high)
    }
    if isinstance(default, int | float):
        inside.add(int(default) if is_int else float(default))
    if len(inside) < 2:
        return f"of its choices {as_line(repr(list(choices)), 80)} fewer than two fit; dropped"
    return {"type": "ordinal", "choices": sorted(inside)[:_MOST_CHOICES]}


# --- which plan ---------------------------------------------------------------------------------------------------------


def tellers(history: Context | None) -> list[Trial]:
    """The earlier trials that can tell plans apart, the best first; [] where there are too few."""
    if history is None:
        return []
    ended = sorted((t for t in history.trials if t.value is not None), key=lambda t: history.task.loss(t.value or 0.0))
    return ended if len(ended) >= 2 * _best(ended) + 2 else []


def _best(ended: Sequence[Trial]) -> int:
    return max(len(ended) // 4, 1)


def choose(plans: Sequence[Plan], history: Context | None) -> Plan:
    """The plan whose ranges hold the best quarter of the earlier trials, and not the rest; without any, what holds most of itself.

    Among equals the model's own order counts.
    """
    if not (ended := tellers(history)):
        return min(plans, key=lambda p: len(p.dropped))
    count = _best(ended)
    good, rest = [t.params for t in ended[:count]], [t.params for t in ended[count:]]
    return max(plans, key=lambda p: held(p, good) - held(p, rest) / 2)


def held(plan: Plan, trials: Sequence[Mapping[str, object]]) -> float:
    """The share of the values of trials that lie in a plan's ranges; of what it leaves out, those at the default."""
    inside = total = 0
    for setting in plan.settings:
        for value in (t[setting.found.name] for t in trials if setting.found.name in t):
            total += 1
            inside += setting.param.check(value) is None if setting.param else value == setting.found.default
    return inside / total if total else 0.0

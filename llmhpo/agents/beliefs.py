"""What the model is asked to believe, once, beside its first configurations: the form, the schema, a strict reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from optuna.distributions import FloatDistribution, IntDistribution
from pydantic import JsonValue

from llmhpo.llm.base import JSONSchema, closed_object
from llmhpo.param import Param, ParamValue
from llmhpo.prior import Belief, Better, Prior
from llmhpo.prompts import as_json, as_line, escape
from llmhpo.space import SearchSpace

BELIEFS = "beliefs"
_USUAL_CONFIDENCE = 0.7  # of a statement that does not say
_MOST_CHOICES = 30  # of a category that is asked about: services bound the enums of a schema
_NEARLY_ALL = 0.9  # of a range or of the choices: that says nothing
_MAX_PROBLEMS = 4
_NUMBER: JSONSchema = {"type": "number"}
_SHARE: JSONSchema = {"type": "number", "minimum": 0, "maximum": 1}


class Stated(NamedTuple):
    """What of a model's beliefs can be used; None where nothing. `problems` says what cannot."""

    prior: Prior | None
    problems: tuple[str, ...] = ()


class _Entry(NamedTuple):
    belief: Belief
    flaw: str = ""


class _BadBeliefError(Exception):
    pass


# --- asking -------------------------------------------------------------------------------------------------------------


def beliefs_schema(space: SearchSpace) -> JSONSchema | None:
    """JSON schema of the beliefs; None where there is nothing to ask.

    Three lists of small closed objects, whatever the space: no key may be missing or null, because Anthropic's structured
    output takes at most 16 nullable values in a schema and OpenAI's strict mode knows no optional ones.
    """
    numbers, categories, ordered = _numbers(space), _categories(space), _ordered(space)
    lists: dict[str, JSONSchema] = {}
    if numbers:
        lists["ranges"] = _list_of(numbers, {"low": _NUMBER, "high": _NUMBER})
    if categories:
        choices: list[object] = []
        for choice in (c for name in categories for c in space[name].choices):
            if not any(choice == c and isinstance(choice, bool) == isinstance(c, bool) for c in choices):
                choices.append(choice)
        lists["choices"] = _list_of(categories, {"likely": {"type": "array", "items": {"enum": choices}}})
    if ordered:
        lists["trends"] = _list_of(ordered, {"better": {"enum": ["lower", "higher"]}})
    return closed_object(lists) if lists else None


def _list_of(names: Sequence[str], said: Mapping[str, JSONSchema]) -> JSONSchema:
    item = closed_object({"parameter": {"enum": list(names)}, **said, "confidence": _SHARE})
    return {"type": "array", "maxItems": len(names), "items": item}


def beliefs_form(space: SearchSpace) -> str:
    """The lists of the beliefs, as the prompt shows them."""
    shown = []
    if _numbers(space):
        shown.append('"ranges": [{"parameter": name, "low": number, "high": number, "confidence": p}, ...]')
    if _categories(space):
        shown.append('"choices": [{"parameter": name, "likely": [choice, ...], "confidence": p}, ...]')
    if _ordered(space):
        shown.append('"trends": [{"parameter": name, "better": "lower" or "higher", "confidence": p}, ...]')
    return "{" + ",\n".join(shown) + "}"


def _numbers(space: SearchSpace) -> list[str]:
    return [p.name for p in space.params if not p.choices and _varies(p)]


def _categories(space: SearchSpace) -> list[str]:
    return [p.name for p in space.params if 1 < len(p.choices) <= _MOST_CHOICES]


def _ordered(space: SearchSpace) -> list[str]:
    return [p.name for p in space.params if _varies(p) and (p.ordered or not p.choices)]


def _varies(param: Param) -> bool:
    return param.size > 1 and getattr(param.distribution, "low", 0) != getattr(param.distribution, "high", 1)


# --- reading ------------------------------------------------------------------------------------------------------------


def read_beliefs(raw: JsonValue, space: SearchSpace) -> Stated:
    """Check what a reply says under "beliefs". A bad entry is left out and named; the others count.

    A range is clipped to that of its parameter. Of two different entries of one kind about one parameter neither counts.
    What covers nearly all of a parameter says nothing and is left out in silence.
    """
    if raw is None:
        return Stated(None)
    if not isinstance(raw, dict):
        return Stated(None, (f"{BELIEFS} is not an object of lists",))
    found: dict[tuple[str, str], Belief] = {}
    at_odds: set[tuple[str, str]] = set()
    problems: list[str] = []
    for kind, entries in raw.items():
        if kind not in _READERS or not isinstance(entries, list):
            known = ", ".join(_READERS)
            problems.append(f"{BELIEFS}: {kind!r} is not one of the lists {known}")
            continue
        for i, entry in enumerate(entries, 1):
            try:
                belief, flaw = _read_entry(kind, entry, space)
            except _BadBeliefError as error:
                problems.append(f"{BELIEFS}: {kind} {i}: {error}")
                continue
            problems += [f"{BELIEFS}: {kind} {i}: {flaw}"] if flaw else []
            key = (kind, belief.parameter)
            if found.setdefault(key, belief) != belief and key not in at_odds:
                at_odds.add(key)
                problems.append(f"{BELIEFS}: {kind}: two different entries about {belief.parameter}; neither counts")
    kept = tuple(b for key, b in found.items() if key not in at_odds and _informs(space[b.parameter], b))
    said = tuple(as_line(escape(p), 200) for p in problems[:_MAX_PROBLEMS])
    return Stated(Prior(kept) if kept else None, said)


def _read_entry(kind: str, entry: JsonValue, space: SearchSpace) -> _Entry:
    if not isinstance(entry, dict):
        raise _BadBeliefError("is not an object")
    name = entry.get("parameter")
    if not isinstance(name, str) or name not in space:
        raise _BadBeliefError(f"unknown parameter {_show(name)}")
    confidence = entry.get("confidence", _USUAL_CONFIDENCE)
    if not _is_number(confidence) or not 0.0 <= confidence <= 1.0:  # type: ignore[operator]
        raise _BadBeliefError(f"confidence = {_show(confidence)} is not a number from 0 to 1")
    return _READERS[kind](space[name], entry, float(confidence))  # type: ignore[arg-type]


def _read_range(param: Param, entry: Mapping[str, JsonValue], confidence: float) -> _Entry:
    low, high = entry.get("low"), entry.get("high")
    for key, value in (("low", low), ("high", high)):
        if not _is_number(value):
            raise _BadBeliefError(f"{key} = {_show(value)} is not a finite number")
    bounds = (float(low), float(high))  # type: ignore[arg-type]
    if bounds[0] > bounds[1]:
        raise _BadBeliefError(f"low = {_show(low)} is above high = {_show(high)}")
    outside = f"{param.name} from {_show(low)} to {_show(high)} holds no value of {param.name}"
    if param.choices:  # a number by its look, a category by its type
        inside = [c for c in param.choices if _is_number(c) and bounds[0] <= c <= bounds[1]]  # type: ignore[operator]
        if not inside:
            raise _BadBeliefError(outside)
        return _Entry(Belief(param.name, confidence, choices=tuple(inside)))
    number = cast("FloatDistribution | IntDistribution", param.distribution)
    low_, high_ = max(bounds[0], float(number.low)), min(bounds[1], float(number.high))
    if low_ > high_:
        raise _BadBeliefError(outside)
    return _Entry(Belief(param.name, confidence, low_, high_))


def _read_choices(param: Param, entry: Mapping[str, JsonValue], confidence: float) -> _Entry:
    likely = entry.get("likely")
    if not isinstance(likely, list) or not likely:
        raise _BadBeliefError("likely is not a list of choices")
    if not param.choices:
        raise _BadBeliefError(f"{param.name} is a number; give a range")
    chosen: list[ParamValue] = []
    flaw = ""
    for choice in likely:
        if isinstance(choice, list | dict) or param.check(choice) is not None:
            flaw = f"{_show(choice)} is not a choice of {param.name}"
        elif (value := param.cast(choice)) not in chosen:
            chosen.append(value)
    if not chosen:
        raise _BadBeliefError(flaw)
    return _Entry(Belief(param.name, confidence, choices=tuple(sorted(chosen, key=param.index))), flaw)


def _read_trend(param: Param, entry: Mapping[str, JsonValue], confidence: float) -> _Entry:
    better = entry.get("better")
    if better not in ("lower", "higher"):
        raise _BadBeliefError(f'better = {_show(better)} is neither "lower" nor "higher"')
    if param.choices and not param.ordered:
        raise _BadBeliefError(f"the choices of {param.name} have no order")
    word: Better = "lower" if better == "lower" else "higher"
    return _Entry(Belief(param.name, confidence, better=word))


_Reader = Callable[[Param, Mapping[str, JsonValue], float], _Entry]
_READERS: dict[str, _Reader] = {"ranges": _read_range, "choices": _read_choices, "trends": _read_trend}


def _informs(param: Param, belief: Belief) -> bool:
    if not _varies(param):
        return False
    if belief.low is not None and belief.high is not None:
        wide = param.to_unit(belief.high) - param.to_unit(belief.low) >= _NEARLY_ALL
        return not wide and belief.informs(param)
    return belief.informs(param)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1e300 and not (isinstance(value, float) and math.isnan(value))


def _show(value: JsonValue) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge integer"
    return as_json(value)

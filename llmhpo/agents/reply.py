"""From a model's text to checked proposals: the form that is asked for, and a strict reader of what comes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.distributions import IntDistribution
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from llmhpo.agents.beliefs import BELIEFS, beliefs_schema, read_beliefs
from llmhpo.history import names_fit, show_condition, show_range
from llmhpo.llm.base import JSONSchema, closed_object
from llmhpo.param import Param
from llmhpo.prior import Prior
from llmhpo.prompts import as_json, as_line, escape
from llmhpo.space import InvalidParams, Params, SearchSpace

WHY = "why"
_MAX_REPLY_CHARS = 200_000
_MAX_PROBLEMS = 8
_WHY_CHARS = 160
_RANGE_TOKENS = 30
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    configurations: list[dict[str, JsonValue]]
    beliefs: JsonValue = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply held: valid configurations with their reasons, in order, and what was wrong with the rest.

    `prior` is what its beliefs amount to, `doubts` what was wrong with those. `offered` counts the configurations of the reply, good
    and bad, `inside` those of which no value lies outside of its parameter's range or choices.
    """

    configurations: tuple[tuple[Params, str], ...]
    problems: tuple[str, ...]
    prior: Prior | None = None
    doubts: tuple[str, ...] = ()
    offered: int = 0
    inside: int = 0


def why_key(space: SearchSpace) -> str:
    """The key of the reason in a reply, moved aside where a parameter has that name."""
    key = WHY
    while key in space:
        key += "_"
    return key


def reply_schema(space: SearchSpace, n: int, *, reasons: bool, beliefs: bool = False) -> JSONSchema:
    """JSON schema of a batch of exactly `n` configurations; conditional parameters may be null.

    Beliefs come last, where the space has any to state.
    """
    properties: dict[str, JsonValue] = {}
    if reasons:
        properties[why_key(space)] = {"type": "string", "maxLength": _WHY_CHARS}
    for param in space.params:
        value = _value_schema(param)
        properties[param.name] = {"anyOf": [value, {"type": "null"}]} if param.when else value
    item = closed_object(properties)
    batch: JSONSchema = {"configurations": {"type": "array", "minItems": n, "maxItems": n, "items": item}}
    stated = beliefs_schema(space) if beliefs else None
    return closed_object(batch if stated is None else {**batch, BELIEFS: stated})


def _value_schema(param: Param) -> dict[str, JsonValue]:
    if param.choices:
        return {"enum": list(param.choices)}
    d = param.distribution
    kind = "integer" if isinstance(d, IntDistribution) else "number"
    low, high = d.to_external_repr(d.low), d.to_external_repr(d.high)  # type: ignore[attr-defined]
    return {"type": kind, "minimum": low, "maximum": high}


def reply_keys(space: SearchSpace, *, reasons: bool) -> str:
    """The keys of a configuration, as the prompt lists them; long ones are not listed once more."""
    names = [escape(name) for name in space.names] if names_fit(space.names) else ["the names of all parameters above"]
    return ", ".join([*([why_key(space)] if reasons else []), *names])


def reply_form(space: SearchSpace, *, reasons: bool) -> str:
    """What the prompt says about the values."""
    parts = []
    if reasons:
        parts.append(f'"{why_key(space)}" is a reason of at most 15 words.')
    if any(p.when for p in space.params):
        parts.append("A parameter whose condition does not hold is null.")
    parts.append("Numbers are plain numbers without units.")
    return " ".join(parts)


def read_reply(text: str, space: SearchSpace) -> Reading:
    """Check a reply. Nothing is repaired here but fences and prose around the one JSON object; every violation is named.

    Inactive parameters that the model filled in are left out: where a schema demands every key a model cannot.
    """
    try:
        raw = one_object(text)
        reply = _Reply.model_validate(raw)
    except UnreadableError as error:
        return Reading((), (str(error),))
    except ValidationError as error:
        return Reading((), tuple(_validation_line(e) for e in error.errors()[:_MAX_PROBLEMS]))
    key = why_key(space)
    good: list[tuple[Params, str]] = []
    problems: list[str] = []
    inside = 0
    for i, entry in enumerate(reply.configurations):
        why = entry.pop(key, "")
        inside += _is_inside(entry, space)
        params = space.coerce(space.drop_inactive(entry))
        if isinstance(params, InvalidParams):
            problems.extend(f"configuration {i + 1}: {_in_json(p, space, entry)}" for p in params.problems[:4])
        else:
            good.append((params, as_line(why if isinstance(why, str) else "", _WHY_CHARS)))
    stated = read_beliefs(reply.beliefs, space)
    shown = tuple(as_line(escape(p), 200) for p in problems[:_MAX_PROBLEMS])
    return Reading(tuple(good), shown, stated.prior, stated.problems, len(reply.configurations), inside)


def _is_inside(entry: Mapping[str, JsonValue], space: SearchSpace) -> bool:
    """Whether every value that is given at all lies in the range, or among the choices, of its parameter."""
    return all(_lies_in(space[name], value) for name, value in entry.items() if name in space and value is not None)


def _lies_in(param: Param, value: JsonValue) -> bool:
    if param.choices:
        return not isinstance(value, list | dict) and param.check(value) is None
    low, high = param.distribution.low, param.distribution.high  # type: ignore[attr-defined]
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(low <= value <= high)


def _in_json(problem: str, space: SearchSpace, entry: Mapping[str, JsonValue]) -> str:
    """A problem of `space.coerce` with its values as the prompt shows them: "sgd" and null, not 'sgd' and None."""
    for param in space.params:
        value = entry.get(param.name)
        given = f"{param.name} = {value!r} is "
        if (value is None or isinstance(value, str | bool)) and problem.startswith(given):
            problem = f"{param.name} = {as_json(value)} is " + problem.removeprefix(given)
        takes = f"it takes {param.describe_range()}"
        if param.choices and problem.endswith(takes):
            problem = problem.removesuffix(takes) + f"it takes {show_range(param, _RANGE_TOKENS)}"
        conditions = " and ".join(str(w) for w in param.when)
        if conditions and problem.endswith(f"only when {conditions}"):
            shown = " and ".join(show_condition(w, _RANGE_TOKENS, w.parent) for w in param.when)
            problem = problem.removesuffix(conditions) + shown
    return problem


def without_thinking(text: str) -> str:
    """A reply without what the model has written for itself before it."""
    return _THINKING.sub("", text)


class UnreadableError(Exception):
    """A reply that is not one JSON object; the message says why."""


def one_object(text: str) -> object:
    """The one JSON object in `text`: the whole of it, or the only one in fences or prose. Raises: UnreadableError."""
    if len(text) > _MAX_REPLY_CHARS:
        raise UnreadableError(f"the reply has {len(text)} characters, more than {_MAX_REPLY_CHARS}")
    text = without_thinking(text).strip()
    if not text:
        raise UnreadableError("the reply is empty")
    if text[0] == "{" and text[-1] == "}":
        return _strict_json(text)
    fenced = [block.strip() for block in _FENCE.findall(text)]
    if len(fenced) > 1:
        raise UnreadableError(f"the reply holds {len(fenced)} fenced blocks; one JSON object is asked for")
    if fenced:
        return _strict_json(fenced[0])
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise UnreadableError(f"the reply holds no JSON object; it begins {as_line(text, 60)!r}")
    return _strict_json(text[start : end + 1])


def _strict_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError("the reply is nested too deeply") from None
    except ValueError as error:
        raise UnreadableError(f"the reply is not one JSON object: {error}") from None


def _no_duplicates(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    out = dict(pairs)
    if len(out) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise UnreadableError(f"the key '{as_line(escape(twice), 40)}' stands twice in one object")
    return out


def _no_constants(name: str) -> object:
    raise UnreadableError(f"{name} is not a JSON number")


def _validation_line(error: Mapping[str, object]) -> str:
    place = error.get("loc")
    where = ".".join(str(part) for part in place) if isinstance(place, tuple) else ""
    return as_line(f"{where or 'reply'}: {error.get('msg')}", 200)

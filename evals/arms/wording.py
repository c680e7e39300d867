"""What the arms of other authors say to a model: the words for spaces and configurations, and how replies are read."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

from optuna.distributions import IntDistribution

from evals.tasks.base import Params, Task, Value
from llmhpo import Param, SearchSpace
from llmhpo.llm.base import JSONSchema, closed_object

_FOLDER = Path(__file__).parent / "prompts"


def prompt(name: str, **values: object) -> str:
    """A template of `prompts/`, filled."""
    return Template((_FOLDER / f"{name}.md").read_text(encoding="utf-8")).substitute(values).strip()


def about(task: Task) -> dict[str, str]:
    """What every template says of a task."""
    return {
        "words": task.words,
        "metric": task.metric,
        "direction": task.direction,
        "card": card(task.space),
        "form": "{" + ", ".join(f'"{name}": ...' for name in task.space.names) + "}",
    }


def card(space: SearchSpace) -> str:
    """One line a parameter, with its range and its condition; null is how a reply leaves a parameter out."""
    lines = []
    for param in space.params:
        condition = "; only when " + " and ".join(map(str, param.when)) + ", else null" if param.when else ""
        lines.append(f"- {param.name}: {param.describe_range()}{condition}")
    return "\n".join(lines)


def in_words(params: Params) -> str:
    """A configuration as JSON, numbers with four significant digits."""
    return json.dumps({name: _short(value) for name, value in params.items()})


def number(value: float) -> str:
    """A score with five significant digits."""
    return f"{value:.5g}"


def _short(value: Value) -> Value:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def configuration_schema(space: SearchSpace) -> JSONSchema:
    """JSON schema of one configuration; conditional parameters may be null."""
    values = {p.name: {"anyOf": [_values(p), {"type": "null"}]} if p.when else _values(p) for p in space.params}
    return closed_object(values)


def _values(param: Param) -> dict[str, Any]:
    if param.choices:
        return {"enum": list(param.choices)}
    d: Any = param.distribution
    return {"type": "integer" if isinstance(d, IntDistribution) else "number", "minimum": d.low, "maximum": d.high}


def json_in(text: str) -> object:
    """The JSON object in a reply, whatever stands around it; None where there is none."""
    start, end = text.find("{"), text.rfind("}") + 1
    try:
        return json.loads(text[start:end])
    except (ValueError, RecursionError):
        return None


def configuration_in(raw: object, space: SearchSpace) -> Params | str:
    """A configuration from a reply, or in a line what is wrong with it."""
    if not isinstance(raw, dict):
        return "there is no JSON object in the reply"
    params = space.coerce(space.drop_inactive({str(k): v for k, v in raw.items()}))
    return params if isinstance(params, dict) else str(params)

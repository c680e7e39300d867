"""The model's part in drafting a study: ranges, scales, choices and reasons for what reading has found, in several plans.

It cannot set the command, the metric, the direction or any file: the reply has no place for them. What it names is checked against the
files; what does not hold is dropped and said.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict, ValidationError

from llmhpo.agents.conversation import Conversation
from llmhpo.agents.reply import UnreadableError, one_object
from llmhpo.agents.spec_plan import WHY_CHARS, Draft, Ground, Plan, check_plan, choose, tellers
from llmhpo.cards import knowledge
from llmhpo.errors import BudgetError, LLMError
from llmhpo.llm.base import LLM, JSONSchema, Message, closed_object
from llmhpo.prompts import as_data, as_line, load, rough_tokens
from llmhpo.reading.base import Source
from llmhpo.reading.source import read_source
from llmhpo.spec import StudySpec, default_of, with_settings
from llmhpo.trial import Context
from llmhpo.usage import Caps, Usage

_PLANS = 3
_FEWEST, _MOST = 4, 12  # settings of a plan, as the prompt asks for
_TOKENS_EACH, _TOKENS_SPARE = 90, 200  # of the reply: each parameter of each plan, and the rest
_SETTINGS_TOKENS, _VALUES_TOKENS, _CARDS_TOKENS = 1400, 300, 700
_MOST_PROBLEMS = 8


@dataclass(frozen=True, slots=True)
class Refined:
    """The spec as the model has refined it. `dropped` says what of the model's words did not hold, `plans` how many did.

    `error` says why the model changed nothing, where that is so.
    """

    spec: StudySpec
    dropped: tuple[str, ...] = ()
    plans: int = 0
    usage: Usage = field(default_factory=Usage)
    error: str = ""


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    plans: list[Draft]


def refine(
    spec: StudySpec, llm: LLM, caps: Caps | None = None, *, history: Context | None = None, deadline_s: float = 120.0
) -> Refined:
    """Let the model choose among the settings and set ranges; `history`, an earlier study of the job, decides among its plans.

    Never raises for what the model does: then the spec comes back as it was.
    """
    sources = [read_source(file) for file in spec.files]
    ground = Ground.of(spec, sources)
    messages = [Message("system", load("system.v1").render()), Message("user", prompt(spec, ground, sources))]
    talk = Conversation(llm, caps or Caps(), Usage(), time.monotonic() + deadline_s, messages)
    room = _TOKENS_SPARE + _TOKENS_EACH * _PLANS * min(max(len(ground.known), 1), _MOST)
    try:
        plans, problems = _plans(talk.ask(room, _schema()).text, spec, ground, llm.name)
        if not plans:
            talk.say(
                load("spec-repair.v1").render(problems="\n".join(as_line(p, 200) for p in problems[:_MOST_PROBLEMS]))
            )
            plans, problems = _plans(talk.ask(room, _schema()).text, spec, ground, llm.name)
    except (LLMError, BudgetError) as error:
        return Refined(spec, usage=talk.usage, error=str(error))
    if not plans:
        return Refined(
            spec, tuple(problems), usage=talk.usage, error="no plan of the model holds; ranges are by llmhpo's rules"
        )
    best = choose(plans, history)
    how = "the one that fits the earlier trials best" if tellers(history) else "the first that holds most"
    note = f"Ranges are those of a plan of {llm.name}, of {len(plans)} {how}: {best.why or 'no reason given'}"
    refined = with_settings(replace(spec, notes=(*spec.notes, note)), best.settings)
    return Refined(refined, best.dropped, len(plans), talk.usage)


def _plans(text: str, spec: StudySpec, ground: Ground, model: str) -> tuple[list[Plan], list[str]]:
    """The plans of a reply that tune something, and what is wrong with the others."""
    try:
        reply = _Reply.model_validate(one_object(text))
    except UnreadableError as error:
        return [], [str(error)]
    except ValidationError as error:
        return [], [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:_MOST_PROBLEMS]]
    checked = [check_plan(draft, spec, ground, model) for draft in reply.plans[:_PLANS]]
    good = [p for p in checked if any(s.param is not None for s in p.settings)]
    return good, [problem for plan in checked for problem in plan.dropped] or ["plans: hold no parameter"]


def prompt(spec: StudySpec, ground: Ground, sources: Sequence[Source]) -> str:
    """What the model is asked: names, types, defaults and helps as data, never a whole text of the program."""
    sense = spec.direction.value if spec.direction else "minimize or maximize"
    metric = as_line(spec.metric.value, 60, 20) if spec.metric else "a metric that the person names"
    task = as_data(spec.task.value, 900, 220)
    written = [f"{one.where.line}: {one.name} = {one.value!r}" for one in ground.written]
    return load("spec.v1").render(
        task=task or "not described",
        goal=f"{sense} {metric}",
        program=as_line(", ".join(f.name for f in spec.files) or "not named", 120),
        settings=_lines([_line(name, spec, ground) for name in ground.known], _SETTINGS_TOKENS) or "none",
        values=_lines(written, _VALUES_TOKENS) or "none",
        knowledge=knowledge(f"{task} {_libraries(sources)}", _CARDS_TOKENS) or "nothing that fits",
        n=_PLANS,
        few=min(_FEWEST, len(ground.known)),
        many=_MOST,
    )


def _line(name: str, spec: StudySpec, ground: Ground) -> str:
    """A setting in one line: name: type, default; range so far; help."""
    found = ground.known[name]
    param = next((s.param for s in spec.settings if s.found.name == name), None)
    so_far = param.describe_range() if param else "no range yet"
    bounds = "".join(
        f"; at {side} {end:g}" for side, end in (("least", found.low), ("most", found.high)) if end is not None
    )
    doc = f"; {as_line(found.doc, 120, 40)}" if found.doc else ""
    return as_line(f"{name}: {found.kind}, default {default_of(found)}{bounds}; {so_far}", 300, 90) + doc


def _lines(lines: Sequence[str], max_tokens: int) -> str:
    """As many whole lines as fit."""
    kept: list[str] = []
    for line in map(str, lines):
        if rough_tokens("\n".join([*kept, line])) > max_tokens:
            break
        kept.append(as_line(line, 400))
    return "\n".join(kept)


def _libraries(sources: Sequence[Source]) -> str:
    """The packages that the program imports: they say what kind of model it trains."""
    names: set[str] = set()
    for node in (n for source in sources for n in ast.walk(source.tree)):
        if isinstance(node, ast.Import):
            names |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return " ".join(sorted(names))


def _schema() -> JSONSchema:
    scalar = {"anyOf": [{"type": kind} for kind in ("string", "number", "boolean")]}
    parameter = {
        "name": {"type": "string"},
        "line": _or_null({"type": "integer"}),
        "low": _or_null({"type": "number"}),
        "high": _or_null({"type": "number"}),
        "log": _or_null({"type": "boolean"}),
        "choices": _or_null({"type": "array", "items": scalar}),
        "why": {"type": "string", "maxLength": WHY_CHARS},
    }
    plan = {
        "why": {"type": "string", "maxLength": WHY_CHARS},
        "parameters": {"type": "array", "items": closed_object(parameter)},
    }
    return closed_object({"plans": {"type": "array", "minItems": 1, "maxItems": _PLANS, "items": closed_object(plan)}})


def _or_null(schema: JSONSchema) -> JSONSchema:
    return {"anyOf": [schema, {"type": "null"}]}

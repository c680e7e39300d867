"""Commands that change what is searched, said and spent: /note, /narrow, /widen, /freeze, /add, /budget, /undo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace

from llmhpo.chat.base import Session, wrong_use
from llmhpo.config import steered_config
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import show_value
from llmhpo.llm import resolve_auto
from llmhpo.operations import StudyFile
from llmhpo.param import Param, ParamValue, param_from_dict, param_to_dict
from llmhpo.space import SearchSpace
from llmhpo.steering import MOST_NOTE_CHARS, MOST_NOTES, Budget, Limit, Note, Steering
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.view import narrowed, steered

_BUDGETS = {
    "trials": "n_trials",
    "usd": "max_usd",
    "tokens": "max_tokens",
    "requests": "max_requests",
    "wall": "max_wall_s",
}
_WHOLE = ("trials", "tokens", "requests")


def note(session: Session, words: list[str]) -> str:
    """Keep words for the model."""
    study = session.study()
    if not words:
        notes = study.context().steering.notes
        return "\n".join(f"- {n.text}" for n in notes) or "no notes yet; /note TEXT adds one"
    text = " ".join(words[0].split())
    if len(text) > MOST_NOTE_CHARS:
        raise ConfigError(f"the note has {len(text)} characters, and may have {MOST_NOTE_CHARS}; say it in fewer words")

    def change(now: Steering) -> Steering:
        if any(n.text == text for n in now.notes):
            raise ConfigError(f"/note {text[:60]}: that note stands already; /note lists all")
        return replace(now, notes=(*now.notes, Note(text))[-MOST_NOTES:])

    study.change(f"note {text}", change)
    llm = study.config.llm
    if llm in (None, "none") or (llm == "auto" and resolve_auto() == "none"):
        said = ' (llm = "none")' if llm != "auto" else ""
        return f"noted; there is no model to read it{said}, /narrow and /freeze hold without one"
    return "noted; it ends the next prompt, and the model is asked anew for what to try"


def narrow(session: Session, words: list[str]) -> str:
    """Search a part of a range only."""
    if len(words) < 2:
        raise wrong_use("narrow", words)
    study = session.study()
    param = _param(study, words[0])
    return _limit(study, param, _parsed_limit("narrow", param, words), f"narrow {' '.join(words)}")


def freeze(session: Session, words: list[str]) -> str:
    """Hold a parameter."""
    if len(words) not in (1, 2):
        raise wrong_use("freeze", words)
    study = session.study()
    param = _param(study, words[0])
    if len(words) == 2:
        value = _value(param, words[1])
    else:
        best = incumbent(study.context())
        if best is None or param.name not in best.params:
            raise ConfigError(
                f"/freeze {param.name}: no best trial has a value of it yet; name one: /freeze {param.name} VALUE"
            )
        value = best.params[param.name]
    shown = repr(value) if isinstance(value, float) else show_value(value)  # all its digits, and no more
    return _limit(study, param, Limit(values=(value,)), f"freeze {param.name} {shown}")


def widen(session: Session, words: list[str]) -> str:
    """Lift a limit; go beyond the range where what is given lies there."""
    if not words:
        raise wrong_use("widen", words)
    study = session.study()
    param = _param(study, words[0])
    what = f"widen {' '.join(words)}"
    table: dict[str, object] | None = None
    limit: Limit | None = None
    if len(words) > 1 and param.choices:
        known = {str(c): c for c in param.choices}
        fresh = [_literal(word, param) for word in words[1:] if word not in known]
        if fresh:
            table = param_to_dict(param) | {"choices": [*param.choices, *fresh]}
        held = study.context().steering.limits.get(param.name)
        if held is not None:
            limit = Limit(values=(*held.values, *(known[w] for w in words[1:] if w in known), *fresh))
    elif len(words) > 1:
        asked = _parsed_limit("widen", param, words, check=False)
        low, high = min(asked.low, param._low), max(asked.high, param._high)
        if (low, high) != (param._low, param._high):
            table = param_to_dict(param) | {"low": _like(param, low), "high": _like(param, high)}
        if (low, high) != (asked.low, asked.high):
            limit = asked

    def change(now: Steering) -> Steering:
        params = now.params if table is None else {**now.params, param.name: table}
        limits = {k: v for k, v in now.limits.items() if k != param.name}
        return replace(now, params=params, limits=limits if limit is None else {**limits, param.name: limit})

    return _described(study, param.name, study.change(what, change))


def add(session: Session, words: list[str]) -> str:
    """Tune one more parameter."""
    given = dict(word.split("=", 1) for word in words if word.startswith(("default=", "flag=", "step=")))
    plain = [w for w in words if not w.startswith(("default=", "flag=", "step=")) and w != "log"]
    if len(plain) < 4 or "default" not in given:
        raise wrong_use("add", words)
    study = session.study()
    name, kind, *values = plain
    if name in study.context().space:
        raise ConfigError(f"/add {name}: the space has it already; /narrow, /widen and /freeze change it")
    table: dict[str, object] = {"type": kind}
    if kind in ("float", "int"):
        if len(values) != 2:
            raise wrong_use("add", words)
        table |= {
            "low": _number(values[0], kind),
            "high": _number(values[1], kind),
            "default": _number(given["default"], kind),
        }
        table |= {"log": True} if "log" in words else {}
        table |= {"step": _number(given["step"], kind)} if "step" in given else {}
    else:
        table |= {"choices": values, "default": given["default"]}
    param_from_dict(name, table)
    arguments = f"{given['flag']} {{{name}}}" if "flag" in given else ""

    def change(now: Steering) -> Steering:
        joined = f"{now.arguments} {arguments}".strip()
        return replace(now, params={**now.params, name: table}, added=(*now.added, name), arguments=joined)

    steering = study.change(f"add {' '.join(words)}", change)
    told = _described(study, name, steering) + "; trials so far count as run with its default"
    return told + _unpassed(study, name, steering)


def _unpassed(study: StudyFile, name: str, steering: Steering) -> str:
    config = steered_config(study.config, steering)
    if config.command is None:
        return ""
    template = CommandTemplate(config.command, config.space, config.cwd)
    if name not in template.unused:
        return ""
    return f"\nnote: the command does not pass {name}; unless the job reads LLMHPO_PARAMS: /undo, and add it with flag=--{name}"


def budget(session: Session, words: list[str]) -> str:
    """Show the limits, or set one."""
    study = session.study()
    if not words:
        return _budget_text(study)
    if len(words) != 2 or words[0] not in _BUDGETS:
        raise wrong_use("budget", words)
    value = _number(words[1], "int" if words[0] in _WHOLE else "float")
    if value < 0 or (value == 0 and words[0] in ("trials", "wall")):
        raise ConfigError(f"/budget {' '.join(words)}: give a number above 0")
    field = _BUDGETS[words[0]]
    study.change(f"budget {' '.join(words)}", lambda now: replace(now, budget=_with(now.budget, field, value)))
    return _budget_text(study)


def _with(budget: Budget, field: str, value: float) -> Budget:
    return Budget(**{**asdict(budget), field: value})


def _budget_text(study: StudyFile) -> str:
    context = study.context()
    caps, set_ = study.config.caps, context.steering.budget
    now = {"trials": study.n_trials(context), "usd": caps.max_usd, "tokens": caps.max_tokens, "requests": caps.max_requests,
           "wall": study.config.rules.max_wall_s}  # fmt: skip
    spent = context.usage
    used: Mapping[str, object] = {"trials": len(context.own), "usd": "unknown" if spent.usd is None else f"{spent.usd:.4f}",
                                  "tokens": spent.tokens, "requests": spent.calls, "wall": "-"}  # fmt: skip
    rows = []
    for name, field in _BUDGETS.items():
        own = getattr(set_, field)
        limit = now[name] if own is None else own
        rows.append(f"  {name:<9} {'no limit' if limit is None else f'{limit:g}':>10}   used {used[name]}")
    return "\n".join(rows)


def undo(session: Session, words: list[str]) -> str:
    """Take the last change back."""
    if words:
        raise wrong_use("undo", words)
    wish = session.study().undo()
    return f"undone: /{wish.what}"


# --- pieces -----------------------------------------------------------------------------------------------------------


def _param(study: StudyFile, name: str) -> Param:
    space: SearchSpace = study.context().space
    if name not in space:
        raise ConfigError(f"{name!r} is not in the space; it has {', '.join(space.names)}")
    return space[name]


def _limit(study: StudyFile, param: Param, limit: Limit, what: str) -> str:
    steering = study.change(what, lambda now: replace(now, limits={**now.limits, param.name: limit}))
    return _described(study, param.name, steering)


def _described(study: StudyFile, name: str, steering: Steering) -> str:
    param = steered(study.config.space, steering)[name]
    limit = steering.limits.get(name)
    if limit is None:
        return f"{name}: {param.describe_range()}"
    left = narrowed(param, limit)
    if not left.choices and left._low == left._high:
        return f"{name}: held at {show_value(left.cast(left._low))} (in the space: {param.describe_range()})"
    return f"{name}: only {left.describe_range()} (in the space: {param.describe_range()})"


def _parsed_limit(command: str, param: Param, words: list[str], *, check: bool = True) -> Limit:
    if param.choices:
        return Limit(values=tuple(_value(param, word) for word in words[1:]))
    if len(words) != 3:
        raise wrong_use(command, words)
    low, high = _number(words[1], "float"), _number(words[2], "float")
    if low > high:
        raise ConfigError(f"/{command} {' '.join(words)}: {words[1]} is above {words[2]}; swap them")
    if check:
        narrowed(param, Limit(low, high))
    return Limit(low, high)


def _value(param: Param, word: str) -> ParamValue:
    """What the person means by a word, among the values of a parameter. Raises: ConfigError."""
    value: ParamValue = (
        next((c for c in param.choices if str(c) == word), word) if param.choices else _number(word, "float")
    )
    problem = param.check(value)
    if problem:
        raise ConfigError(problem)
    return param.cast(value)


def _literal(word: str, param: Param) -> ParamValue:
    """A new choice, of the type that all the others have where that is a number."""
    kinds = {type(c) for c in param.choices}
    if kinds == {int} or kinds == {float}:
        return _number(word, "int" if kinds == {int} else "float")
    return word


def _like(param: Param, number: float) -> float:
    return int(number) if param_to_dict(param)["type"] == "int" else number


def _number(word: str, kind: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (kind == "int" and number != int(number)):
        raise ConfigError(
            f"{word[:60]!r} is not {'a whole' if kind == 'int' else 'a finite'} number; write one such as {'12' if kind == 'int' else '1e-4'}"
        )
    return int(number) if kind == "int" else number

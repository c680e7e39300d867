"""What the model is asked: the words of the task and the space, and later the history, in prompts of a fixed size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from llmhpo.agents.base import Question
from llmhpo.agents.beliefs import beliefs_form, beliefs_schema
from llmhpo.agents.outlook import Outlook, outlook_text
from llmhpo.agents.reply import reply_form, reply_keys
from llmhpo.cards import knowledge
from llmhpo.history import Best, goal, history_table, names_fit, rows_suffice, space_card, standing, summary, trial_rows
from llmhpo.prompts import Prompt, as_data, load, rough_tokens
from llmhpo.surrogates.incumbent import estimates, settled
from llmhpo.trial import Context

_BRIEF_TOKENS = 80
_LEAST_PART = 40  # tokens: a part that has less room is left out
_IN_ORDER = "Trials in the order of their numbers:"
_BY_VALUE = "Trials, the best first:"
_BY_EXPECTED = "Configurations by the value expected of all their runs, which differ by chance, the best first:"
_LONG_NUMBER = "10"  # of configurations: so long may it be without changing the room of what stands before it


@dataclass(frozen=True, slots=True)
class Templates:
    """The files that questions are asked with: for most models, and for those that need a short one (`needs_short`).

    Their fixed part comes first and the trials in order, so that a request that follows another costs its new rows; where a
    space has so many parameters that there is room for a few rows alone, these are the best ones.
    `evals prompts` compares versions. On SmolLM2 propose-plain.v1 was a little better than the best-first propose.v1, no difference
    between propose.v1 and v2 was shown, and the compact ones proposed worse batches, so they are not in use; of larger models nothing
    is known yet.
    """

    warmstart: str = "warmstart.v3"
    propose: str = "propose.v3"
    short_warmstart: str = "warmstart.v1"
    short_propose: str = "propose-plain.v1"


class _Sizes(NamedTuple):
    """Room for the parts of a prompt, in tokens of a hard tokenizer but for `task_chars`."""

    whole: int
    task_chars: int
    task: int
    space: tuple[int, int, int]  # at least, for each parameter, and more where names are not listed again
    history: tuple[int, int]  # it gets what the rest leaves, within these; a few rows of many parameters may be longer
    kept: int  # for the history, before outlook and background have any
    standing: int  # of the history's room where its rows are in order, at most a third of it: counts and the best four
    outlook: int
    background: int


_FULL = _Sizes(1490, 900, 220, (560, 45, 120), (200, 800), 300, 250, 200, 240)
_SHORT = _Sizes(800, 300, 80, (280, 25, 60), (120, 320), 160, 100, 120, 100)


def warmstart(context: Context, n: int, *, reasons: bool, templates: Templates | None = None) -> Question:
    """Ask for `n` zero-shot configurations from the words of the task alone, and for beliefs unless it has answered before.

    A model that is not asked for `reasons` is asked by the short template; one without a place for beliefs asks for none.
    """
    templates = templates or Templates()
    answered = any(not b.error for b in context.batches)
    short = not reasons or answered or beliefs_schema(context.space) is None
    prompt = load(templates.short_warmstart if short else templates.warmstart)
    values = _values(prompt, context, n, reasons)
    room = _room(prompt, values)
    if prompt.takes("background"):
        values["background"] = _part(background(context, min(room, _sizes(prompt).background)))
    return replace(_question("warmstart", prompt, values, n, reasons), beliefs=prompt.takes("beliefs"))


def propose(
    context: Context,
    n: int,
    *,
    reasons: bool,
    view: Outlook | None = None,
    brief: bool = False,
    templates: Templates | None = None,
) -> Question:
    """Ask for `n` configurations that follow from the trials so far, and from the `view` of the numeric side.

    Where values are noisy, the best are those by `estimates`. A `brief` question shows the very best trials alone.
    """
    templates = templates or Templates()
    prompt = load(templates.propose if reasons else templates.short_propose)
    values = _values(prompt, context, n, reasons)
    build = _with_trials if prompt.takes("trials") else _of_old
    return _question("propose", prompt, values | build(prompt, values, context, view, brief=brief), n, reasons)


def _with_trials(
    prompt: Prompt, values: Mapping[str, str], context: Context, view: Outlook | None, *, brief: bool
) -> dict[str, str]:
    """The parts of a prompt to which the next one adds rows: nothing before these depends on a trial, nor does their room."""
    if brief:
        return _best_first(context, _BRIEF_TOKENS, {})
    sizes = _sizes(prompt)
    whole = _room(prompt, {**values, "n": _LONG_NUMBER, "trials": _IN_ORDER})
    spare = max(0, whole - sizes.kept)
    told = min(spare, sizes.outlook) if prompt.takes("outlook") else 0
    known = background(context, min(spare - told, sizes.background)) if prompt.takes("background") else ""
    low, high = sizes.history
    room = max(low, whole - told - rough_tokens(known))
    effects = {} if view is None or told else view.effects
    seen = "" if view is None else _part(outlook_text(view, context, told))
    parts = {"background": _part(known), "outlook": seen}
    return parts | (
        _in_order(context, min(high, room), sizes.standing, effects)
        or _best_first(context, room + told - rough_tokens(seen), effects)
    )


def _in_order(context: Context, room: int, most_aside: int, effects: Mapping[str, float]) -> dict[str, str]:
    """The trials by number, and how things stand; empty where there is room for too few."""
    aside = min(room // 3, most_aside)
    if not rows_suffice(context, max_tokens=room - aside):
        return {}
    rows = trial_rows(context, max_tokens=room - aside)
    best = [Best(e.trial, e.value, e.n) for e in estimates(context)] if context.task.noisy else None
    stands = standing(context, rows, max_tokens=aside, best=best, sensitivities=effects)
    return {"trials": f"{_IN_ORDER}\n{rows.text}", "standing": stands}


def _best_first(context: Context, room: int, effects: Mapping[str, float]) -> dict[str, str]:
    """The trials by value in the place of those by number: of few rows, little is read again."""
    title = _BY_EXPECTED if context.task.noisy else _BY_VALUE
    counts = f"So far {summary(context)}."
    left = room - rough_tokens(title) + rough_tokens(_IN_ORDER) - rough_tokens(counts)
    table = history_table(settled(context), max_tokens=left, sensitivities=effects)
    return {"trials": f"{title}\n{table}", "standing": counts}


def _of_old(
    prompt: Prompt, values: Mapping[str, str], context: Context, view: Outlook | None, *, brief: bool
) -> dict[str, str]:
    """The parts of a prompt of old."""
    sizes = _sizes(prompt)
    parts = {"summary": summary(context)}
    low, high = sizes.history
    room, effects = _room(prompt, {**values, **parts}) - sizes.kept, {}
    if brief:
        low = room = _BRIEF_TOKENS
    elif view is not None and prompt.takes("outlook"):
        parts["outlook"] = _part(outlook_text(view, context, min(room, sizes.outlook)))
    elif view is not None:
        effects = dict(view.effects)
    if prompt.takes("background") and not brief:
        room -= rough_tokens(parts.get("outlook", ""))
        parts["background"] = _part(background(context, min(room, sizes.background)))
    left = _room(prompt, {**values, **parts}) if not brief else low
    table = history_table(settled(context), max_tokens=min(high, max(low, left)), sensitivities=effects)
    return parts | {"history": table}


def _question(kind: str, prompt: Prompt, values: Mapping[str, str], n: int, reasons: bool) -> Question:
    return Question(kind, prompt, load("system.v1").render(), prompt.render(**values), n, reasons)


def _values(prompt: Prompt, context: Context, n: int, reasons: bool) -> dict[str, str]:
    """What every template may show; the parts whose room is not known yet are empty."""
    sizes = _sizes(prompt)
    least, each, unrepeated = sizes.space
    least += 0 if names_fit(context.space.names) else unrepeated
    return {
        "task": as_data(context.task.text, sizes.task_chars, sizes.task) or "not described",
        "goal": goal(context.task),
        "space": space_card(context.space, max(least, each * len(context.space))),
        "n": str(n),
        "keys": reply_keys(context.space, reasons=reasons),
        "form": reply_form(context.space, reasons=reasons),
        "beliefs": beliefs_form(context.space) if prompt.takes("beliefs") else "",
    } | dict.fromkeys(("summary", "history", "trials", "standing", "outlook", "background"), "")


def _sizes(prompt: Prompt) -> _Sizes:
    return _SHORT if "-compact." in prompt.name else _FULL


def _room(prompt: Prompt, values: Mapping[str, str]) -> int:
    """Tokens that a prompt has left."""
    taken = rough_tokens(load("system.v1").render()) + rough_tokens(prompt.render(**values))
    return _sizes(prompt).whole - taken


def background(context: Context, max_tokens: int) -> str:
    """What the literature says on jobs of this kind, in whole lines."""
    if max_tokens < _LEAST_PART:
        return ""
    head = "From the literature on such jobs:"
    about = context.task.text.strip() or " ".join(context.space.names)
    found = knowledge(about, max_tokens - rough_tokens(head) - 1)
    return f"{head}\n{found}" if found else ""


def _part(text: str) -> str:
    """A part of a prompt that may be missing, set off by an empty line where it is not."""
    return f"\n{text}" if text else ""

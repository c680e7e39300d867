"""What the model is asked for an edit: the task, the code that may change, what running it has shown, what else was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmhpo.agents.edit.signals import feedback
from llmhpo.agents.edit.tree import Commission, Node, archive, describe, edit_effect
from llmhpo.code.edit import GRAMMAR
from llmhpo.code.regions import Region
from llmhpo.history import goal, show_number, space_card
from llmhpo.prompts import Prompt, as_code, as_data, as_line, load
from llmhpo.trial import Context

_CODE_CHARS = {False: 24_000, True: 2_400}  # by whether the model is compact
_TASK_CHARS = 900
_ROWS = 6
_SHORT_ID = 8
_TOKENS_EACH = 700  # of an edit in blocks
_MOST_TOKENS = {False: 12_000, True: 300}
_INTENTS = {
    "draft": "Change what holds this code back most.",
    "improve": "Improve on this version; combine it with what worked in others.",
    "debug": "This version fails. Mend it, and keep what it was meant to do.",
}
_COMPACT_GRAMMAR = """\
FILE: train.py
<<<<<<< SEARCH
one line to replace, copied exactly
=======
the line to put in its place
>>>>>>> REPLACE"""


class EditRequest(NamedTuple):
    """A rendered prompt, and how long its answer may be."""

    prompt: Prompt
    system: str
    user: str
    n: int
    max_tokens: int


def edit_request(
    context: Context,
    nodes: Sequence[Node],
    task: Commission,
    code: Sequence[tuple[Region, str]],
    n: int,
    *,
    descriptors: Sequence[str],
    compact: bool,
) -> EditRequest:
    """Ask for `n` edits of the regions `code`, which hold the text of the revision that `task` names."""
    prompt = load("edit-compact.v1" if compact else "edit.v1")
    paths = sorted({region.path for region, _ in code})
    values = {
        "task": as_data(context.task.text, _TASK_CHARS // (3 if compact else 1)) or "not described",
        "goal": goal(context.task),
        "revision": _name(task.parent),
        "code": _code(code, _CODE_CHARS[compact]),
        "feedback": _feedback(context, task.parent, paths, compact=compact),
        "intent": _INTENTS[task.intent],
        "n": n,
        "grammar": _COMPACT_GRAMMAR.replace("train.py", str(code[0][0])) if compact else GRAMMAR.strip(),
        "space": space_card(context.space_of(task.parent.code)),
        "elites": _elites(context, nodes, descriptors),
    }
    lines = sum(text.count("\n") + 1 for _, text in code)
    tokens = min(_MOST_TOKENS[compact], n * (_TOKENS_EACH + 14 * lines))
    return EditRequest(prompt, load("editor.v1").render(), prompt.render(**values), n, tokens)


def _code(code: Sequence[tuple[Region, str]], max_chars: int) -> str:
    each = max_chars // len(code)
    return "\n\n".join(f"FILE: {as_line(str(region), 200)}\n{as_code(text, each)}" for region, text in code)


def _feedback(context: Context, node: Node, paths: Sequence[str], *, compact: bool) -> str:
    """Of the best trial and, where there is one, of the last that failed."""
    failed = [t for t in node.trials if t.outcome is not None and t.value is None]
    chosen = [t for t in (node.best, *failed[-1:]) if t is not None]
    shown = [feedback(t, context.task, paths) for t in chosen]
    return as_data("\n".join(shown), 500) if compact else "\n\n".join(shown)


def _elites(context: Context, nodes: Sequence[Node], descriptors: Sequence[str]) -> str:
    """A line for each elite, then for the edits that came to nothing: what not to try again."""
    elites = list(archive(context, nodes, descriptors).values())
    rest = sorted(
        (n for n in nodes if n.state == "alive" and n not in elites), key=lambda n: context.task.loss(_value(n))
    )
    lines = [_row(context, n, descriptors) for n in [*elites, *rest][:_ROWS]]
    lost = [n for n in nodes if n.state in ("broken", "closed")][-_ROWS:]
    lines += [f"- {_name(n)}, {n.state}: {as_line(n.why, 120)} [{as_line(n.revision.note, 120)}]" for n in lost]
    return "\n".join(lines)


def _row(context: Context, node: Node, descriptors: Sequence[str]) -> str:
    parts = [
        f"- {_name(node)}: {as_line(context.task.metric, 40)} {show_number(_value(node))}, {len(node.trials)} trials"
    ]
    if (effect := edit_effect(context, node)) is not None:
        parts.append(
            f", its edit {'improved' if effect < 0 else 'did not improve'} on {node.revision.parent[:_SHORT_ID]}"
        )
    described = ((name, describe(node, name)) for name in descriptors)
    parts += [f", {as_line(name, 40)} {show_number(value)}" for name, value in described if value is not None]
    return "".join(parts) + (f" [{as_line(node.revision.note, 160)}]" if node.revision.note else "")


def _name(node: Node) -> str:
    return f"version {node.revision.id[:_SHORT_ID]}" + ("" if node.code else " (the user's own)")


def _value(node: Node) -> float:
    assert node.best is not None
    assert node.best.value is not None
    return node.best.value

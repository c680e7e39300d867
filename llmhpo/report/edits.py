"""The report's section on edited code: the tree of versions, and what each changed."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

from llmhpo.agents.edit.tree import Node, parent_code, tree
from llmhpo.history import show_number
from llmhpo.report.markup import Markup, el, join, line
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context

Diff = Callable[[str, str], str]
_MOST_VERSIONS, _MOST_LINES, _LINE_CHARS = 60, 400, 300
_CLASSES = {"+": "added", "-": "removed", "@": "place"}
_ENDS = {"broken": "failed", "closed": "refused"}


def code_section(context: Context, diff: Diff | None) -> Iterator[Markup]:
    """Nothing where no code is edited. `diff` gives what changes from one revision's id to another's, as a patch."""
    if context.baseline is None:
        return
    best = incumbent(context)
    leader = "" if best is None else best.proposal.code
    nodes = tree(context)[:_MOST_VERSIONS]
    below: dict[str, list[Node]] = {}
    for node in nodes[1:]:
        below.setdefault(parent_code(context, node.revision), []).append(node)
    yield el("ul", _branch(nodes[0], below, leader), class_="tree")
    if (more := len(context.revisions) + 1 - len(nodes)) > 0:
        yield el("p", f"and {more} later versions", class_="quiet")
    if diff is None:
        return
    if leader:
        yield el("p", "What the best version changes in the code as it stood:")
        yield _patch(diff(context.baseline.id, leader))
    for node in nodes[1:]:
        what = f"{node.code[:8]}: {line(node.revision.note, 160) or 'what it changes in the version before'}"
        yield el("details", el("summary", what), _patch(diff(node.revision.parent, node.code)))


def _branch(node: Node, below: dict[str, list[Node]], leader: str) -> Markup:
    """A version and those made from it."""
    inner = [_branch(child, below, leader) for child in below.get(node.code, ())]
    return el("li", _label(node, leader), *([el("ul", *inner)] if inner else []))


def _label(node: Node, leader: str) -> Markup:
    count = f"{len(node.trials)} trial" + "s" * (len(node.trials) != 1)
    if node.best is not None and node.best.value is not None:
        found = f"{show_number(node.best.value)} (trial {node.best.number}, {count})"
    else:
        found = f"{_ENDS.get(node.state, 'no result yet')} ({count})"
    name = f"{node.code[:8]}, {node.revision.source}" if node.code else "the code as it stood"
    tunes = ", ".join(line(p.name, 40) for p in node.revision.hyperparameters)
    note = line(node.revision.note, 200) if node.code else ""
    words = [note, f"tunes {tunes}" if tunes else "", line(node.why, 200)]
    about = "; ".join(text for text in words if text)
    kind = "better" if node.code == leader else "worse" if node.state == "broken" else None
    rest = f" - {name}" + (f": {about}" if about else "") + (" (best)" if node.code == leader else "")
    return join([el("b", found, class_=kind), rest])


def _patch(text: str) -> Markup:
    """A diff, its lines coloured; capped, with nothing unseen in it."""
    lines: Sequence[str] = text.splitlines()
    shown = [el("span", _seen(part) + "\n", class_=_CLASSES.get(part[:1])) for part in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(el("span", f"({len(lines) - _MOST_LINES} more lines: llmhpo diff shows them)", class_="quiet"))
    return el("pre", *(shown or [Markup("nothing")]), class_="patch")


def _seen(text: str) -> str:
    """A line of code as it stands, but for characters that are not seen or that turn the text around."""
    shown = "".join(c if c == "\t" or c == " " or unicodedata.category(c)[0] not in "CZ" else "\ufffd" for c in text)
    return shown if len(shown) <= _LINE_CHARS else shown[:_LINE_CHARS] + "..."

"""Settings without a command line: constants of the module, and of plain Config classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from llmhpo.param import UNSET
from llmhpo.reading.base import Found, Source, scalar, to_kind
from llmhpo.reading.values import assignments, dotted

_CLASSES = ("config", "cfg", "args", "params", "hparams", "hyperparameters", "settings", "options")
SACRED = "with"  # the word before what a sacred experiment is given


def read_constants(source: Source) -> list[Found]:
    """Names that are bound once, to a scalar, and read somewhere; fields of plain classes named Config or the like."""
    read = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found = [
        f
        for name, node in source.scope.bound.items()
        if name in read and (f := _constant(source, name, name, node, "")) is not None
    ]
    for cls in (n for n in ast.walk(source.tree) if isinstance(n, ast.ClassDef)):
        if cls.name.lower().endswith(_CLASSES) and not cls.decorator_list and not cls.bases:
            found += _members(source, cls)
    return sorted(found, key=lambda f: (f.where.cell or 0, f.where.line))


def read_sacred(source: Source) -> list[Found]:
    """The variables of functions under sacred's `@ex.config`, passed as `with lr=0.1`; True and False are Python's."""
    found = []
    for function in (n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef)):
        if not any(dotted(d).endswith(".config") for d in function.decorator_list):
            continue
        for name, node in (pair for s in function.body for pair in assignments(s)):
            value = source.scope.value(node)
            if scalar(value) is UNSET and not isinstance(value, tuple):
                continue
            one = Found(
                name, to_kind(value), source.place(node.lineno), "override", name, default=scalar(value),
                doc=comment_beside(source, node), owner=SACRED,
            )  # fmt: skip
            is_bool = one.kind == "bool"
            found.append(replace(one, passing="pair", spelling=f"{name}=True", off=f"{name}=False") if is_bool else one)
    return found


def _members(source: Source, cls: ast.ClassDef) -> Iterator[Found]:
    for statement in cls.body:
        for name, node in assignments(statement):
            if (one := _constant(source, name, f"{cls.name}.{name}", node, cls.name)) is not None:
                yield one


def _constant(source: Source, name: str, spelling: str, node: ast.expr, owner: str) -> Found | None:
    value = source.scope.value(node)
    if scalar(value) is UNSET or isinstance(node, ast.Name):  # an alias is no setting of its own
        return None
    return Found(
        name.lower(), to_kind(value), source.place(node.lineno), "constant", spelling, default=scalar(value),
        doc=comment_beside(source, node), owner=owner,
    )  # fmt: skip


def comment_beside(source: Source, node: ast.expr | ast.stmt) -> str:
    """The comment on the line where a node ends; "" where there is none."""
    line = source.text.split("\n")[(node.end_lineno or node.lineno) - 1]
    behind = line.encode()[node.end_col_offset or 0 :].decode(errors="replace").strip()
    return behind.lstrip("# ").strip()[:300] if behind.startswith("#") else ""

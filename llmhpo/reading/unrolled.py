"""Calls in loops over a table that is written in the code, once for each of its rows."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping

from llmhpo.reading.base import Source

_MOST_ROWS = 500


def unrolled(source: Source, method: str) -> list[ast.Call]:
    """All calls in the order of the file.

    One of `method` within `for name, default in TABLE:` or `for name, default in TABLE.items():` comes once for each row, with what stands
    in the row for the names of the loop; a loop over anything that is not written out is left as it is.
    """
    found = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    replaced: set[int] = set()
    for loop in [n for n in ast.walk(source.tree) if isinstance(n, ast.For)]:  # the outer ones come first
        calls = [
            n
            for statement in loop.body
            for n in ast.walk(statement)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == method
        ]
        rows = [_bound(loop.target, row) for row in _rows(source, loop.iter)] if calls else []
        if not rows or None in rows or replaced & {id(c) for c in calls}:
            continue
        replaced |= {id(c) for c in calls}
        found += [_with(call, names) for names in rows if names is not None for call in calls]
    return sorted((n for n in found if id(n) not in replaced), key=lambda n: (n.lineno, n.col_offset))


def _rows(source: Source, node: ast.expr) -> list[ast.expr]:
    """The rows of a list, a tuple, or `table.items()` as it is written, or bound to a name once; [] for anything else."""
    is_items = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items"
    of = node.func.value if is_items else node  # type: ignore[attr-defined]
    table = source.scope.bound.get(of.id) if isinstance(of, ast.Name) else of
    rows: list[ast.expr] = []
    if is_items and isinstance(table, ast.Dict) and all(table.keys):
        rows = [_pair(k, v) for k, v in zip(table.keys, table.values, strict=True) if k is not None]
    elif not is_items and isinstance(table, ast.List | ast.Tuple):
        rows = list(table.elts)
    return rows if len(rows) <= _MOST_ROWS else []


def _pair(key: ast.expr, value: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Tuple([key, value], ast.Load()), key)


def _bound(target: ast.expr, row: ast.expr) -> dict[str, ast.expr] | None:
    """The names of a loop's target with what stands for them in a row; None where they do not match."""
    if isinstance(target, ast.Name):
        return {target.id: row}
    if not isinstance(target, ast.Tuple) or not isinstance(row, ast.Tuple | ast.List):
        return None
    parts = [_bound(t, r) for t, r in zip(target.elts, row.elts, strict=False)]
    if len(target.elts) != len(row.elts) or any(part is None for part in parts):
        return None
    return {name: value for part in parts for name, value in (part or {}).items()}


def _with(call: ast.Call, names: Mapping[str, ast.expr]) -> ast.Call:
    """The call with other expressions for these names, at the line of the row that they stand in."""

    class Replacing(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return names.get(node.id, node)

    done = Replacing().visit(copy.deepcopy(call))
    used = [names[n.id].lineno for n in ast.walk(call) if isinstance(n, ast.Name) and n.id in names]
    done.lineno = min(used, default=call.lineno)
    assert isinstance(done, ast.Call)
    return done

"""Calls in loops over a table that is written in the code, once for each of its rows."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping

from llmhpo.reading.base import Source
from llmhpo.reading.reached import Paths
from llmhpo.reading.values import dotted

_MOST_ROWS = 500
_LOOKS = ("items", "keys", "values", "get", "index", "count", "copy")
_LOOKERS = ("len", "print", "list", "tuple", "dict", "set", "sorted", "enumerate", "zip", "repr", "str", "json.dumps")
_CHANGES = ("append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update")
_JUMPS = (ast.Continue, ast.Break, ast.Return, ast.Yield, ast.YieldFrom)


def unrolled(source: Source, method: str) -> list[ast.Call]:
    """All calls in the order of the file.

    One of `method` within `for name, default in TABLE:` or `for name, default in TABLE.items():` comes once for each row, with what stands
    in the row for the names of the loop. A loop is left as it is where it goes over anything that is not written out or that changes, may
    be passed by, or does not make the same call with each row as it stands.
    """
    found = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    replaced: set[int] = set()
    paths: Paths | None = None
    for loop in [n for n in ast.walk(source.tree) if isinstance(n, ast.For)]:
        if (call := _only(loop, method)) is None:
            continue
        paths = paths or Paths(source.tree)
        if not paths.is_reached(loop) or _is_changed(_table(loop.iter), paths):
            continue
        rows = [_bound(loop.target, row) for row in _rows(source, loop.iter)]
        if rows and None not in rows:
            replaced.add(id(call))
            found += [_with(call, names) for names in rows if names is not None]
    return sorted((n for n in found if id(n) not in replaced), key=lambda n: (n.lineno, n.col_offset))


def _only(loop: ast.For, method: str) -> ast.Call | None:
    """The call of `method` that is a statement of the loop's body; None where there are more, or not each turn comes to it as it is."""
    inside = [n for statement in loop.body for n in ast.walk(statement)]
    calls = [
        n for n in inside if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == method
    ]
    if len(calls) != 1 or any(isinstance(n, _JUMPS) for n in inside) or _alters(loop):
        return None
    is_statement = any(isinstance(s, ast.Expr | ast.Assign) and s.value is calls[0] for s in loop.body)
    return calls[0] if is_statement else None


def _alters(loop: ast.For) -> bool:
    """Whether the body gives a name of the loop, or a part of what it names, another value."""
    names = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
    return any(_changed(n) in names for statement in loop.body for n in ast.walk(statement))


def _changed(node: ast.AST) -> str:
    """The name that a node binds anew, or a part of whose value it changes; "" where it does neither."""
    if not isinstance(node, ast.Name | ast.Subscript | ast.Attribute):
        return ""
    if isinstance(node.ctx, ast.Load) and not (isinstance(node, ast.Attribute) and node.attr in _CHANGES):
        return ""
    inner: ast.expr = node
    while isinstance(inner, ast.Subscript | ast.Attribute):
        inner = inner.value
    return inner.id if isinstance(inner, ast.Name) else ""


def _is_changed(table: ast.expr, paths: Paths) -> bool:
    """Whether a table has a name, and anything is done with it that may change it."""
    if not isinstance(table, ast.Name):
        return False
    return not all(_only_looks(n, paths.parents) for n in paths.uses[table.id] if isinstance(n, ast.Name))


def _only_looks(name: ast.expr, parents: Mapping[ast.AST, ast.AST]) -> bool:
    parent = parents[name]
    if isinstance(parent, ast.Attribute):  # TABLE.items(): what goes over it may change its rows
        call = parents[parent]
        return parent.attr in _LOOKS and isinstance(call, ast.Call) and not _changes_rows(parents[call], call)
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Load) and not isinstance(parents[parent], ast.Subscript | ast.Attribute)
    if isinstance(parent, ast.Call):
        return dotted(parent.func) in _LOOKERS
    if isinstance(parent, ast.keyword):
        return parent.arg is None
    if isinstance(parent, ast.For):
        return not _changes_rows(parent, name)
    return isinstance(parent, ast.comprehension | ast.Compare | ast.FormattedValue | ast.Starred)


def _changes_rows(node: ast.AST, table: ast.expr) -> bool:
    """Whether a loop over the table changes what it finds there."""
    return isinstance(node, ast.For) and node.iter is table and _alters(node)


def _table(node: ast.expr) -> ast.expr:
    """What `TABLE` or `TABLE.items()` goes over."""
    return node.func.value if _is_items(node) else node  # type: ignore[attr-defined]


def _is_items(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items"


def _rows(source: Source, node: ast.expr) -> list[ast.expr]:
    """The rows of a list, a tuple, or `table.items()` as it is written, or bound to a name once; [] for anything else."""
    of = _table(node)
    table = source.scope.bound.get(of.id) if isinstance(of, ast.Name) else of
    rows: list[ast.expr] = []
    if _is_items(node) and isinstance(table, ast.Dict) and all(table.keys):
        rows = [_pair(k, v) for k, v in zip(table.keys, table.values, strict=True) if k is not None]
    elif not _is_items(node) and isinstance(table, ast.List | ast.Tuple):
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

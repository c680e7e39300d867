"""Values of expressions, found without running anything: literals, arithmetic on them, names that are bound once."""

from __future__ import annotations

import ast
import math
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Unknown(Enum):
    """The type of `UNKNOWN`, the value of what only running would tell."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
_DEEPEST = 40  # nested expressions; more is no setting
_LONGEST = 10_000  # members of a sequence, characters of a text
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_MATH = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Scope:
    """The names of a file that are bound exactly once, and the members of its enumerations."""

    bound: dict[str, ast.expr] = field(default_factory=dict)
    enums: dict[str, dict[str, ast.expr]] = field(default_factory=dict)

    def value(self, node: ast.expr | None, depth: int = 0) -> object:
        """The value: a scalar, a tuple (for lists and sets too), a dict; UNKNOWN for all else, also inside of these."""
        if node is None or depth > _DEEPEST:
            return UNKNOWN
        read = _READERS.get(type(node))
        return UNKNOWN if read is None else read(self, node, depth + 1)


def scope_of(tree: ast.Module) -> Scope:
    """Collect what is bound once in the whole file. A name that any function rebinds or takes as an argument is left out."""
    values: dict[str, ast.expr] = {}
    times: Counter[str] = Counter()
    enums: dict[str, dict[str, ast.expr]] = {}
    in_classes: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            in_classes |= {id(s) for s in node.body}
            if any(dotted(base).rpartition(".")[2] in ("Enum", "StrEnum", "IntEnum") for base in node.bases):
                enums[node.name] = {n: v for s in node.body for n, v in assignments(s)}
        if id(node) in in_classes:
            continue
        values |= dict(assignments(node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            times[node.id] += 1
        elif isinstance(node, ast.arg):
            times[node.arg] += 2
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            times[node.target.id] += 2
    return Scope({name: value for name, value in values.items() if times[name] == 1}, enums)


def assignments(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """(name, value) of `name = value`, also annotated, chained or in equal tuples; [] for any other statement."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return [(node.target.id, node.value)]
    out: list[tuple[str, ast.expr]] = []
    for target in node.targets if isinstance(node, ast.Assign) else ():
        assert isinstance(node, ast.Assign)
        if isinstance(target, ast.Name):
            out.append((target.id, node.value))
        elif isinstance(target, ast.Tuple | ast.List) and isinstance(node.value, ast.Tuple | ast.List):
            pairs = zip(target.elts, node.value.elts, strict=False)
            if len(target.elts) == len(node.value.elts):
                out += [(t.id, v) for t, v in pairs if isinstance(t, ast.Name)]
    return out


def dotted(node: ast.AST | None) -> str:
    """`a.b.c` of names and attributes; "" for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _constant(_scope: Scope, node: ast.expr, _depth: int) -> object:
    assert isinstance(node, ast.Constant)
    value = node.value
    if value is None or isinstance(value, bool | int | float):
        return value
    return value if isinstance(value, str) and len(value) <= _LONGEST else UNKNOWN


def _sequence(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.List | ast.Tuple | ast.Set)
    if len(node.elts) > _LONGEST or any(isinstance(e, ast.Starred) for e in node.elts):
        return UNKNOWN
    return tuple(scope.value(e, depth) for e in node.elts)


def _table(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.Dict)
    keys = [scope.value(k, depth) for k in node.keys]
    if any(not isinstance(k, str | int | float | bool) for k in keys) or len(keys) > _LONGEST:
        return UNKNOWN
    return dict(zip(keys, (scope.value(v, depth) for v in node.values), strict=True))


def _name(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.Name)
    if node.id in scope.enums:
        return tuple(scope.value(v, depth) for v in scope.enums[node.id].values())
    return scope.value(scope.bound.get(node.id), depth)


def _attribute(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.Attribute)
    path = dotted(node).split(".")
    if path[0] in ("math", "np", "numpy", "torch") and len(path) == 2:
        return _MATH.get(path[1], UNKNOWN)
    if len(path) in (2, 3) and path[0] in scope.enums and path[1] in scope.enums[path[0]]:
        return path[1] if path[2:] == ["name"] else scope.value(scope.enums[path[0]][path[1]], depth)
    return UNKNOWN


def _unary(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.UnaryOp)
    value = scope.value(node.operand, depth)
    if isinstance(node.op, ast.Not) and isinstance(value, bool):
        return not value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN
    return -value if isinstance(node.op, ast.USub) else value if isinstance(node.op, ast.UAdd) else UNKNOWN


def _binary(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.BinOp)
    left, right = scope.value(node.left, depth), scope.value(node.right, depth)
    if isinstance(node.op, ast.Add) and isinstance(left, str | tuple) and type(left) is type(right):
        joined = left + right  # type: ignore[operator]
        return joined if len(joined) <= _LONGEST else UNKNOWN
    act = _ARITHMETIC.get(type(node.op))
    if act is None or not all(isinstance(v, int | float) and abs(v) < 1e18 for v in (left, right)):
        return UNKNOWN
    if isinstance(node.op, ast.Pow) and abs(right) > 64:  # type: ignore[arg-type]
        return UNKNOWN
    try:
        value = act(left, right)  # type: ignore[arg-type]
    except (ArithmeticError, ValueError):
        return UNKNOWN
    return value if isinstance(value, int | float) else UNKNOWN


def _call(scope: Scope, node: ast.expr, depth: int) -> object:
    """A few calls that only convert: list(X), sorted(X), X.keys(), range(3), float("1e-3"), int(1e6)."""
    assert isinstance(node, ast.Call)
    if isinstance(node.func, ast.Attribute) and node.func.attr == "replace" and not node.keywords:
        words = [scope.value(n, depth) for n in (node.func.value, *node.args)]
        short = [w for w in words if isinstance(w, str) and len(w) <= 100]
        return short[0].replace(short[1], short[2]) if len(short) == len(words) == 3 else UNKNOWN
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "split") and len(node.args) <= 1:
        inner = scope.value(node.func.value, depth)
        if node.func.attr == "keys" and isinstance(inner, dict):
            return tuple(inner)
        return tuple(inner.split()) if isinstance(inner, str) and not node.args else UNKNOWN
    name, inner = dotted(node.func), scope.value(node.args[0], depth) if len(node.args) == 1 else UNKNOWN
    if (
        name in ("list", "tuple", "sorted", "set", "frozenset")
        and isinstance(inner, tuple | dict)
        and not node.keywords
    ):
        members = tuple(inner)
        try:
            return tuple(sorted(members)) if name == "sorted" else members
        except TypeError:
            return UNKNOWN
    if name == "range":
        bounds = [b for a in node.args if isinstance(b := scope.value(a, depth), int)]
        if len(bounds) != len(node.args) or not 1 <= len(bounds) <= 3 or 0 in bounds[2:]:
            return UNKNOWN
        span = range(*bounds)
        return tuple(span) if len(span) <= _LONGEST else UNKNOWN
    if name in ("float", "int", "str", "bool") and isinstance(inner, int | float | str):
        try:
            return {"float": float, "int": int, "str": str, "bool": bool}[name](inner)
        except (ValueError, OverflowError):
            return UNKNOWN
    return UNKNOWN


def _comprehension(scope: Scope, node: ast.expr, depth: int) -> object:
    """`[m.value for m in Enumeration]`, `[m.name ...]` and `[x for x in X]`."""
    assert isinstance(node, ast.ListComp)
    loop, of = node.generators[0], dotted(node.generators[0].iter)
    if len(node.generators) > 1 or loop.ifs or not isinstance(loop.target, ast.Name):
        return UNKNOWN
    element = dotted(node.elt)
    if of in scope.enums and element == f"{loop.target.id}.name":
        return tuple(scope.enums[of])
    if element in ((f"{loop.target.id}.value", loop.target.id) if of in scope.enums else (loop.target.id,)):
        inner = scope.value(loop.iter, depth)
        return tuple(inner) if isinstance(inner, tuple | dict) else UNKNOWN
    return UNKNOWN


def _joined(scope: Scope, node: ast.expr, depth: int) -> object:
    """`f"--{name}"` of known texts and whole numbers."""
    assert isinstance(node, ast.JoinedStr)
    parts: list[str] = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue) and (part.format_spec is not None or part.conversion != -1):
            return UNKNOWN
        value = scope.value(part.value if isinstance(part, ast.FormattedValue) else part, depth)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return UNKNOWN
        parts.append(str(value))
    text = "".join(parts)
    return text if len(text) <= _LONGEST else UNKNOWN


def _subscript(scope: Scope, node: ast.expr, depth: int) -> object:
    assert isinstance(node, ast.Subscript)
    of, key = scope.value(node.value, depth), scope.value(node.slice, depth)
    if isinstance(of, dict) and isinstance(key, str | int | float | bool):
        return of.get(key, UNKNOWN)
    inside = isinstance(of, tuple) and isinstance(key, int) and -len(of) <= key < len(of)
    return of[key] if inside else UNKNOWN  # type: ignore[index]


_READERS: dict[type[ast.expr], Callable[[Scope, ast.expr, int], object]] = {
    ast.Constant: _constant, ast.List: _sequence, ast.Tuple: _sequence, ast.Set: _sequence, ast.Dict: _table,
    ast.Name: _name, ast.Attribute: _attribute, ast.UnaryOp: _unary, ast.BinOp: _binary, ast.Call: _call,
    ast.ListComp: _comprehension, ast.Subscript: _subscript, ast.JoinedStr: _joined,
}  # fmt: skip

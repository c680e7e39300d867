"""Type annotations and type arguments as kinds, choices and bounds."""

from __future__ import annotations

import ast
from typing import NamedTuple

from llmhpo.param import ParamValue
from llmhpo.reading.base import Kind, scalars
from llmhpo.reading.values import Scope, dotted

_KINDS: dict[str, Kind] = {
    "float": "float", "int": "int", "bool": "bool", "str": "str", "Path": "path", "PathLike": "path", "FilePath": "path",
    "DirectoryPath": "path", "PositiveFloat": "float", "NonNegativeFloat": "float", "PositiveInt": "int",
    "NonNegativeInt": "int", "FileType": "path", "File": "path", "list": "list", "List": "list", "tuple": "list",
    "Tuple": "list", "Sequence": "list", "Iterable": "list", "set": "list", "dict": "list", "Dict": "list",
    "Mapping": "list", "FLOAT": "float", "INT": "int", "BOOL": "bool", "STRING": "str", "IntRange": "int",
    "FloatRange": "float", "Choice": "str", "boolean": "bool", "strtobool": "bool",
}  # fmt: skip


class Hint(NamedTuple):
    """What a type says. `calls` are the calls in `Annotated[...]`, which hold help texts and bounds."""

    kind: Kind = "unknown"
    choices: tuple[ParamValue, ...] = ()
    calls: tuple[ast.Call, ...] = ()


class Bounds(NamedTuple):
    """The inclusive bounds that a script states; None where it states none."""

    low: float | None = None
    high: float | None = None


def read_annotation(node: ast.expr | None, scope: Scope, depth: int = 0) -> Hint:
    """The kind of `float`, `Optional[int]`, `int | None`, `Literal["a", "b"]`, `Annotated[float, ...]`, an enumeration."""
    if node is None or depth > 10:
        return Hint()
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return read_annotation(ast.parse(node.value[:1000], mode="eval").body, scope, depth + 1)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Hint()
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right], scope, depth)
    if isinstance(node, ast.Subscript):
        return _subscripted(node, scope, depth)
    name = dotted(node)
    if name in scope.enums:
        return _choices(scalars(scope.value(node)))
    return Hint(_KINDS.get(name.rpartition(".")[2], "unknown"))


def _subscripted(node: ast.Subscript, scope: Scope, depth: int) -> Hint:
    name = dotted(node.value).rpartition(".")[2]
    members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name in ("Optional", "Union"):
        return _union(members, scope, depth)
    if name == "Literal":
        return _choices(scalars(tuple(scope.value(m) for m in members)))
    if name in ("Annotated", "Final", "ClassVar", "Required"):
        calls = tuple(m for m in members[1:] if isinstance(m, ast.Call))
        return read_annotation(members[0], scope, depth + 1)._replace(calls=calls)
    return Hint(_KINDS.get(name, "unknown"))


def _union(members: list[ast.expr], scope: Scope, depth: int) -> Hint:
    hints = [
        read_annotation(m, scope, depth + 1) for m in members if not (isinstance(m, ast.Constant) and m.value is None)
    ]
    kinds = {h.kind for h in hints}
    if len(hints) == 1:
        return hints[0]
    return Hint("float") if kinds == {"int", "float"} else Hint()


def _choices(choices: tuple[ParamValue, ...]) -> Hint:
    kinds = {type(c).__name__ for c in choices if c is not None}
    one = kinds.pop() if len(kinds) == 1 else "unknown"
    return Hint(_KINDS.get(one, "unknown"), choices)


def read_type(node: ast.expr | None, scope: Scope) -> tuple[Hint, Bounds]:
    """The type that an option is declared with: a name, a lambda, click's Choice and ranges, a converter of the script."""
    if isinstance(node, ast.Lambda):
        calls = [dotted(c.func) for c in ast.walk(node.body) if isinstance(c, ast.Call)]
        first = next((name for name in calls if name in ("float", "int", "str", "bool")), "")
        return Hint(_KINDS.get(first, "unknown")), Bounds()
    if isinstance(node, ast.Call):
        name = dotted(node.func).rpartition(".")[2]
        if name == "Choice":
            hint = _choices(scalars(scope.value(node.args[0] if node.args else keyword(node, "choices"))))
            return hint._replace(kind="str" if hint.kind == "unknown" else hint.kind), Bounds()
        if name in ("IntRange", "FloatRange"):
            ends = [*node.args[:2], None, None][:2]
            low = scope.value(ends[0] or keyword(node, "min"))
            high = scope.value(ends[1] or keyword(node, "max"))
            return Hint(_KINDS[name]), Bounds(_finite(low), _finite(high))
        return Hint(_KINDS.get(name, "unknown")), Bounds()
    name = dotted(node).rpartition(".")[2]
    if node is not None and dotted(node) in scope.enums:
        return read_annotation(node, scope), Bounds()
    return Hint(_KINDS.get(name) or _converter(name)), Bounds()


def _converter(name: str) -> Kind:
    """The kind that a home-made converter's name tells: str2bool, positive_int, float_or_none."""
    words = name.lower().replace("2", "_to_").split("_")
    told: dict[str, Kind] = {"bool": "bool", "flag": "bool", "float": "float", "int": "int", "path": "path"}
    for word, kind in told.items():
        if word in words:
            return kind
    return "list" if words[-1] in ("list", "tuple", "csv") else "unknown"


def read_bounds(call: ast.Call, scope: Scope) -> Bounds:
    """pydantic's `ge`, `gt`, `le`, `lt`, typer's `min` and `max`, absl's `lower_bound` and `upper_bound`."""
    low = next(
        (v for k in ("ge", "gt", "min", "lower_bound") if (v := _finite(scope.value(keyword(call, k)))) is not None),
        None,
    )
    high = next(
        (v for k in ("le", "lt", "max", "upper_bound") if (v := _finite(scope.value(keyword(call, k)))) is not None),
        None,
    )
    return Bounds(low, high)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument of a call; None where it is not given."""
    return next((k.value for k in call.keywords if k.arg == name), None)


def text(node: ast.expr | None, scope: Scope) -> str:
    """A help text on one line, at most 300 characters; "" where it is none."""
    value = scope.value(node)
    return " ".join(value.split())[:300] if isinstance(value, str) else ""


def _finite(value: object) -> float | None:
    inside = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if inside else None  # type: ignore[arg-type]

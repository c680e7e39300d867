"""Settings that come from outside without any parser: environment variables, and the words of `sys.argv`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from llmhpo.param import UNSET, ParamValue, Unset
from llmhpo.reading.base import Found, Kind, Passing, Source, fit, scalar, to_kind
from llmhpo.reading.options import imports
from llmhpo.reading.values import UNKNOWN, dotted

_READS = ("os.environ.get", "environ.get", "os.getenv", "getenv")
_TABLES = ("os.environ", "environ")
_CONVERSIONS: dict[str, Kind] = {"float": "float", "int": "int", "str": "str", "Path": "path", "pathlib.Path": "path"}
_OPENS = ("open", "Path", "read_text", "load", "safe_load", "loads", "read_yaml", "read_json")
_FORMATS = {"yaml", "json", "tomllib", "tomli", "toml", "omegaconf", "ruamel"}


def read_environment(source: Source) -> list[Found]:
    """`float(os.environ.get("LR", "0.1"))` and the like: the kind is that of the conversion around it, else the default's.

    `os.environ["LR"] if "LR" in os.environ else 0.1` and `os.getenv("LR") or 0.1` have their defaults too.
    """
    found: dict[str, Found] = {}
    uses = _uses(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in _READS and node.args:
            key, default = node.args[0], node.args[1] if len(node.args) > 1 else None
        elif isinstance(node, ast.Subscript) and dotted(node.value) in _TABLES:
            key, default = node.slice, None
        else:
            continue
        name = source.scope.value(key)
        if isinstance(name, str) and name not in found and not name.startswith("LLMHPO_"):
            use = uses.get(id(node), _Use())
            found[name] = _found(source, node, name, "env", use._replace(default=default or use.default))
    return list(found.values())


def read_argv(source: Source) -> list[Found]:
    """`lr = float(sys.argv[1]) if len(sys.argv) > 1 else 0.1`: positional arguments, named by the variables that take them.

    Every position up to the last one is there; one that nothing names is a config file where it is opened as one.
    """
    uses, names = _uses(source.tree), dict(_targets(source.tree))
    places: dict[int, tuple[ast.Subscript, str]] = {}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Subscript) or not _is_argv(node.value, source):
            continue
        at = source.scope.value(node.slice)
        if isinstance(at, int) and at > 0 and (at not in places or id(node) in names):
            places[at] = (node, names.get(id(node), ""))
    if set(places) != set(range(1, len(places) + 1)):
        return []  # one is taken in some other way: the order of the rest is not known
    opened = _opened(source)
    found = []
    for at, (word, variable) in sorted(places.items()):
        name = variable or ("config" if id(word) in opened else f"argument_{at}")
        found.append(_found(source, word, name, "positional", uses.get(id(word), _Use())))
    return found if len({f.name for f in found}) == len(found) else []


class _Use(NamedTuple):
    """What is done with a word from outside: the conversion around it, and what stands for it where it is missing."""

    kind: Kind = "unknown"
    default: ast.expr | None = None


def _uses(tree: ast.Module) -> dict[int, _Use]:
    """The use of each node, by its id; a conversion reaches through what chooses between the word and a default."""
    uses: dict[int, _Use] = {}

    def note(node: ast.expr, use: _Use) -> None:
        before = uses.get(id(node), _Use())
        kind = before.kind if before.kind != "unknown" else use.kind
        uses[id(node)] = use = _Use(kind, before.default or use.default)
        for inner, default in _chosen(node):
            note(inner, _Use(use.kind, default))
        if (
            isinstance(node, ast.Call)
            and len(node.args) == 1
            and (to := _CONVERSIONS.get(dotted(node.func))) is not None
        ):
            note(node.args[0], _Use(to, use.default))

    for node in ast.walk(tree):  # outer nodes come first
        if isinstance(node, ast.expr):
            note(node, _Use())
    return uses


def _chosen(node: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(word, default) of `word if "X" in os.environ else default`, and of `word or default`."""
    if isinstance(node, ast.IfExp) and any(dotted(n) in (*_TABLES, "sys.argv", "argv") for n in ast.walk(node.test)):
        yield node.body, node.orelse
    elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        yield node.values[0], node.values[-1]


def _found(source: Source, node: ast.expr, name: str, passing: Passing, use: _Use) -> Found:
    raw: object = UNSET if use.default is None else source.scope.value(use.default)
    kind = to_kind(raw) if use.kind == "unknown" else use.kind
    if passing == "positional" and kind == "unknown":
        kind = "str"
    default: ParamValue | Unset = UNSET if raw is UNSET else fit(kind, scalar(raw))
    spelling = name if passing == "env" else name.lower()
    return Found(
        name.lower(), kind, source.place(node.lineno), passing, spelling, default=default, is_computed=raw is UNKNOWN
    )


def _is_argv(node: ast.expr, source: Source) -> bool:
    name = dotted(node)
    return name == "sys.argv" or (
        name == "argv"
        and any(
            isinstance(n, ast.ImportFrom) and n.module == "sys" and any(a.name == "argv" for a in n.names)
            for n in source.tree.body
        )
    )


def _targets(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(id of the subscript, variable) of each assignment whose value is a word of a list, converted or not, with a default or not."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for variable, value in pairs:
            if isinstance(variable, ast.Name) and (word := _word(value)) is not None:
                yield id(word), variable.id


def _word(node: ast.expr) -> ast.Subscript | None:
    """The subscript within conversions and defaults; None where anything else is done with it."""
    for inner, _ in _chosen(node):
        return _word(inner)
    if isinstance(node, ast.Call) and len(node.args) == 1 and dotted(node.func) in _CONVERSIONS:
        return _word(node.args[0])
    return node if isinstance(node, ast.Subscript) else None


def _opened(source: Source) -> set[int]:
    """The nodes within calls that open or parse a file, where the script reads config files at all."""
    if not imports(source.tree) & _FORMATS:
        return set()
    calls = (n for n in ast.walk(source.tree) if isinstance(n, ast.Call))
    return {id(inner) for call in calls if dotted(call.func).rpartition(".")[2] in _OPENS for inner in ast.walk(call)}

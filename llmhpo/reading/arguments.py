"""argparse and its relatives: every `add_argument`, in groups, subcommands and functions; `set_defaults`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from llmhpo.param import UNSET
from llmhpo.reading.annotations import keyword, read_type, text
from llmhpo.reading.base import Found, Kind, Passing, Source, fit, scalar, scalars, to_kind
from llmhpo.reading.unrolled import unrolled
from llmhpo.reading.values import UNKNOWN, dotted

_NOTHING = ("version", "help", "count", "append", "append_const", "extend", "store_const")


def read_arguments(source: Source) -> list[Found]:
    """Every `add_argument` whose name stands in the code."""
    commands = dict(_subcommands(source))
    aliases = {n for n, v in source.scope.bound.items() if isinstance(v, ast.Attribute) and v.attr == "add_argument"}
    found: list[Found] = []
    defaults: dict[str, ast.expr] = {}
    for node in unrolled(source, "add_argument"):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "set_defaults":
            defaults |= {k.arg: k.value for k in node.keywords if k.arg}
        is_add = isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"
        if is_add or (isinstance(node.func, ast.Name) and node.func.id in aliases):
            owner = dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            if (one := _argument(source, _spread(source, node), commands.get(owner, ""))) is not None:
                found.append(one)
    return [_with_default(source, f, defaults) for f in _unique(found)]


def _spread(source: Source, call: ast.Call) -> ast.Call:
    """The call with the keywords of a table spelled out: `add_argument("--lr", **options)`."""
    keywords: list[ast.keyword] = []
    for one in call.keywords:
        table = source.scope.bound.get(dotted(one.value), one.value) if one.arg is None else None
        if isinstance(table, ast.Call) and dotted(table.func) == "dict":
            keywords += table.keywords
        elif isinstance(table, ast.Dict):
            pairs = [(k.value, v) for k, v in zip(table.keys, table.values, strict=True) if isinstance(k, ast.Constant)]
            keywords += [ast.keyword(str(k), v) for k, v in pairs]
        else:
            keywords.append(one)
    return ast.copy_location(ast.Call(call.func, call.args, keywords), call)


def _subcommands(source: Source) -> Iterator[tuple[str, str]]:
    """(variable, subcommand) of each `variable = subparsers.add_parser("subcommand")`, and of the groups made from it."""
    known: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        func, target = node.value.func, dotted(node.targets[0])
        if not isinstance(func, ast.Attribute) or not target:
            continue
        if func.attr == "add_parser" and node.value.args:
            known[target] = str(source.scope.value(node.value.args[0]))
        elif func.attr in ("add_argument_group", "add_mutually_exclusive_group") and dotted(func.value) in known:
            known[target] = known[dotted(func.value)]
        else:
            continue
        yield target, known[target]


def _argument(source: Source, call: ast.Call, owner: str) -> Found | None:
    """One argument; None where its name is computed, or where it takes no value worth tuning (help, version, counts)."""
    scope = source.scope
    names = [v for a in call.args if isinstance(v := scope.value(a), str)]
    action = scope.value(keyword(call, "action")) if keyword(call, "action") is not None else "store"
    if not names or len(names) < len(call.args) or action in ("version", "help"):
        return None
    flags = [n for n in names if n.startswith("-")]
    spelling = next((n for n in flags if n.startswith("--")), names[0])
    dest = scope.value(keyword(call, "dest"))
    name = dest if isinstance(dest, str) else spelling.lstrip("-").replace("-", "_")
    raw = scope.value(keyword(call, "default")) if keyword(call, "default") is not None else None
    if dotted(keyword(call, "default")).endswith("SUPPRESS"):
        raw = UNSET
    choices = scalars(scope.value(keyword(call, "choices"))) if keyword(call, "choices") is not None else ()
    hint, _ = read_type(keyword(call, "type"), scope)
    choices = choices or hint.choices
    kind = _kind(call, source, hint.kind, raw, choices)
    passing: Passing = "flag" if flags else "positional"
    off = ""
    if action in ("store_true", "store_false"):
        kind, passing, raw = "bool", "switch", action == "store_false" if raw is None else raw
        off = spelling if action == "store_false" else ""
        choices = (
            (raw,) if isinstance(raw, bool) and raw == (action == "store_true") else ()
        )  # given or not, it is that
    elif dotted(keyword(call, "action")).endswith("BooleanOptionalAction"):
        kind, passing, off = "bool", "pair", f"--no-{spelling.lstrip('-')}"
    elif action in _NOTHING:
        kind = "list"
    elif dotted(keyword(call, "type")) == "bool" and flags:  # bool("false") is true: only an empty word is false
        passing, spelling, off = "pair", f"{spelling}=1", f"{spelling}="
    nargs = scope.value(keyword(call, "nargs")) if keyword(call, "nargs") is not None else 1
    is_needed = not flags and keyword(call, "default") is None and nargs not in ("?", "*")
    required = is_needed or scope.value(keyword(call, "required")) is True
    return Found(
        name, kind, source.place(call.lineno), passing, spelling,
        default=UNSET if required and raw is None else fit(kind, scalar(raw)), choices=choices,
        doc=text(keyword(call, "help"), scope), off=off, owner=owner, is_computed=raw is UNKNOWN,
    )  # fmt: skip


def _kind(call: ast.Call, source: Source, kind: Kind, raw: object, choices: tuple[object, ...]) -> Kind:
    nargs = source.scope.value(keyword(call, "nargs")) if keyword(call, "nargs") is not None else None
    if nargs not in (None, "?", 1) or isinstance(raw, tuple | dict):
        return "list"
    if kind == "unknown":
        of = next((c for c in choices if c is not None), None) if choices else raw
        kind = to_kind(of)
    default = keyword(call, "default")
    if kind == "unknown" and isinstance(default, ast.Call) and dotted(default.func).endswith("Path"):
        return "path"
    if kind == "unknown" and keyword(call, "type") is None and default is None:
        return "str"  # argparse's own default
    return kind


def _unique(found: list[Found]) -> list[Found]:
    """Each name once a subcommand: a script that declares one twice does so on branches that exclude each other."""
    return list({(f.owner, f.name): f for f in reversed(found)}.values())[::-1]


def _with_default(source: Source, found: Found, defaults: dict[str, ast.expr]) -> Found:
    if found.name not in defaults:
        return found
    value = source.scope.value(defaults[found.name])
    return replace(found, default=fit(found.kind, scalar(value)), is_computed=value is UNKNOWN)

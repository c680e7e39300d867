"""click's options, typer's function parameters, absl's flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from llmhpo.param import UNSET
from llmhpo.reading.annotations import Bounds, keyword, read_annotation, read_bounds, read_type, text
from llmhpo.reading.base import Found, Kind, Passing, Source, fit, scalar, scalars, to_kind
from llmhpo.reading.values import UNKNOWN, dotted

_ABSL: dict[str, Kind] = {
    "DEFINE_float": "float", "DEFINE_integer": "int", "DEFINE_bool": "bool", "DEFINE_boolean": "bool",
    "DEFINE_string": "str", "DEFINE_enum": "str", "DEFINE_list": "list",
}  # fmt: skip
_MARKS = re.compile(r"mark_flags?_as_required$")
_ABSL_ORDER, _ABSL_ENUM = ("name", "default", "help"), ("name", "default", "enum_values", "help")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_options(source: Source) -> list[Found]:
    """Options of click, typer and absl, whichever the script imports."""
    imported = imports(source.tree)
    found: list[Found] = []
    if imported & {"click", "rich_click", "asyncclick"}:
        found += _click(source)
    if "typer" in imported:
        for function in _commands(source):
            found += _signature(source, function)
    if "absl" in imported:
        found += _absl(source)
    return found


def imports(tree: ast.Module) -> set[str]:
    """The top-level packages that a file imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


# --- click ----------------------------------------------------------------------------------------------------------


def _click(source: Source) -> list[Found]:
    owners: dict[int, str] = {}  # of the decorators of a command in a group
    for function in (n for n in ast.walk(source.tree) if isinstance(n, _Function)):
        for decorator in function.decorator_list:
            if isinstance(decorator, ast.Call) and _is_subcommand(decorator):
                given = source.scope.value(decorator.args[0] if decorator.args else keyword(decorator, "name"))
                owner = given if isinstance(given, str) else function.name.replace("_", "-")
                owners |= {id(d): owner for d in function.decorator_list}
    calls = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    calls.sort(key=lambda c: (c.lineno, c.col_offset))
    found = [_option(source, c, owners.get(id(c), "")) for c in calls if _is(c, "option") or _is(c, "argument")]
    return [f for f in found if f is not None]


def _is(call: ast.Call, what: str) -> bool:
    return dotted(call.func) in (what, f"click.{what}", f"rich_click.{what}", f"asyncclick.{what}")


def _is_subcommand(call: ast.Call) -> bool:
    return dotted(call.func).endswith(".command") and not _is(call, "command")


def _option(source: Source, call: ast.Call, owner: str) -> Found | None:
    scope = source.scope
    names = [v for a in call.args if isinstance(v := scope.value(a), str)]
    if not names or len(names) < len(call.args):
        return None
    on, _, off = max((n for n in names if n.startswith("-")), key=len, default=names[0]).partition("/")
    named = [n for n in names if n.isidentifier()]
    name = (named[0] if named else on.strip().lstrip("-").replace("-", "_")).lower()
    node = keyword(call, "default")
    raw = scope.value(node) if node is not None else None
    hint, bounds = read_type(keyword(call, "type"), scope)
    is_switch = scope.value(keyword(call, "is_flag")) is True or bool(off)
    kind: Kind = "bool" if is_switch else to_kind(raw) if hint.kind == "unknown" else hint.kind
    if kind == "unknown" and node is None and keyword(call, "type") is None:
        kind = "str"
    nargs = scope.value(keyword(call, "nargs")) if keyword(call, "nargs") is not None else 1
    if scope.value(keyword(call, "multiple")) is True or nargs != 1 or scope.value(keyword(call, "count")) is True:
        kind = "list"
    is_argument = _is(call, "argument")
    passing: Passing = "positional" if is_argument else "pair" if off else "switch" if is_switch else "flag"
    required = node is None and (is_argument or scope.value(keyword(call, "required")) is True)
    if is_switch and raw is None:
        raw = False
    return Found(
        name, kind, source.place(call.lineno), passing, on.strip(),
        default=UNSET if required else fit(kind, scalar(raw)), choices=hint.choices,
        doc=text(keyword(call, "help"), scope), low=bounds.low, high=bounds.high, off=off.strip(), owner=owner,
        is_computed=raw is UNKNOWN,
    )  # fmt: skip


# --- typer ------------------------------------------------------------------------------------------------------------


def _commands(source: Source) -> Iterator[tuple[_Function, str]]:
    """The functions that typer turns into commands, with the subcommand's name where there are several."""
    run = {
        dotted(a)
        for n in ast.walk(source.tree)
        if isinstance(n, ast.Call) and dotted(n.func) == "typer.run"
        for a in n.args
    }
    functions = [n for n in ast.walk(source.tree) if isinstance(n, _Function)]
    chosen = [f for f in functions if f.name in run or any(_is_command(d) for d in f.decorator_list)]
    for function in chosen:
        yield function, function.name.replace("_", "-") if len(chosen) > 1 else ""


def _is_command(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and dotted(decorator.func).endswith((".command", ".callback"))


def _signature(source: Source, command: tuple[_Function, str]) -> Iterator[Found]:
    function, owner = command
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    for arg, default in [
        *zip(plain, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        if arg.arg not in ("self", "cls", "ctx"):
            yield _parameter(source, arg, default, owner)


def _parameter(source: Source, arg: ast.arg, default: ast.expr | None, owner: str) -> Found:
    scope, hint = source.scope, read_annotation(arg.annotation, source.scope)
    calls = [c for c in hint.calls if dotted(c.func).endswith(("Option", "Argument"))]
    spelled = list(calls[0].args) if calls else []
    if isinstance(default, ast.Call) and dotted(default.func).endswith(("Option", "Argument")):
        calls = [default]
        spelled, default = list(default.args[1:]), default.args[0] if default.args else keyword(default, "default")
    is_argument = bool(calls) and dotted(calls[0].func).endswith("Argument")
    missing = default is None or (isinstance(default, ast.Constant) and default.value is ...)
    raw = UNSET if missing else scope.value(default)
    kind = to_kind(raw) if hint.kind == "unknown" else hint.kind
    flags = [v for s in spelled if isinstance(v := scope.value(s), str)]
    on, _, off = max(flags, key=len, default=f"--{arg.arg.replace('_', '-')}").partition("/")
    if kind == "bool" and not flags:
        off = f"--no-{arg.arg.replace('_', '-')}"
    passing: Passing = "positional" if is_argument or (missing and not calls) else "flag"
    if kind == "bool" and passing == "flag":
        passing = "pair" if off else "switch"
    bounds = read_bounds(calls[0], scope) if calls else Bounds()
    return Found(
        arg.arg, kind, source.place(arg.lineno), passing, arg.arg if passing == "positional" else on,
        default=fit(kind, scalar(raw)), choices=hint.choices, doc=text(keyword(calls[0], "help"), scope) if calls else "",
        low=bounds.low, high=bounds.high, off=off, owner=owner, is_computed=raw is UNKNOWN,
    )  # fmt: skip


# --- absl -------------------------------------------------------------------------------------------------------------


def _absl(source: Source) -> Iterator[Found]:
    scope = source.scope
    calls = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call)]
    marks = [scope.value(c.args[0]) for c in calls if _MARKS.search(dotted(c.func)) and c.args]
    required = {name for mark in marks for name in (mark if isinstance(mark, tuple) else (mark,))}
    for call in calls:
        kind = _ABSL.get(re.sub(r"^flags\.", "", dotted(call.func)))
        given = dict(zip(_ABSL_ENUM if dotted(call.func).endswith("enum") else _ABSL_ORDER, call.args, strict=False))
        given |= {k.arg: k.value for k in call.keywords if k.arg}
        name = scope.value(given.get("name"))
        if kind is None or not isinstance(name, str) or "default" not in given:
            continue
        raw = UNSET if name in required else scope.value(given["default"])
        bounds = read_bounds(call, scope)
        yield Found(
            name, kind, source.place(call.lineno), "pair" if kind == "bool" else "flag", f"--{name}",
            default=fit(kind, scalar(raw)), choices=scalars(scope.value(given.get("enum_values"))),
            doc=text(given.get("help"), scope), low=bounds.low, high=bounds.high, off=f"--no{name}" if kind == "bool" else "",
            is_computed=raw is UNKNOWN,
        )  # fmt: skip

"""Parameters of functions and classes that a library turns into flags: fire, tyro, jsonargparse, Lightning's CLI; or that keep their defaults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from llmhpo.param import UNSET
from llmhpo.reading.annotations import read_annotation
from llmhpo.reading.base import Found, Passing, Source, fit, scalar, to_kind
from llmhpo.reading.fields import record_flags
from llmhpo.reading.options import imports
from llmhpo.reading.values import UNKNOWN, dotted

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_CLI = ("LightningCLI", "CLI", "auto_cli", "capture_parser")
_JSON = {"jsonargparse", "lightning", "pytorch_lightning"}
_BUILDS = re.compile(
    r"(build|make|create|get|define|setup)_?\w*(model|net|network|classifier|regressor|optimizer|pipeline)\w*|(train|fit|run|main|objective)(_\w+)?"
)
_MODELS = ("Module", "Model", "LightningModule")
_DOC = re.compile(r"^\s*(\w+)(?:\s*\([^)]*\))?\s*:\s*(\S.*)$", re.MULTILINE)


class Parameter(NamedTuple):
    """A parameter of a function with its default, and where both stand."""

    arg: ast.arg
    default: ast.expr | None
    doc: str


def read_signatures(source: Source) -> list[Found]:
    """Flags that fire, tyro, jsonargparse and Lightning's CLI make of functions and classes, where the script imports these."""
    imported = imports(source.tree)
    found: list[Found] = []
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        last = dotted(call.func).rpartition(".")[2]
        if last == "Fire" and "fire" in imported:
            found += _fire(source, call)
        elif dotted(call.func) in ("tyro.cli", "cli") and "tyro" in imported and call.args:
            functions = {n.name: n for n in source.tree.body if isinstance(n, _Function)}
            if (function := functions.get(dotted(call.args[0]))) is not None:
                found += _flags(source, function, "", "", "tyro")
        elif last in _CLI and imported & _JSON:
            found += _cli(source, call, is_lightning=last == "LightningCLI")
    return found


def json_cli(source: Source) -> str | None:
    """The subcommand that trains of a CLI by jsonargparse, which takes `--config FILE`: fit of Lightning's, else ""; None for any other script."""
    if not imports(source.tree) & _JSON:
        return None
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        if (last := dotted(call.func).rpartition(".")[2]) in _CLI:
            runs = source.scope.value(next((k.value for k in call.keywords if k.arg == "run"), None))
            return "fit" if last == "LightningCLI" and runs is not False else ""
    return None


def read_kept_defaults(source: Source) -> list[Found]:
    """Defaults of functions that build or train a model, and of models themselves, where no call of the file gives another value."""
    found = []
    for name, function, calls in _functions(source.tree):
        for at, (arg, default, doc) in enumerate(parameters(function)):
            if default is None or any(_gives(call, arg.arg, at) for call in calls):
                continue
            value = UNKNOWN if isinstance(default, ast.Name | ast.Attribute) else source.scope.value(default)
            if scalar(value) is not UNSET:
                found.append(
                    Found(arg.arg, to_kind(value), source.place(default.lineno), "keyword", f"{name}({arg.arg}=)",
                          default=scalar(value), doc=doc, owner=name)
                )  # fmt: skip
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, _Function, list[ast.Call]]]:
    """(name, function, calls of it) of the functions that build or train, and of the constructors of models."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    for node in tree.body:
        function = node if isinstance(node, _Function) and _BUILDS.fullmatch(node.name) else None
        if isinstance(node, ast.ClassDef) and any(dotted(b).rpartition(".")[2] in _MODELS for b in node.bases):
            function = next((m for m in node.body if isinstance(m, _Function) and m.name == "__init__"), None)
        if function is not None and isinstance(node, _Function | ast.ClassDef):
            yield node.name, function, [c for c in calls if dotted(c.func) == node.name]


def _gives(call: ast.Call, name: str, at: int) -> bool:
    return len(call.args) > at or any(k.arg in (name, None) for k in call.keywords)


def parameters(function: _Function) -> list[Parameter]:
    """The parameters of a function, less `self`, each with its line of the docstring."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    pairs = [*zip(plain, [*missing, *arguments.defaults], strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    docs = dict(_DOC.findall(ast.get_docstring(function) or ""))
    return [Parameter(a, d, str(docs.get(a.arg, ""))[:300]) for a, d in pairs if a.arg not in ("self", "cls", "ctx")]


# --- fire ---------------------------------------------------------------------------------------------------------------


def _fire(source: Source, call: ast.Call) -> Iterator[Found]:
    """`fire.Fire(main)`, `fire.Fire(Class)` with its methods as subcommands, `fire.Fire({"train": train})`, `fire.Fire()`."""
    top = {n.name: n for n in source.tree.body if isinstance(n, _Function | ast.ClassDef)}
    given = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "component"), None)
    named = {dotted(given): dotted(given)} if dotted(given) in top else {}
    if isinstance(given, ast.Dict):
        named = {str(source.scope.value(k)): dotted(v) for k, v in zip(given.keys, given.values, strict=True)}
    elif given is None:
        named = {name: name for name, node in top.items() if isinstance(node, _Function) and not name.startswith("_")}
    for command, name in named.items():
        node = top.get(name)
        if isinstance(node, _Function):
            yield from _flags(
                source, node, "", command if len(named) > 1 or isinstance(given, ast.Dict) else "", "fire"
            )
        elif isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, _Function)]
            for method in methods:
                if method.name == "__init__" or not method.name.startswith("_"):
                    yield from _flags(source, method, "", "" if method.name == "__init__" else method.name, "fire")


def _flags(source: Source, function: _Function, prefix: str, owner: str, style: str) -> Iterator[Found]:
    for arg, default, doc in parameters(function):
        is_tyro = style == "tyro"
        record = record_flags(source, arg.annotation, f"{prefix}{arg.arg}", dashes=is_tyro) if style != "fire" else None
        if record is not None:
            yield from (replace(one, owner=owner) for one in record)
            continue
        hint = read_annotation(arg.annotation, source.scope)
        raw = UNSET if default is None else source.scope.value(default)
        kind = to_kind(raw) if hint.kind == "unknown" else hint.kind
        name = f"{prefix}{arg.arg}"
        passing: Passing = "pair" if kind == "bool" and style != "json" else "flag"
        if default is None and style == "fire":
            passing = "positional"
        flag = name.replace("_", "-") if is_tyro else name
        yield Found(
            name, kind, source.place(arg.lineno), passing, name if passing == "positional" else f"--{flag}",
            default=fit(kind, scalar(raw)), choices=hint.choices, doc=doc,
            off=f"--no{'-' if is_tyro else ''}{flag}" if passing == "pair" else "",
            owner=owner, is_computed=raw is UNKNOWN,
        )  # fmt: skip


# --- jsonargparse and Lightning ---------------------------------------------------------------------------------------------


def _cli(source: Source, call: ast.Call, *, is_lightning: bool) -> Iterator[Found]:
    """`LightningCLI(Model, Data)`: `--model.lr`, `--data.batch_size` of the subcommand fit; `CLI(main)`: `--lr`."""
    top = {n.name: n for n in source.tree.body if isinstance(n, _Function | ast.ClassDef)}
    parts = dict(zip(("model", "data") if is_lightning else ("",), call.args, strict=False))
    if is_lightning:
        parts |= {
            str(k.arg).partition("_")[0]: k.value for k in call.keywords if k.arg in ("model_class", "datamodule_class")
        }
    for prefix, given in parts.items():
        node = top.get(dotted(given))
        if isinstance(node, ast.ClassDef):
            node = next((m for m in node.body if isinstance(m, _Function) and m.name == "__init__"), None)
        if isinstance(node, _Function):
            label = {"datamodule": "data"}.get(prefix, prefix)
            yield from _flags(source, node, f"{label}." if label else "", "fit" if is_lightning else "", "json")

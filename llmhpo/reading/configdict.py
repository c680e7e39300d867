"""ml_collections: the `get_config()` of the file that a config flag names, as flags `--config.model.width`; and nanoGPT's globals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from llmhpo.param import UNSET
from llmhpo.reading.base import Found, Source, scalar, to_kind
from llmhpo.reading.constants import read_constants
from llmhpo.reading.source import read_source
from llmhpo.reading.values import UNKNOWN, dotted

_DEFINES = ("DEFINE_config_file", "DEFINE_config_dict")


def read_config_dict(source: Source) -> list[Found]:
    """The entries of an ml_collections config that a flag names, in the order of its file. Raises: ConfigError for a broken file."""
    found: list[Found] = []
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        define = dotted(call.func).rpartition(".")[2]
        flag = source.scope.value(call.args[0]) if call.args else UNKNOWN
        if define not in _DEFINES or not isinstance(flag, str):
            continue
        file = source.scope.value(call.args[1]) if len(call.args) > 1 else UNKNOWN
        folder = source.path.resolve().parent
        path = (folder / str(file)).resolve()
        is_here = (
            path.suffix == ".py" and path.is_relative_to(folder) and path.is_file()
        )  # others are not the script's to name
        of = read_source(path) if is_here else source
        found += [
            replace(one, passing="flag", spelling=f"--{flag}.{one.name}", where=replace(one.where, file=of.path.name))
            for one in _entries(of)
        ]
    return found


def _entries(source: Source) -> Iterator[Found]:
    """`config.model.width = 64`, `config.model = ConfigDict({...})` and `ConfigDict(dict(...))` in get_config, whatever its variable is."""
    functions = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == "get_config"]
    for statement in (s for f in functions for s in ast.walk(f) if isinstance(s, ast.Assign)):
        base, _, rest = dotted(statement.targets[0]).partition(".")
        if not base:
            continue
        if rest and scalar(value := source.scope.value(statement.value)) is not UNSET:
            yield _entry(source, rest, statement.value, value)
        elif rest or isinstance(statement.value, ast.Call):
            yield from _table(source, statement.value, f"{rest}." if rest else "")


def _table(source: Source, node: ast.expr, path: str, depth: int = 0) -> Iterator[Found]:
    if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in ("ConfigDict", "dict", "create"):
        for inner in node.args[:1]:
            yield from _table(source, inner, path, depth + 1)
        pairs: list[tuple[object, ast.expr]] = [(k.arg, k.value) for k in node.keywords]
    elif isinstance(node, ast.Dict):
        pairs = [(source.scope.value(k), v) for k, v in zip(node.keys, node.values, strict=True)]
    else:
        return
    for key, value in pairs:
        if not isinstance(key, str) or depth > 6:
            continue
        if isinstance(value, ast.Dict | ast.Call) and scalar(source.scope.value(value)) is UNSET:
            yield from _table(source, value, f"{path}{key}.", depth + 1)
        else:
            yield _entry(source, f"{path}{key}", value, source.scope.value(value))


def _entry(source: Source, name: str, node: ast.expr, value: object) -> Found:
    return Found(
        name, to_kind(value), source.place(node.lineno), "key", name, default=scalar(value), is_computed=value is UNKNOWN
    )  # fmt: skip


def read_overridden_globals(source: Source) -> list[Found]:
    """Globals that `exec(open("configurator.py").read())` lets flags override: those bound before it, as `--name=value`.

    Source: karpathy/nanoGPT, configurator.py: a value must be of the type of the one that it takes the place of.
    """
    at = next((n.lineno for n in ast.walk(source.tree) if isinstance(n, ast.Call) and _is_configurator(n)), 0)
    found = [f for f in read_constants(source) if f.where.line < at and not f.owner]
    return [_flag(replace(f, name=f.spelling)) for f in found]


def _is_configurator(call: ast.Call) -> bool:
    return dotted(call.func) == "exec" and any(
        isinstance(n, ast.Constant) and str(n.value).endswith(".py") for n in ast.walk(call)
    )


def _flag(found: Found) -> Found:
    if found.kind == "bool":
        return replace(found, passing="pair", spelling=f"--{found.spelling}=True", off=f"--{found.spelling}=False")
    return replace(found, passing="flag", spelling=f"--{found.spelling}")

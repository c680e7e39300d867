"""Draws written in the code (`llmhpo.choose("norm", ["layer", "batch"])`), found by parsing alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from llmhpo import draws
from llmhpo.errors import SpaceError
from llmhpo.param import Param, param_from_dict
from llmhpo.reading.base import Place, Source
from llmhpo.reading.source import parse
from llmhpo.reading.values import UNKNOWN, dotted

_BRANCHES: Final = (ast.If, ast.IfExp, ast.Match, ast.BoolOp, ast.ExceptHandler, ast.While)


class Drawn(NamedTuple):
    """A call that draws. `param` is None where only running tells name or range; `is_branch`: it stands in a branch."""

    param: Param | None
    where: Place
    is_branch: bool


def draws_in_source(source: str, file: str = "train.py") -> list[Param]:
    """The hyperparameters that the draws of a Python text declare, each name once, in the order of the text.

    Arguments count that are literals, or names bound once to such; a draw whose name or range is computed is left out.
    Conditions are not read: a draw in a branch is a parameter as any other. `file` stands in messages.

    Raises: SpaceError for a range that contradicts itself, or a name with two ranges; ConfigError for what is no Python 3.
    """
    found: dict[str, Drawn] = {}
    for drawn in read_draws(parse(Path(file), source)):
        if (param := drawn.param) is None:
            continue
        first = found.setdefault(param.name, drawn)
        assert first.param is not None
        if not is_same(first.param, param):
            raise SpaceError(two_ranges(first.param, str(first.where), param, str(drawn.where)))
    return [d.param for d in found.values() if d.param is not None]


def read_draws(source: Source) -> list[Drawn]:
    """Every draw of a parsed source, in the order of the text. Raises: SpaceError for a range that contradicts itself."""
    modules, functions = _names(source.tree)
    found = []
    for node, is_branch in _calls(source.tree):
        name = dotted(node.func)
        prefix, _, last = name.rpartition(".")
        known = functions.get(name) or (last if prefix in modules and last in draws.__all__ else None)
        if known is not None:
            where = source.place(node.lineno)
            found.append(((node.lineno, node.col_offset), Drawn(_param(source, node, known, where), where, is_branch)))
    return [drawn for _, drawn in sorted(found, key=lambda pair: pair[0])]


def is_same(first: Param, second: Param) -> bool:
    """Whether two draws of one name agree in all but their docs."""
    return replace(first, doc="") == replace(second, doc="")


def holds(drawn: Param, other: Param) -> bool:
    """Whether a draw takes every value that `other`, a parameter of its name, can have."""
    bounds = [getattr(other.distribution, key, None) for key in ("low", "high")]
    values = other.choices or tuple(b for b in bounds if b is not None)
    return bool(other.choices) == bool(drawn.choices) and all(drawn.check(v) is None for v in values)


def two_ranges(first: Param, where: str, second: Param, there: str) -> str:
    """The message for one name with two ranges, or two defaults."""
    return (
        f"{first.name!r} is drawn twice and differs: at {where} it is {first.describe_range()}, default {first.default!r}, "
        f"at {there} it is {second.describe_range()}, default {second.default!r}; give it one range, or two names"
    )


def _names(tree: ast.Module) -> tuple[set[str], dict[str, str]]:
    """Under which names the module `llmhpo` (or its `draws`) and the functions themselves are known here."""
    modules: set[str] = set()
    functions: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if a.name in ("llmhpo", "llmhpo.draws"):
                    modules.add(a.asname or a.name)
                if a.name.partition(".")[0] == "llmhpo" and a.asname is None:
                    modules.add("llmhpo")
        elif isinstance(node, ast.ImportFrom) and node.module in ("llmhpo", "llmhpo.draws") and not node.level:
            functions |= {a.asname or a.name: a.name for a in node.names if a.name in draws.__all__}
            modules |= {a.asname or a.name for a in node.names if a.name == "draws"}
    return modules, functions


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, bool]]:
    """Every call, and whether it stands in a branch of anything."""
    line: list[tuple[ast.AST, bool]] = [(tree, False)]
    while line:
        node, is_branch = line.pop()
        if isinstance(node, ast.Call):
            yield node, is_branch
        inside = is_branch or isinstance(node, _BRANCHES)
        line += [(child, inside) for child in ast.iter_child_nodes(node)]


def _param(source: Source, call: ast.Call, function: str, where: Place) -> Param | None:
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return None
    values = [source.scope.value(a) for a in call.args]
    named = {str(k.arg): source.scope.value(k.value) for k in call.keywords}
    if not all(_is_known(v) for v in [*values, *named.values()]):
        return None
    try:
        with draws.collecting() as collected:
            getattr(draws, function)(*values, **named)
    except (SpaceError, TypeError, ValueError, ArithmeticError) as error:
        problem = str(error).partition(": ")[2] if isinstance(error, SpaceError) else str(error)
        raise SpaceError(f"{where}: llmhpo.{function}: {problem}") from None
    name, table = collected[0]
    try:
        return param_from_dict(name, table)
    except SpaceError as error:
        raise SpaceError(f"{where}: llmhpo.{function}: {error}") from None


def _is_known(value: object) -> bool:
    """Whether a value is known, of a mapping its keys: what they stand for may be anything."""
    if isinstance(value, Mapping):
        return True
    return all(v is not UNKNOWN for v in value) if isinstance(value, tuple) else value is not UNKNOWN

"""Values written in the code under a name: where they stand, and the code with other values in their places."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llmhpo.errors import ConfigError
from llmhpo.param import UNSET, ParamValue
from llmhpo.reading.base import IN_CODE, Found, Place, Source, scalar
from llmhpo.reading.values import dotted


class Span(NamedTuple):
    """An expression on one line of the text (from 1 on); `start` and `end` count bytes, as `ast` does."""

    line: int
    start: int
    end: int


class Literal(NamedTuple):
    """A value in the code, and the name that it is given there: a variable, a keyword, a key, a default of an argument."""

    name: str
    value: ParamValue
    where: Place
    span: Span


def literals(source: Source) -> list[Literal]:
    """Every scalar that is written under a name, in the order of the text; what is computed is left out."""
    found = [
        Literal(name, value, source.place(node.lineno), span_of(node))
        for name, node in _named(source.tree)
        if node.lineno == node.end_lineno
        and (value := scalar(source.scope.value(node))) is not UNSET
        and _is_written(node)
    ]
    return sorted(set(found), key=lambda one: one.span)


def span_of(node: ast.expr) -> Span:
    """Where an expression of one line stands."""
    return Span(node.lineno, node.col_offset, node.end_col_offset or node.col_offset)


def _is_written(node: ast.expr) -> bool:
    """Whether the value stands there itself, and is no name for one that stands elsewhere."""
    return not any(isinstance(n, ast.Name | ast.Attribute | ast.Call | ast.Subscript) for n in ast.walk(node))


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if name := dotted(target):
                    yield name, node.value
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, value
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _defaults(node.args)


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    plain = [*arguments.posonlyargs, *arguments.args]
    given = arguments.defaults
    yield from zip([a.arg for a in plain[len(plain) - len(given) :]], given, strict=True)
    for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield arg.arg, default


def in_code(source: Source, found: Found) -> Span:
    """Where a setting has its value in the code; of several expressions on its line, the first behind its name that fits.

    Raises: ConfigError where the line holds no such value: the code has changed since it was read.
    """
    assert found.passing in IN_CODE
    first = source.cells[found.where.cell - 1] - 1 if found.where.cell is not None else 0
    at = found.where.line + first
    line = source.text.split("\n")[at - 1].encode()
    name = (found.spelling if found.passing == "keyword" else found.spelling.rpartition(".")[2]).encode()
    behind = line.find(re.sub(rb'.*["(](\w+)(?:=\)|"\])$', rb"\1", name))
    types = {id(n) for s in ast.walk(source.tree) if isinstance(s, ast.AnnAssign) for n in ast.walk(s.annotation)}
    fits = [
        span_of(n)
        for n in ast.walk(source.tree)
        if isinstance(n, ast.expr)
        and id(n) not in types
        and n.lineno == n.end_lineno == at
        and not isinstance(n, ast.Name)
        and repr(source.scope.value(n)) == repr(found.default)
    ]
    after = [span for span in fits if span.start > behind] or fits
    if not after:
        raise ConfigError(f"{found.where}: {found.name!r} has no value of its own there; write it on one line")
    return min(after, key=lambda span: (span.start, -span.end))


def replaced(text: str, values: Mapping[Span, object]) -> str:
    """The text with other values in these places; lines keep their numbers."""
    lines = [line.encode() for line in text.split("\n")]
    for span, value in sorted(values.items(), reverse=True):
        line = lines[span.line - 1]
        lines[span.line - 1] = line[: span.start] + repr(value).encode() + line[span.end :]
    return b"\n".join(lines).decode()

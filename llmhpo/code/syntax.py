"""Python text as a tree: parsed with care, its functions found, compared without what does not run."""

from __future__ import annotations

import ast
import hashlib
import io
import threading
import tokenize
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
T = TypeVar("T")
_quiet = threading.Lock()  # filters of warnings are the whole process's


def is_python(path: str) -> bool:
    """Whether a file is read as Python."""
    return path.endswith((".py", ".pyi"))


def parse_python(text: str) -> ast.Module | str:
    """The tree of Python text, or in one line why there is none: "line 3: invalid syntax". It never raises."""
    return _guarded(lambda: ast.parse(text.removeprefix("\ufeff")))


def check_python(text: str) -> ast.Module | str:
    """`parse_python`, and what only the compiler and the reader of files see: a stray `return`, a hidden encoding."""
    tree = parse_python(text)
    if isinstance(tree, str):
        return tree
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)
    except (SyntaxError, UnicodeError) as error:
        return f"line 1: {error}"
    if encoding not in ("utf-8", "utf-8-sig"):
        return f"line 1: it declares the encoding {encoding}; only UTF-8 is read"
    compiled = _guarded(lambda: compile(tree, "<edit>", "exec", dont_inherit=True))
    return compiled if isinstance(compiled, str) else tree


def _guarded(call: Callable[[], T]) -> T | str:
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the text's own invalid escapes
            return call()
    except SyntaxError as error:
        return f"line {error.lineno or 1}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"line 1: {str(error) or 'it is nested too deeply'}"


def definitions(tree: ast.AST) -> list[tuple[str, Definition]]:
    """All functions and classes of a tree with their qualified names ("Net.forward"), by line."""
    found: list[tuple[str, Definition]] = []
    todo = [(tree, "")]
    while todo:
        node, inside = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                found.append((inside + child.name, child))
                todo.append((child, f"{inside}{child.name}."))
            else:
                todo.append((child, inside))
    return sorted(found, key=lambda pair: pair[1].lineno)


def lines_of(node: ast.expr | ast.stmt) -> tuple[int, int]:
    """The lines of a node, counted from 0, and the one after the last; decorators belong to what they decorate."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)]) - 1, node.end_lineno or node.lineno


def skeleton(tree: ast.AST, spans: Iterable[tuple[int, int]]) -> list[str]:
    """A tree as a list of words, without the nodes that lie wholly in one of `spans` of lines (from 0, the end excluded).

    Two texts with equal skeletons say the same outside of the spans: no bracket, string, function or condition that was
    opened inside reaches out.
    """
    spans = list(spans)
    words: list[str] = []
    todo: list[object] = [tree]
    while todo:
        item = todo.pop()
        if not isinstance(item, ast.AST):
            words.append(repr(item))
            continue
        words.append(type(item).__name__)
        for name, value in reversed(list(ast.iter_fields(item))):
            if isinstance(value, list):
                todo += [_END, *reversed([v for v in value if not _is_within(v, spans)])]
            else:
                todo.append(_HOLE if _is_within(value, spans) else value)
            todo.append(name)
    return words


_END, _HOLE = "]", "..."


def _is_within(item: object, spans: list[tuple[int, int]]) -> bool:
    if not isinstance(item, ast.AST) or not hasattr(item, "lineno"):
        return False
    start, stop = lines_of(item)  # type: ignore[arg-type]  # whatever has a line has both
    return any(first <= start and stop <= last for first, last in spans)


def ast_digest(files: Mapping[str, str], paths: Iterable[str]) -> str:
    """A hash of what `paths` of `files` do when they run: comments, docstrings and layout of Python do not count.

    A file that is no Python, or cannot be parsed, counts as its text. Missing files do not count.
    """
    parts = [[path, _essence(path, files[path])] for path in sorted(set(paths)) if path in files]
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def _essence(path: str, text: str) -> str:
    tree = parse_python(text) if is_python(path) else ""
    if isinstance(tree, str):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if node.body[1:] else [ast.Pass()]
        if isinstance(node, ast.Constant):
            node.kind = None
    words = _guarded(lambda: skeleton(tree, ()))
    return text if isinstance(words, str) else " ".join(words)

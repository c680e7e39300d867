"""Which Python files of its own a command runs: the script, and what it imports from beside it, by parsing alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmhpo.errors import ConfigError
from llmhpo.reading.base import Source
from llmhpo.reading.source import read_source

_MOST_FILES = 500


def sources_of(words: Sequence[str], cwd: Path) -> list[Source]:
    """The scripts that the words of a command name (`train.py`, `-m package.train`), and what these import from beside them.

    Imports are looked for beside the script and in `cwd`. Files that cannot be parsed are left out, installed packages too.
    """
    line = [path for path in _scripts(words, cwd) if path.is_file()]
    roots = tuple(dict.fromkeys([*(path.parent for path in line), cwd.resolve()]))
    found: dict[Path, Source] = {}
    while line and len(found) < _MOST_FILES:
        path = line.pop(0)
        if path in found:
            continue
        try:
            found[path] = read_source(path)
        except ConfigError:  # the run itself will tell, better
            continue
        line += _imported(found[path], roots)
    return list(found.values())


def _scripts(words: Sequence[str], cwd: Path) -> Iterator[Path]:
    for before, word in zip(["", *words], words, strict=False):
        if before == "-m":
            path = cwd / word.replace(".", "/")
            yield from ((path / "__main__.py").resolve(), path.with_name(f"{path.name}.py").resolve())
        elif word.endswith(".py"):
            yield (cwd / word).resolve()


def _imported(source: Source, roots: Sequence[Path]) -> Iterator[Path]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            folders = roots
            if node.level:
                folders = (source.path.parents[min(node.level, len(source.path.parents)) - 1],)
            base = node.module or ""
            for name in (base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)):
                yield from _files(name, folders)


def _files(module: str, folders: Sequence[Path]) -> Iterator[Path]:
    """The files of `a.b.c` under one of the folders, those of its packages included."""
    parts = [part for part in module.split(".") if part]
    for folder in folders:
        for depth in range(1, len(parts) + 1):
            path = folder.joinpath(*parts[:depth])
            if (path / "__init__.py").is_file():
                yield (path / "__init__.py").resolve()
            elif (module_file := path.with_name(f"{path.name}.py")).is_file():
                yield module_file.resolve()

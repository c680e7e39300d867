"""Hydra: the config folder that `@hydra.main` names, with its groups as choices and their fields under conditions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from llmhpo.errors import ConfigError
from llmhpo.param import ParamValue, When
from llmhpo.reading.annotations import keyword
from llmhpo.reading.base import Found, Source
from llmhpo.reading.configs import entries, to_found
from llmhpo.reading.source import read_source
from llmhpo.reading.values import dotted

_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
_RESERVED = ("hydra", "defaults")


def read_hydra(source: Source) -> list[Found]:
    """Fields and groups of the config that `@hydra.main` composes. Raises: ConfigError where its file is missing or broken."""
    for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
        if dotted(call.func) not in ("hydra.main", "main"):
            continue
        name, folder = (source.scope.value(keyword(call, k)) for k in ("config_name", "config_path"))
        if not isinstance(name, str):
            continue
        at = source.path.parent / (folder if isinstance(folder, str) else ".")
        file = _file(at, name)
        if file is not None:
            return list(_unique(_compose(at, file, "")))
        if not _is_stored(source, name):
            raise ConfigError(
                f"{source.place(call.lineno)}: Hydra's config {name!r} is not in {at}; run from the folder that holds it, "
                "or correct config_path"
            )
    return []


def _file(folder: Path, name: str) -> Path | None:
    candidates = [folder / f"{name.removesuffix(s)}{s}" for s in (".yaml", ".yml")]
    return next((c for c in candidates if c.is_file()), None)


def _is_stored(source: Source, name: str) -> bool:
    """Whether a ConfigStore of the script holds a config of this name; its fields are read as dataclasses."""
    calls = [n for n in ast.walk(source.tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "store"]
    return any(source.scope.value(keyword(c, "name")) == name for c in calls)


def _compose(root: Path, file: Path, package: str, depth: int = 0) -> Iterator[Found]:
    """The fields of a config file and of what its defaults list names; nested defaults to a depth of 5."""
    source = read_source(file)
    if (directive := _PACKAGE.search(source.text)) is not None:
        package = "" if directive[1] == "_global_" else f"{directive[1]}."
    for entry in entries(source):
        if entry.key.split(".")[0] not in _RESERVED and not entry.key.rpartition(".")[2].startswith("_"):
            found = to_found(source, entry)
            name, place = f"{package}{entry.key}", replace(found.where, file=_relative(root, file))
            yield replace(found, name=name, passing="override", spelling=name, where=place)
    for group, option, line in _defaults(source) if depth < 5 else ():
        if group is None:
            if (base := _file(file.parent, option)) is not None:
                yield from _compose(root, base, package, depth + 1)
            continue
        path, _, target = group.partition("@")
        folder = root / path.lstrip("/") if path.startswith("/") or depth == 0 else file.parent / path
        if folder.is_dir():
            yield from _group(root, source, line, folder, path.lstrip("/"), option, target, depth)


def _defaults(source: Source) -> Iterator[tuple[str | None, str, int]]:
    """(group, option, line) of each entry of the defaults list; group None for a config named alone."""
    node = yaml.compose(source.text, Loader=yaml.SafeLoader)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value != "defaults" or not isinstance(value, yaml.SequenceNode):
            continue
        for item in value.value:
            if isinstance(item, yaml.ScalarNode) and item.value != "_self_":
                yield None, item.value, item.start_mark.line + 1
            for group, option in item.value if isinstance(item, yaml.MappingNode) else ():
                name = group.value.removeprefix("optional ")
                if isinstance(option, yaml.ScalarNode) and not name.startswith(("override ", "hydra/")):
                    yield name, option.value, group.start_mark.line + 1


def _group(
    root: Path, source: Source, line: int, folder: Path, path: str, option: str, target: str, depth: int
) -> Iterator[Found]:
    """A group as a choice among its files, then the fields of each; a field that not every file has gets a condition."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    options: list[ParamValue] = [p.stem for p in files]
    if option not in options:
        return
    package = f"{target or path.replace('/', '.')}."
    yield Found(
        path, "str", replace(source.place(line), file=_relative(root, source.path)), "override", path if not target else f"{path}@{target}", default=option,
        choices=tuple(options), doc=f"which of the configs in {folder.name}/", owner=folder.name,
    )  # fmt: skip
    fields = {p.stem: list(_compose(root, p, package, depth + 1)) for p in files}
    order = [option, *(o for o in fields if o != option)]
    for name in dict.fromkeys(f.name for o in order for f in fields[o]):
        having = [o for o in order if any(f.name == name for f in fields[o])]
        one = next(f for f in fields[having[0]] if f.name == name)
        when = () if len(having) == len(files) else (When(path, tuple(sorted(having))),)
        yield replace(one, when=(*one.when, *when))


def _relative(root: Path, file: Path) -> str:
    """The path of a config file as seen from the folder that holds the config folder."""
    return file.relative_to(root.parent).as_posix() if file.is_relative_to(root.parent) else file.name


def _unique(found: Iterator[Found]) -> Iterator[Found]:
    seen: set[str] = set()
    for one in found:
        if one.name not in seen:
            seen.add(one.name)
            yield one

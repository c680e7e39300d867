"""Config files: YAML, TOML and JSON as dotted keys with their lines."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from llmhpo.errors import ConfigError
from llmhpo.reading.base import Found, Source, number, scalar, to_kind
from llmhpo.reading.values import UNKNOWN

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
MAX_ENTRIES = 20_000
_DEEPEST = 50
_COMMENT = re.compile(r"\s#\s*([^#]*)$")
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
_WORDS = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "null": None,
    "~": None,
    "": None,
}


class Entry(NamedTuple):
    """One value of a config file: dotted key, value (UNKNOWN for `${...}` and `???`), line from 1 on, comment beside it."""

    key: str
    value: object
    line: int
    doc: str


def read_config(source: Source) -> list[Found]:
    """Every scalar and list of a config file; [] for a file that is none. Raises: ConfigError where it is not valid."""
    if source.path.suffix not in SUFFIXES:
        return []
    return [to_found(source, e) for e in entries(source)]


def to_found(source: Source, entry: Entry) -> Found:
    """An entry as a setting that is passed in the file itself."""
    return Found(
        entry.key, to_kind(entry.value), source.place(entry.line), "key", entry.key, default=scalar(entry.value),
        doc=entry.doc, owner=source.path.name, is_computed=entry.value is UNKNOWN,
    )  # fmt: skip


def entries(source: Source) -> list[Entry]:
    """The entries in the order of the file. Raises: ConfigError."""
    read = {".toml": _toml, ".json": _json}.get(source.path.suffix, _yaml)
    found: list[Entry] = []
    for entry in read(source):
        if len(found) == MAX_ENTRIES:
            raise ConfigError(
                f"{source.path}: has more than {MAX_ENTRIES} entries; give the config of the training, not its data"
            )
        found.append(entry)
    return found


# --- YAML -------------------------------------------------------------------------------------------------------------


def _yaml(source: Source) -> Iterator[Entry]:
    try:
        node = yaml.compose(source.text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(f"{source.path}:{line}: is not valid YAML: {error.problem}; correct it") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(
            f"{source.path}: is not valid YAML: {' '.join(str(error).split())[:200]}; correct it"
        ) from None
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{source.path}: holds no table of keys; give a config file with lines such as lr: 0.1")
    yield from _yaml_table(source, node, "", source.text.split("\n"), 0)


def _yaml_table(source: Source, node: yaml.MappingNode, path: str, lines: list[str], depth: int) -> Iterator[Entry]:
    if depth > _DEEPEST:
        raise ConfigError(
            f"{source.path}: is nested more than {_DEEPEST} deep at {path[:100]!r}; give a flatter config"
        )
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        name, line = f"{path}{key.value}", key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _yaml_table(source, value, f"{name}.", lines, depth + 1)
        elif isinstance(value, yaml.SequenceNode):
            members = [yaml_scalar(v) if isinstance(v, yaml.ScalarNode) else UNKNOWN for v in value.value]
            yield Entry(name, tuple(members), line, _comment(lines, line))
        else:
            yield Entry(name, yaml_scalar(value), line, _comment(lines, line))


def yaml_scalar(node: yaml.ScalarNode) -> object:
    """The value of a scalar. `1e-3` is a number, as people mean it, though YAML 1.1 takes it for a text."""
    text = node.value
    if node.style in ("'", '"'):
        return text
    if text.startswith("${") or text == "???":
        return UNKNOWN
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    value = number(text) if re.fullmatch(r"[-+]?(\d[\d_]*)?\.?\d*([eE][-+]?\d+)?", text) and text != "." else None
    return text if value is None else value


def _comment(lines: list[str], line: int) -> str:
    match = _COMMENT.search(lines[line - 1]) if line <= len(lines) else None
    return match[1].strip()[:300] if match else ""


# --- TOML and JSON ----------------------------------------------------------------------------------------------------


def _toml(source: Source) -> Iterator[Entry]:
    try:
        table = tomllib.loads(source.text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source.path}: is not valid TOML: {error}; correct it") from None
    yield from _flat(source, table)


def _json(source: Source) -> Iterator[Entry]:
    try:
        table = json.loads(source.text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source.path}: is not valid JSON: {error}; correct it") from None
    if not isinstance(table, dict):
        raise ConfigError(f'{source.path}: holds no table of keys; give a config file such as {{"lr": 0.1}}')
    yield from _flat(source, table)


def _flat(source: Source, table: Mapping[str, object]) -> Iterator[Entry]:
    lines = source.text.split("\n")
    at = 0
    for path, value in _leaves(table, (), 0):
        at = _line_of(lines, path, at)
        doc = _comment(lines, at + 1) if source.path.suffix == ".toml" else ""
        yield Entry(".".join(path), value, at + 1, doc)


def _leaves(table: Mapping[str, object], path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            if depth < _DEEPEST:
                yield from _leaves(value, (*path, str(key)), depth + 1)
        elif isinstance(value, list):
            yield (*path, str(key)), tuple(value)
        else:
            yield (*path, str(key)), value if value is None or isinstance(value, bool | int | float | str) else UNKNOWN


def _line_of(lines: list[str], path: tuple[str, ...], at: int) -> int:
    """The line, from 0 on, where the last key of `path` stands; searched from `at` on, then from its table's header."""
    key = re.compile(rf"""(?:^|[\s{{,."']){re.escape(path[-1])}["']?\s*[:=]""")
    header = f"[{'.'.join(path[:-1])}]"
    start = next((i for i, line in enumerate(lines) if line.strip() == header), at) if len(path) > 1 else at
    return next((i for i in range(max(at, start), len(lines)) if key.search(lines[i])), at)


def load_plain(path: Path, text: str) -> object:
    """A config file's content as plain Python values, numbers as `yaml_scalar` reads them. Raises: ConfigError."""
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text)
    return yaml.load(text, Loader=_LOADER)  # a safe loader

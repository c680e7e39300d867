"""What a server was found to take, to refuse and to ignore: learned from its answers, never from a model's name."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from llmhpo.llm.base import JSONSchema
from llmhpo.llm.weights import cache_folder

_KEPT_S = 30 * 86400.0  # servers are updated: what one refused is tried again after a month
_MOST_ENTRIES = 500
_VARIABLE = "LLMHPO_CAPABILITIES"
_writing = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """Names of options. `refused` ones are left out of requests; a `proven` one has shown its effect."""

    refused: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()

    def without(self, option: str) -> Known:
        """With `option` among the refused ones."""
        return Known(self.refused | {option}, self.proven)

    def showing(self, option: str) -> Known:
        """With `option` among the proven ones."""
        return Known(self.refused, self.proven | {option})


class _Entry(BaseModel, extra="forbid"):
    refused: list[str]
    proven: list[str]
    since: float  # seconds of the epoch


_ENTRIES = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of each endpoint and model, in a file that all sessions share; without a path, nowhere.

    An entry is forgotten a month after it was begun. A file that cannot be read or written is done without: then a server
    is found out anew.
    """

    path: Path | None = None
    now: Callable[[], float] = time.time

    @classmethod
    def of_user(cls) -> Memory:
        """The file that LLMHPO_CAPABILITIES names (nowhere, where it is empty), else the one in the user's cache."""
        named = os.environ.get(_VARIABLE)
        if named is None:
            return cls(cache_folder() / "capabilities.json")
        return cls(Path(named).expanduser() if named else None)

    def recall(self, place: str) -> Known:
        """What is known of a place: an endpoint and a model."""
        entry = self._read().get(place)
        return Known() if entry is None else Known(frozenset(entry.refused), frozenset(entry.proven))

    def keep(self, place: str, known: Known) -> None:
        """Remember; another process that writes at the same instant may win."""
        if self.path is None:
            return
        with _writing:
            entries = self._read()
            since = entries[place].since if place in entries else self.now()
            entries.pop(place, None)
            entries[place] = _Entry(refused=sorted(known.refused), proven=sorted(known.proven), since=since)
            latest = dict(list(entries.items())[-_MOST_ENTRIES:])
            try:
                _replace(self.path, _ENTRIES.dump_json(latest, indent=1))
            except OSError as error:
                _log.debug("%s cannot be written: %s", self.path, error)

    def _read(self) -> dict[str, _Entry]:
        if self.path is None:
            return {}
        try:
            entries = _ENTRIES.validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return {}
        return {place: entry for place, entry in entries.items() if 0 <= self.now() - entry.since < _KEPT_S}


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def keeps_to(text: str, schema: JSONSchema, *, bounds: bool) -> bool:
    """Whether a whole reply is JSON of the schema's form, as it always is where the schema was enforced.

    Without `bounds`, lengths and ranges do not count: many servers enforce the types alone. Only the keywords that
    `agents.reply` writes are looked at.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return _fits(value, schema, bounds)


def _fits(value: object, schema: JSONSchema, bounds: bool) -> bool:
    either = schema.get("anyOf")
    if isinstance(either, list):
        return any(_fits(value, one, bounds) for one in either)
    choices = schema.get("enum")
    if isinstance(choices, list):
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
    kind = schema.get("type")
    if kind == "object":
        return isinstance(value, dict) and _object_fits(value, schema, bounds)
    if kind == "array":
        return isinstance(value, list) and _list_fits(value, schema, bounds)
    if kind in ("number", "integer"):
        return _number_fits(value, schema, bounds)
    types = {"string": str, "boolean": bool, "null": type(None)}
    return not isinstance(kind, str) or isinstance(value, types.get(kind, object))


def _object_fits(value: dict[str, object], schema: JSONSchema, bounds: bool) -> bool:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return True
    required = schema.get("required", [])
    assert isinstance(required, list)
    known = all(name in properties for name in value) or schema.get("additionalProperties") is not False
    return (
        known
        and all(name in value for name in required)
        and all(_fits(value[name], node, bounds) for name, node in properties.items() if name in value)
    )


def _list_fits(value: list[object], schema: JSONSchema, bounds: bool) -> bool:
    low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
    assert isinstance(low, int)
    assert isinstance(high, int)
    items = schema.get("items")
    return (not bounds or low <= len(value) <= high) and (
        not isinstance(items, dict) or all(_fits(item, items, bounds) for item in value)
    )


def _number_fits(value: object, schema: JSONSchema, bounds: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if schema.get("type") == "integer" and value != value // 1:
        return False
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return not bounds or low <= value <= high

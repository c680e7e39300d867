"""What a reader finds, and the protocol of the readers: one file a style, each by parsing alone."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from llmhpo.param import UNSET, ParamValue, Unset, When
from llmhpo.reading.values import Scope

Kind = Literal["float", "int", "bool", "str", "path", "list", "unknown"]
Passing = Literal["flag", "switch", "pair", "positional", "override", "key", "env", "constant", "keyword"]
"""How a value reaches the script.

flag: `--lr 0.1`; switch: a flag without value, which can only be given or left out; pair: `--nesterov` / `--no-nesterov`;
positional; override: Hydra's `optimizer.lr=0.1`; key: an entry of a config file; env: an environment variable; constant
and keyword: written in the code, which `reading.fill` runs with other values in their places.
"""
IN_CODE: Final[tuple[Passing, ...]] = ("constant", "keyword")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. `line` counts from 1; `cell` is that of a notebook, from 1 on, and `line` then counts in it."""

    file: str
    line: int
    cell: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.cell is None else f"{self.file}, cell {self.cell}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Found:
    """A setting of a script, tunable or not (`names.judge` says which).

    `name` is what the search space calls it, `spelling` what the script does: the flag, the dotted key, the variable.
    `off` is the second flag of a pair, and of a switch the flag itself where it stands for false. `default` is UNSET where the script has none or computes it; `is_computed` tells
    these apart. `low` and `high` are bounds that the script itself states (inclusive). `owner` is the subcommand, the
    class or the config file that the setting belongs to. `when`: the choices under which it exists.
    """

    name: str
    kind: Kind
    where: Place
    passing: Passing
    spelling: str
    default: ParamValue | Unset = UNSET
    choices: tuple[ParamValue, ...] = ()
    doc: str = ""
    low: float | None = None
    high: float | None = None
    off: str = ""
    owner: str = ""
    is_computed: bool = False
    when: tuple[When, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read: its text, and for Python its tree and constants. `cells` holds each notebook cell's first line."""

    path: Path
    text: str
    tree: ast.Module = field(default_factory=lambda: ast.Module([], []))
    scope: Scope = field(default_factory=Scope)
    cells: tuple[int, ...] = ()

    def place(self, line: int) -> Place:
        """The place of a line of `text`, counted from 1."""
        if not self.cells:
            return Place(self.path.name, line)
        cell = sum(first <= line for first in self.cells)
        return Place(self.path.name, line - self.cells[cell - 1] + 1, cell)


class Reader(Protocol):
    """Finds the settings of one style in a source, in the order of the file; an empty list where the style is not used.

    Raises: ConfigError where a file that the source names is broken.
    """

    def __call__(self, source: Source) -> list[Found]:
        """Read."""
        ...


def to_kind(value: object) -> Kind:
    """The kind of a value that stands in the script."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "str"
    return "list" if isinstance(value, tuple | dict) else "unknown"


def scalar(value: object) -> ParamValue | Unset:
    """`value` where a search space can hold it, else UNSET."""
    return value if value is None or isinstance(value, bool | int | float | str) else UNSET


def scalars(values: object) -> tuple[ParamValue, ...]:
    """The members of a sequence or the keys of a table, if all are scalars and there is at least one; else ()."""
    members = tuple(values) if isinstance(values, tuple | dict) else ()
    if any(not (m is None or isinstance(m, bool | int | float | str)) for m in members):
        return ()
    return tuple(dict.fromkeys(members))


def fit(kind: Kind, default: ParamValue | Unset) -> ParamValue | Unset:
    """The default as the script will see it: `type=float, default=1` means 1.0."""
    if kind == "float" and isinstance(default, int) and not isinstance(default, bool):
        return float(default) if abs(default) < 2**53 else default
    if kind in ("float", "int") and isinstance(default, str):
        return number(default) if number(default) is not None else default
    return default


def number(text: str) -> int | float | None:
    """The number that `text` spells, as YAML 1.2 and the argument parsers have it; None where it is none."""
    for read in (int, float):
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return None

"""Edits of code as a model writes them: blocks of lines to search and replace, regions written anew, declared parameters."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from dataclasses import dataclass, field
from typing import cast

from llmhpo.errors import SpaceError
from llmhpo.param import Param, param_from_dict

MAX_CHARS = 1_000_000  # of a reply
MAX_CHANGES = 100
MAX_HYPERPARAMETERS = 8
_MAX_DECLARED_CHARS = 10_000
_NOTE_CHARS = 300
_LONG_LINE = 500  # no line outside of blocks that means anything is so long, and patterns would take long on it
_MAX_CHOICES = 64

GRAMMAR = """\
FILE: train.py#build_model
<<<<<<< SEARCH
lines to replace, exactly as they stand
=======
lines to put in their place
>>>>>>> REPLACE

FILE: model.py
<<<<<<< REWRITE
all lines of the file or region anew
>>>>>>> REWRITE

```hyperparameters
[dropout]
type = "float"
low = 0.0
high = 0.5
default = 0.1
```

NOTE: one line that says what changes and why
"""

_OPEN = re.compile(r"<{5,9} ?(SEARCH|REWRITE)\s*")
_DIVIDE = re.compile(r"={7}\s*")
_CLOSE = re.compile(r">{5,9} ?(REPLACE|REWRITE)\s*")
_FILE = re.compile(r"[\s#>*`-]*FILE\b[*`]*:[\s*`]*([^`*]+?)[\s`*]*", re.IGNORECASE)
_BARE = re.compile(r"[\s#>*`]*([^\s`*:]+[./][^\s`*:]+)[:\s`*]*")
_NOTE = re.compile(r"[\s#>*-]*NOTE\b[*]*:\s*(.*)", re.IGNORECASE)
_FENCE = re.compile(r"\s*(```+|~~~+)\s*(.*)")
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Change:
    """Lines of one file to replace. `name` is the region they lie in ("" for anywhere in the file).

    `search` None writes the region, the file or a new file anew. `line` is where the change stands in the reply.
    """

    path: str
    name: str
    search: tuple[str, ...] | None
    replace: tuple[str, ...]
    line: int = 0

    def __str__(self) -> str:
        return f"{self.path}#{self.name}" if self.name else self.path


@dataclass(frozen=True, slots=True)
class Edit:
    """All changes of one reply, the hyperparameters that it declares, and what it says of itself in one line."""

    changes: tuple[Change, ...]
    hyperparameters: tuple[Param, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class EditError:
    """Why an edit is not taken: one line a reason, for the model to correct. It is a value, never raised."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def parse_edit(reply: str) -> Edit | EditError:
    """Read a reply in the form of `GRAMMAR`, with prose and fences around it. It never raises.

    Nothing is checked against the code here: see `patch.apply_edit`.
    """
    if len(reply) > MAX_CHARS:
        return EditError((f"the reply has {len(reply)} characters; at most {MAX_CHARS} are read",))
    reader = _Reader()
    for number, line in enumerate(reply.replace("\r\n", "\n").split("\n"), 1):
        reader.take(number, line)
    reader.finish()
    if reader.problems:
        return EditError(tuple(reader.problems[:10]))
    if not reader.changes:
        return EditError(("the reply holds no edit; write FILE: path and a SEARCH or REWRITE block below it",))
    return Edit(tuple(reader.changes), tuple(reader.hyperparameters), _one_line(reader.note or reader.prose))


@dataclass(slots=True)
class _Block:
    line: int
    kind: str
    search: list[str] = field(default_factory=list)
    replace: list[str] | None = None


@dataclass(slots=True)
class _Reader:
    """Where a reply has been read to."""

    changes: list[Change] = field(default_factory=list)
    hyperparameters: list[Param] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    note: str = ""
    prose: str = ""
    _target: str = ""  # of the blocks that follow
    _above: str = ""  # the last line that may name a file without FILE:
    _block: _Block | None = None
    _declared: list[str] | None = None

    def take(self, number: int, line: str) -> None:
        """Read the next line."""
        if self._declared is not None:
            if _FENCE.fullmatch(line):
                self._declare("\n".join(self._declared))
                self._declared = None
            else:
                self._declared.append(line)
        elif self._block is not None:
            self._inside(self._block, number, line)
        else:
            self._outside(number, line)

    def finish(self) -> None:
        """Take in that the reply has ended."""
        if self._block is not None:
            end = ">>>>>>> REPLACE" if self._block.kind == "SEARCH" else ">>>>>>> REWRITE"
            self.problems.append(
                f"the block at line {self._block.line} of the reply has no {end}; the reply was cut off"
            )
        if self._declared is not None:
            self.problems.append("the hyperparameters have no closing fence; the reply was cut off")

    def _outside(self, number: int, line: str) -> None:
        if mark := _OPEN.fullmatch(line):
            self._target = self._above or self._target
            self._above = ""
            self._block = _Block(number, mark[1])
            if not self._target:
                self.problems.append(
                    f"the block at line {number} of the reply names no file; write FILE: path above it"
                )
        elif _CLOSE.fullmatch(line):
            self.problems.append(f"line {number} of the reply ends a block that was never begun")
        elif len(line) > _LONG_LINE:
            self._above = ""
        elif found := _FILE.fullmatch(line):
            self._target, self._above = found[1], ""
        elif found := _NOTE.fullmatch(line):
            self.note = self.note or found[1]
        elif fence := _FENCE.fullmatch(line):
            self._declared = [] if "hyperparameter" in fence[2].lower() else None
        elif line.strip():
            found = _BARE.fullmatch(line)
            self._above = found[1] if found else ""
            self.prose = self.prose or ("" if found else line)

    def _inside(self, block: _Block, number: int, line: str) -> None:
        close = _CLOSE.fullmatch(line)
        if _OPEN.fullmatch(line):
            self.problems.append(f"a block begins at line {number} of the reply, inside the one of line {block.line}")
        elif block.kind == "REWRITE":
            if close and close[1] == "REWRITE":
                self._end(Change(*self._where(), None, tuple(block.search), block.line))
            else:
                block.search.append(line)
        elif _DIVIDE.fullmatch(line):
            if block.replace is not None:
                self.problems.append(
                    f"the block at line {block.line} of the reply has two lines =======; write the region anew with REWRITE"
                )
            block.replace = []
        elif close and block.replace is not None:
            self._end(Change(*self._where(), tuple(block.search), tuple(block.replace), block.line))
        elif close:
            self.problems.append(f"the block at line {block.line} of the reply has no line ======= in it")
            self._block = None
        else:
            (block.search if block.replace is None else block.replace).append(line)

    def _end(self, change: Change) -> None:
        self._block = None
        self.changes.append(change)
        if len(self.changes) == MAX_CHANGES + 1:
            self.problems.append(f"the edit has more than {MAX_CHANGES} blocks; make a smaller one")

    def _where(self) -> tuple[str, str]:
        path, _, name = self._target.partition("#")
        return path.strip().removeprefix("./"), name.strip()

    def _declare(self, text: str) -> None:
        found = _read_hyperparameters(text)
        if isinstance(found, str):
            self.problems.append(found)
            return
        self.hyperparameters += found
        if len(self.hyperparameters) > MAX_HYPERPARAMETERS:
            self.problems.append(
                f"the edit declares {len(self.hyperparameters)} hyperparameters; at most {MAX_HYPERPARAMETERS} are taken"
            )


def _read_hyperparameters(text: str) -> list[Param] | str:
    """The parameters of a block, in TOML or JSON as in study.toml; or why it cannot be read."""
    if len(text) > _MAX_DECLARED_CHARS:
        return f"the hyperparameters take {len(text)} characters; at most {_MAX_DECLARED_CHARS} are read"
    try:
        raw = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the hyperparameters are neither TOML nor JSON: {_one_line(str(error)) or 'nested too deeply'}"
    found: list[Param] = []
    for name, table in cast("dict[str, object]", raw).items():
        if not _NAME.fullmatch(name):
            return f"the hyperparameter {_one_line(name)[:80]!r} has no plain name; use letters, digits and _"
        try:
            param = param_from_dict(name, table)
        except (SpaceError, ValueError, ArithmeticError, RecursionError) as error:
            return _one_line(str(error)) or f"parameter {name!r} cannot be read"
        if not param.has_default:
            return f"parameter {name!r} has no default; give the value that the code had before"
        if param.size < 2 or len(param.choices) > _MAX_CHOICES:
            return f"parameter {name!r} is {param.describe_range()[:80]}; give it from 2 to {_MAX_CHOICES} values, or a range"
        found.append(param)
    return found


def _one_line(text: str) -> str:
    """`text` on one short line, without characters that are not seen."""
    seen = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(seen.split())[:_NOTE_CHARS]

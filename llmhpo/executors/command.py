"""The command line of a job: a template with placeholders, checked once, rendered for each trial. No shell is used."""

from __future__ import annotations

import copy
import difflib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmhpo.errors import ConfigError

if TYPE_CHECKING:
    from llmhpo.space import SearchSpace

RESERVED = ("params_file", "result_file", "report_file", "trial", "seed", "python")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_BLANK = re.compile(r"<[A-Za-z_][\w.-]*>")
_SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>"})


class Piece(NamedTuple):
    """A part of an argument: literal text, or the name of a placeholder, with a switch's words for true and false."""

    text: str
    is_placeholder: bool
    words: tuple[str, str] | None = None


class CommandTemplate:
    """A command with placeholders, run in the folder `cwd`.

    A string is split as a shell would (quotes work), a sequence is taken as it is. `{name}` stands for a parameter of
    `space`; `{params_file}`, `{result_file}`, `{report_file}`, `{trial}`, `{seed}`, `{python}` (this interpreter) are
    reserved; `{{` and `}}` are literal braces. Floats are rendered so that they read back exactly (1e-05), booleans as
    true / false, None as none; exact types are in the parameter file. Write `--lr={lr}` where values can be negative:
    argparse takes "-1e-05" after a space for an option.

    `{name?--flag}` is a switch: `--flag` where the boolean `name` is true, else no argument at all; `{name?--flag:--no-flag}`
    has a word for either, and `{name?:--no-flag}` one for false.

    An argument with an inactive parameter is dropped; so is the flag before it, where the argument is that placeholder
    alone and the word before starts with "-" and has no "=" or placeholder of its own.

    The program is looked up as a shell would, then relative to `cwd`. `python` and `python3` stand for this interpreter
    where PATH has none, and where llmhpo runs in a virtual environment while none is activated.

    Raises: ConfigError for an empty command, unbalanced quotes or braces, unknown placeholders, a program not found.
    """

    def __init__(self, command: str | Sequence[str], space: SearchSpace | None, cwd: Path) -> None:
        self.cwd = cwd.absolute()
        if not self.cwd.is_dir():
            raise ConfigError(f"the command's folder {str(cwd)!r} does not exist; create it or correct the path")
        words = _split(command)
        self._names = space.names if space is not None else ()
        self._words = tuple(self._parse(word) for word in words)
        if space is not None:
            _check_text(space, self.placeholders)
            _check_switches(space, [p for word in self._words for p in word if p.words is not None])
        if any(p.is_placeholder and p.text != "python" for p in self._words[0]):
            raise ConfigError(
                f"the program {words[0]!r} may not hang on a parameter; put the placeholder into an argument"
            )
        self._program = _find_program("".join(self._fill(p, {}) for p in self._words[0]), self.cwd)

    def moved(self, cwd: Path) -> CommandTemplate:
        """The same command in another folder, on another computer perhaps: what it names in its old folder, it names there.

        A program that is not there, such as one of a virtual environment, is the old folder's.

        Raises: ConfigError where neither folder has the program.
        """
        other, old, new = copy.copy(self), f"{self.cwd}{os.sep}", f"{cwd.absolute()}{os.sep}"
        other.cwd = cwd.absolute()
        other._words = tuple(
            tuple(p if p.is_placeholder else Piece(p.text.replace(old, new), is_placeholder=False) for p in word)
            for word in self._words
        )
        try:
            other._program = _find_program("".join(self._fill(p, {}) for p in other._words[0]), other.cwd)
        except ConfigError:
            if not os.access(self._program, os.X_OK):
                raise
        return other

    def __repr__(self) -> str:
        return f"CommandTemplate({' '.join(_source(w) for w in self._words)!r}, cwd={str(self.cwd)!r})"

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names used, each once, in order of appearance."""
        return tuple(dict.fromkeys(p.text for word in self._words for p in word if p.is_placeholder))

    @property
    def unused(self) -> tuple[str, ...]:
        """Parameters that the command line does not pass. Empty where it uses `{params_file}`.

        The job may still read them by `llmhpo.job.params()` or LLMHPO_PARAMS; else they are tuned without effect.
        """
        used = self.placeholders
        return () if "params_file" in used else tuple(n for n in self._names if n not in used)

    @property
    def blanks(self) -> tuple[str, ...]:
        """Words such as <data>, which `llmhpo init` leaves to be filled in; a job may also mean one as it stands."""
        words = ("".join(p.text for p in word) for word in self._words if not any(p.is_placeholder for p in word))
        return tuple(dict.fromkeys(word for word in words if _BLANK.fullmatch(word)))

    def render(
        self,
        params: Mapping[str, object],
        *,
        trial: int,
        seed: int,
        params_file: Path,
        result_file: Path,
        report_file: Path,
    ) -> list[str]:
        """The words of the command for one configuration, which holds the active parameters only."""
        values = {name: to_argument(value) for name, value in params.items()}
        values |= {"trial": str(trial), "seed": str(seed), "params_file": str(params_file)}
        values |= {"result_file": str(result_file), "report_file": str(report_file)}
        out = [self._program]
        for before, word in zip(self._words, self._words[1:], strict=False):
            if all(not p.is_placeholder or p.text == "python" or p.text in values for p in word):
                filled = "".join(self._fill(p, values) for p in word)
                out += [filled] if filled or not any(p.words for p in word) else []
            elif len(word) == 1 and word[0].words is None and _is_flag(before) and len(out) > 1:
                out.pop()
        return out

    @staticmethod
    def _fill(piece: Piece, values: Mapping[str, str]) -> str:
        if not piece.is_placeholder:
            return piece.text
        if piece.words is not None:
            return piece.words[values[piece.text] != "true"]
        return sys.executable if piece.text == "python" else values[piece.text]

    def _parse(self, word: str) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        at = 0
        for match in _PIECE.finditer(word):
            pieces.append(Piece(word[at : match.start()], is_placeholder=False))
            at = match.end()
            name = match[1]
            if match[0] in ("{{", "}}"):
                pieces.append(Piece(match[0][0], is_placeholder=False))
            elif name is None:
                raise ConfigError(
                    f"unbalanced {match[0]!r} in {word!r} of the command; write '{{{{' or '}}}}' for a literal brace, "
                    "and quote a placeholder whose name has a space"
                )
            else:
                name, mark, words = (name, "", "") if name in self._names else name.partition("?")
                self._check_name(name, word)
                on, _, off = words.partition(":")
                pieces.append(Piece(name, is_placeholder=True, words=(on, off) if mark else None))
        pieces.append(Piece(word[at:], is_placeholder=False))
        return tuple(p for p in pieces if p.text or p.is_placeholder)

    def _check_name(self, name: str, word: str) -> None:
        if name in RESERVED:
            if name in self._names:
                raise ConfigError(
                    f"{{{name}}} in {word!r} is reserved and also the name of a parameter; rename the parameter"
                )
            return
        if name not in self._names:
            known = [*self._names, *RESERVED]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {{{close[0]}}}? " if close else ""
            raise ConfigError(
                f"{{{name}}} in {word!r} of the command is not a parameter; {hint}Known: {', '.join(known)}. "
                "A literal brace is written twice"
            )


def to_argument(value: object) -> str:
    """A parameter's value as a word of the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def _source(word: tuple[Piece, ...]) -> str:
    return "".join(_placeholder(p) if p.is_placeholder else p.text.replace("{", "{{").replace("}", "}}") for p in word)


def _placeholder(piece: Piece) -> str:
    on, off = piece.words or ("", "")
    return f"{{{piece.text}{'?' * (piece.words is not None)}{on}{':' * bool(off)}{off}}}"


def _is_flag(word: tuple[Piece, ...]) -> bool:
    text = "".join(p.text for p in word)
    return (
        text.startswith("-") and text.strip("-") != "" and "=" not in text and not any(p.is_placeholder for p in word)
    )


def _split(command: str | Sequence[str]) -> list[str]:
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"command {command!r} cannot be split: {error}; balance its quotes") from error
        if shell := [word for word in words if word in _SHELL_WORDS]:
            raise ConfigError(f"command {command!r} has {shell[0]!r}, but no shell is used; write: bash -c '...'")
    else:
        words = list(command)
        if bad := [word for word in words if not isinstance(word, str)]:
            raise ConfigError(f"command {words!r} has {bad[0]!r}, which is not a string")
    if not words or not words[0]:
        raise ConfigError(f"command {command!r} is empty; give a program and its arguments")
    if any("\0" in word for word in words):
        raise ConfigError(f"command {command!r} has a NUL character; remove it")
    return words


def _check_text(space: SearchSpace, used: Sequence[str]) -> None:
    for param in space.params:
        for choice in param.choices if param.name in used else ():
            if isinstance(choice, str) and ("\0" in choice or not _is_encodable(choice)):
                raise ConfigError(
                    f"choice {choice!r} of {param.name!r} cannot stand on a command line; use {{params_file}}"
                )


def _check_switches(space: SearchSpace, switches: Sequence[Piece]) -> None:
    for piece in switches:
        param = next((p for p in space.params if p.name == piece.text), None)
        if param is None or not param.choices or not all(isinstance(c, bool) for c in param.choices):
            raise ConfigError(
                f"{_placeholder(piece)} of the command is a switch, but {piece.text!r} is not true or false; "
                "write choices = [false, true], or a plain placeholder"
            )


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _runs_unactivated() -> bool:
    """Whether this is a virtual environment's interpreter that was called by its path: PATH's python knows none of it."""
    activated = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    return sys.prefix != sys.base_prefix and not activated


def _find_program(name: str, cwd: Path) -> str:
    local = cwd / name
    if os.sep not in name:
        found = shutil.which(name)
        if name in ("python", "python3") and (found is None or _runs_unactivated()):
            return sys.executable
        if found:
            return found
    if local.is_file() and os.access(local, os.X_OK):
        return str(local)
    if local.is_file():
        interpreter = "python " if name.endswith(".py") else "its interpreter before it, "
        raise ConfigError(f"{name!r} in {str(cwd)!r} is not executable; write {interpreter}{name}, or chmod +x it")
    hint = "; variables are set by `env`, not in the command" if "=" in name else ""
    raise ConfigError(f"program {name!r} is neither on PATH nor in {str(cwd)!r}{hint}; install it or correct the name")

"""Shell scripts that start a Python program with flags: its words, with the variables and defaults of the script filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmhpo.reading.base import Found, Kind, Place, Source, number, scalar, to_kind
from llmhpo.reading.values import UNKNOWN

SUFFIXES = (".sh", ".bash", ".zsh", ".slurm", ".sbatch")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_DECLARES = ("export", "declare", "local", "readonly", "typeset", "-x", "-r", "-gx")
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*|\d)(?::?[-=]([^${}]*))?\}|\$([A-Za-z_]\w*|\d)")
_DIRNAME = r"\$\(dirname\s+[^()]*(?:\$0|BASH_SOURCE)[^()]*\)"
_HERE = re.compile(  # "$(dirname "$0")": the script's own folder; "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)": one beside it
    rf"""\$\(\s*cd\s+(?:--\s+)?"?{_DIRNAME}"?(?P<beside>(?:/[\w.-]+)*)/?"?"""
    rf"""\s*(?:(?:[12&]?>\s*(?:/dev/null|&[12])\s*)*(?:&&|;)\s*pwd(?:\s+-[LP])?\s*)?\)|{_DIRNAME}"""
)
_PYTHON = re.compile(r"(.*/)?(python[\d.]*|torchrun|deepspeed|accelerate)")


class Call(NamedTuple):
    """A Python program started in a shell script: its words, and the first line of the command."""

    words: tuple[str, ...]
    line: int

    @property
    def script(self) -> str:
        """The .py file among the words; "" for a module or an inline program."""
        return next((w for w in self.words if w.endswith(".py")), "")


class Variable(NamedTuple):
    """A variable: its value, its line, and whether the environment may set it (`LR=${LR:-0.1}`)."""

    value: str | None
    line: int
    is_open: bool


def read_shell(source: Source) -> list[Found]:
    """Flags with their values, and variables that the environment may set; [] where no Python program is started."""
    if source.path.suffix not in SUFFIXES:
        return []
    calls, variables = read_calls(source)
    if not calls:
        return []
    found = [
        Found(
            name.lower(),
            _kind(v.value),
            source.place(v.line),
            "env",
            name,
            default=scalar(_value(v.value)),
            owner=source.path.name,
            is_computed=v.value is None,
        )
        for name, v in variables.items()
        if v.is_open
    ]
    flags = list(_flags(source, calls[0], variables))
    given = {m[1] or m[3] for w in calls[0].words if (m := _VARIABLE.fullmatch(w.rpartition("=")[2])) is not None}
    return [f for f in found if f.spelling not in given] + flags


def read_calls(source: Source) -> tuple[list[Call], dict[str, Variable]]:
    """The Python programs that the script starts, variables not yet filled in, and the variables."""
    calls: list[Call] = []
    variables: dict[str, Variable] = {}
    for line, text in _commands(source.text):
        try:
            words = shlex.split(text, comments=True)
        except ValueError:  # a quote that closes further down: no command with flags
            continue
        if words[:1] == [":"]:  # `: "${LR:=0.1}"` gives a default, and does nothing else
            words = [f"{m[1]}={w}" for w in words[1:] if (m := _VARIABLE.fullmatch(w)) is not None and m[1]]
        while words and (words[0] in _DECLARES or _ASSIGNMENT.fullmatch(words[0])):
            if (match := _ASSIGNMENT.fullmatch(words[0])) is not None:
                variables[match[1]] = _variable(match[1], match[2], line, variables)
            words = words[1:]
        words = words[1:] if words[:1] in (["exec"], ["time"], ["nohup"], ["srun"]) else words
        at = next((i for i, w in enumerate(words) if _PYTHON.fullmatch(w)), None)
        if at is not None and len(words) > at + 1:
            calls.append(Call(tuple(_until_operator(words[at:])), line))
    return calls, variables


def _commands(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each command, continued lines joined; here-documents left out."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first, command = at, lines[at]
        while command.endswith("\\") and at + 1 < len(lines):
            at += 1
            command = command[:-1] + " " + lines[at].strip()
        if (here := re.search(r"<<-?\s*['\"]?(\w+)", command)) is not None:
            while at + 1 < len(lines) and lines[at + 1].strip() != here[1]:
                at += 1
        yield first + 1, _HERE.sub(lambda m: f".{m['beside'] or ''}", command.strip())
        at += 1


def _until_operator(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in ("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>") or word.startswith((">", "2>")):
            return
        if word != "$@":
            yield word.removesuffix(";")
        if word.endswith(";"):
            return


def _variable(name: str, text: str, line: int, known: dict[str, Variable]) -> Variable:
    match = _VARIABLE.fullmatch(text)
    if match is not None and match[1] == name and match[2] is not None:
        return Variable(match[2], line, is_open=True)
    if match is not None and (match[1] or match[3]) == name and name in known:  # export LR=$LR
        return known[name]
    return Variable(fill(text, known), line, is_open=False)


def fill(text: str, variables: Mapping[str, Variable]) -> str | None:
    """`text` with variables replaced by their values; None where one is not known."""
    if "$(" in text or "`" in text:
        return None
    missing = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal missing
        known = variables.get(match[1] or match[3])
        value = known.value if known is not None else match[2]
        missing = missing or value is None
        return value or ""

    filled = _VARIABLE.sub(value_of, text)
    return None if missing else filled


def _flags(source: Source, call: Call, variables: dict[str, Variable]) -> Iterator[Found]:
    """The flags of one command, variables in their values filled in."""
    for found in flags_of(call.words, source.place(call.line), variables):
        yield replace(found, where=source.place(_line(source, call, found.spelling)), owner=call.script)


def flags_of(words: Sequence[str], place: Place, variables: Mapping[str, Variable] | None = None) -> Iterator[Found]:
    """The flags and overrides among the words of a command, with their values."""
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        is_flag = flag.startswith("--") and len(flag) > 2
        is_override = bool(equals) and re.fullmatch(r"\+{0,2}[A-Za-z_][\w./]*", flag) is not None and at > 1
        if not is_flag and not is_override:
            continue
        if not equals:
            following = words[at + 1] if at + 1 < len(words) else "--"
            has_value = not following.startswith("-") or number(following) is not None
            value = following if has_value else ""
        name = flag.lstrip("-+").replace("-", "_")
        filled = fill(value, variables or {})
        is_switch = is_flag and not equals and not value
        raw = True if is_switch else UNKNOWN if filled is None else _value(filled)
        yield Found(
            name, "bool" if is_switch else to_kind(raw), place,
            "override" if is_override else "switch" if is_switch else "flag", flag, default=scalar(raw),
            is_computed=raw is UNKNOWN,
        )  # fmt: skip


def _line(source: Source, call: Call, flag: str) -> int:
    lines = source.text.split("\n")
    return next((i + 1 for i in range(call.line - 1, len(lines)) if flag in lines[i].split("#")[0]), call.line)


def _value(text: str | None) -> object:
    if text is None:
        return UNKNOWN
    words = {"true": True, "false": False, "True": True, "False": False}
    value = number(text)
    return words.get(text, text) if value is None else value


def _kind(text: str | None) -> Kind:
    return to_kind(_value(text))

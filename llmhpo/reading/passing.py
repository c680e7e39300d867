"""How tuned values reach the script: the template of its command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from llmhpo.param import UNSET
from llmhpo.reading.base import IN_CODE, Found
from llmhpo.reading.fill import WORD
from llmhpo.reading.ranges import Suggestion
from llmhpo.reading.script import Reading
from llmhpo.reading.shell import fill, read_calls
from llmhpo.reading.source import read_source

_FILL: Final = ("python", "-m", "llmhpo.reading.fill")


class Command(NamedTuple):
    """The command's template; `blanks` are words in angle brackets that the person must fill in."""

    text: str
    blanks: tuple[str, ...] = ()


def command_of(reading: Reading, chosen: Sequence[Suggestion], start: Sequence[str] | None = None) -> Command:
    """The command that passes the chosen settings, in the script's own way.

    `start` is how the person starts the program; by default as the reading says.
    """
    found = [s.found for s in chosen if s.param is not None]
    blanks: list[str] = []
    words = _base(reading, found) if start is None else _without(start, found)
    if start is None:
        blanks += [w for w in words if w.startswith("<")]
        words += [reading.subcommand] if reading.subcommand else []
        words += _needed(reading, found, blanks)
    words += [w for f in found for w in _words(f)]
    words = _filled(reading, found, words)
    if environment := [f"{f.spelling}={{{f.name}}}" for f in found if f.passing == "env"]:
        words = ["env", *environment, *words]
    return Command(" ".join(_quote(w) for w in words), tuple(blanks))


def _base(reading: Reading, found: Sequence[Found]) -> list[str]:
    if reading.call is not None:
        return _shell_words(reading, found)
    if reading.path.suffix in (".py", ".ipynb"):
        return ["python", reading.path.name]
    if reading.program:
        return ["python", reading.program] if reading.program.endswith(".py") else [reading.program]
    return ["python", "<train.py>"]


def _needed(reading: Reading, found: Sequence[Found], blanks: list[str]) -> Iterator[str]:
    """Positional arguments, and flags without a default: those that are not tuned are the person's to fill in."""
    positional = [f for f, _ in reading.items if f.passing == "positional"]
    last = max((i for i, f in enumerate(positional) if f in found or _is_config(reading, found, f)), default=-1)
    for at, f in enumerate(positional):
        if f in found:
            yield f"{{{f.name}}}"
        elif _is_config(reading, found, f):
            yield WORD
        elif f.default is UNSET and not f.is_computed:
            yield _blank(f, blanks)
        elif at < last:  # only its place makes the one behind it what it is
            is_word = f.default is not None and not f.is_computed and not str(f.default).startswith("-")
            yield _literal(str(f.default)) if is_word else _blank(f, blanks)
    for f, _ in reading.items:
        if (
            f.passing == "flag" and f.kind != "list" and f not in found and f.default is UNSET and not f.is_computed
            and reading.call is None and not reading.program
        ):  # fmt: skip
            yield f.spelling
            yield _blank(f, blanks)


def _is_config(reading: Reading, found: Sequence[Found], one: Found) -> bool:
    """Whether a positional argument takes the config file whose keys are tuned."""
    return one.spelling == reading.config_flag and any(f.passing == "key" for f in found)


def _shell_words(reading: Reading, found: Sequence[Found]) -> list[str]:
    """The shell script itself where only its variables are tuned; else its Python command, without the tuned flags."""
    tuned = [f for f in found if f.passing != "env"]
    if not tuned:
        return ["bash", reading.path.name]
    assert reading.call is not None
    _, variables = read_calls(read_source(reading.path))
    words: list[str] = []
    for word in _without(reading.call.words, tuned):
        if (filled := fill(word, variables)) is not None:
            words.append(_literal(filled))
        elif words and words[-1].startswith("-"):  # a value that only a running shell knows
            words.pop()
    return words


def _without(words: Sequence[str], tuned: Sequence[Found]) -> list[str]:
    """The words of a command less the flags that are tuned, and their values."""
    switches = {s for f in tuned if f.passing in ("switch", "pair") for s in (f.spelling, f.off)}
    flags = {f.spelling for f in tuned} | switches
    kept: list[str] = []
    skip = False
    for word in words:
        flag, equals, _ = word.partition("=")
        if not skip and flag in flags:
            skip = not equals and flag not in switches
            continue
        if not skip:
            kept.append(word)
        skip = False
    return kept


def _filled(reading: Reading, found: Sequence[Found], words: list[str]) -> list[str]:
    """The command behind what fills a config file, or values in the code, in for each trial."""
    coded = [f.name for f in found if f.passing in IN_CODE]
    if coded or reading.path.suffix == ".ipynb":  # no Python runs a notebook by itself
        words = [*_FILL, reading.path.name, "{params_file}", *coded, "--", *words]
    keys = [f.name for f in found if f.passing == "key"]
    if keys and reading.config is not None:
        words = [*words, *((reading.config_flag, WORD) if reading.config_flag.startswith("-") else ())]
        words = [*_FILL, _from_folder(reading.config, reading.path), "{params_file}", *keys, "--", *words]
    return words


def _from_folder(file: Path, script: Path) -> str:
    """A file as it is named from the script's folder, which the command runs in."""
    folder = script.resolve().parent
    return str(file.resolve().relative_to(folder)) if file.resolve().is_relative_to(folder) else str(file.resolve())


def _words(f: Found) -> list[str]:
    if f.passing == "flag":
        return [f"{f.spelling}={{{f.name}}}"] if f.spelling.startswith("--") else [f.spelling, f"{{{f.name}}}"]
    if f.passing == "override":
        return [f"{f.spelling}={{{f.name}}}"]
    if f.passing == "switch":
        return [f"{{{f.name}?:{f.off}}}" if f.off else f"{{{f.name}?{f.spelling}}}"]
    return [f"{{{f.name}?{f.spelling}:{f.off}}}"] if f.passing == "pair" else []


def _blank(f: Found, blanks: list[str]) -> str:
    blanks.append(f"<{f.name}>")
    return f"<{f.name}>"


def _literal(word: str) -> str:
    """A word for the template that has no placeholder, whatever braces it holds."""
    return word.replace("{", "{{").replace("}", "}}")


def _quote(word: str) -> str:
    return word if word and all(c.isalnum() or c in "-_./={}:?<>,+@" for c in word) else shlex.quote(word)

"""How tuned values reach the script: the command's template, or the lines of the code to change."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmhpo.param import UNSET, Param, param_from_dict, param_to_dict
from llmhpo.reading.base import IN_CODE, Found, Source
from llmhpo.reading.ranges import Suggestion
from llmhpo.reading.script import Reading
from llmhpo.reading.shell import fill, read_calls
from llmhpo.reading.source import read_source


class Command(NamedTuple):
    """The command's template; `blanks` are words in angle brackets that the person must fill in."""

    text: str
    blanks: tuple[str, ...] = ()


class Edit(NamedTuple):
    """A line of the code to change."""

    where: str
    old: str
    new: str


def command_of(reading: Reading, chosen: Sequence[Suggestion]) -> Command:
    """The command that passes the chosen settings, in the script's own way."""
    found = [s.found for s in chosen if s.param is not None]
    words = _base(reading)
    blanks: list[str] = []
    if reading.subcommand:
        words.append(reading.subcommand)
    for f, _ in reading.items:
        if f.passing == "positional":
            words.append(f"{{{f.name}}}" if f in found else _blank(f, blanks))
        elif (
            f.passing == "flag" and f not in found and f.default is UNSET and not f.is_computed and reading.call is None
        ):
            words += [f.spelling, _blank(f, blanks)]
    words += [w for f in found for w in _words(f)]
    if reading.config is not None and any(f.passing == "key" for f in found):
        words = [*_filled(reading), *words, *((reading.config_flag, "CONFIG") if reading.config_flag else ())]
    if environment := [f"{f.spelling}={{{f.name}}}" for f in found if f.passing == "env"]:
        words = ["env", *environment, *words]
    return Command(" ".join(_quote(w) for w in words), tuple(blanks))


def _base(reading: Reading) -> list[str]:
    if reading.call is not None:
        return _shell_words(reading)
    if reading.path.suffix == ".py":
        return ["python", reading.path.name]
    if reading.path.suffix == ".ipynb":
        return ["python", f"{reading.path.stem}.py"]
    return ["python", "<train.py>"]


def _shell_words(reading: Reading) -> list[str]:
    """The shell script itself where only its variables are tuned; else its Python command, without the tuned flags."""
    tuned = [f for f in reading.tunable if f.passing != "env"]
    if not tuned:
        return ["bash", reading.path.name]
    assert reading.call is not None
    _, variables = read_calls(read_source(reading.path))
    words, skip = [], False
    for word in reading.call.words:
        flag = word.partition("=")[0]
        if not skip and any(flag == f.spelling for f in tuned):
            skip = "=" not in word and not any(flag == f.spelling and f.passing == "switch" for f in tuned)
            continue
        if not skip and (filled := fill(word, variables)) is not None:
            words.append(filled)
        elif not skip and words and words[-1].startswith("-"):  # a value that only a running shell knows
            words.pop()
        skip = False
    return words


def _filled(reading: Reading) -> list[str]:
    assert reading.config is not None
    return ["python", "-m", "llmhpo.reading.fill", reading.config.name, "{params_file}", "--"]


def _words(f: Found) -> list[str]:
    if f.passing == "flag":
        return [f"{f.spelling}={{{f.name}}}"] if f.spelling.startswith("--") else [f.spelling, f"{{{f.name}}}"]
    if f.passing == "override":
        return [f"{f.spelling}={{{f.name}}}"]
    return [f"{{{f.name}}}"] if f.passing == "pair" else []


def _blank(f: Found, blanks: list[str]) -> str:
    blanks.append(f"<{f.name}>")
    return f"<{f.name}>"


def _quote(word: str) -> str:
    return word if all(c.isalnum() or c in "-_./={}:<>,+@" for c in word) else shlex.quote(word)


def to_passed(suggestion: Suggestion) -> Suggestion:
    """The suggestion with values as the command passes them: of a pair, the two flags; a switch can take none."""
    found, param = suggestion.found, suggestion.param
    if param is None or found.kind != "bool":
        return suggestion
    if found.passing == "switch":
        remedy = f"{found.spelling} takes no value: change it to action=argparse.BooleanOptionalAction at {found.where}"
        return replace(suggestion, param=None, reason=f"{remedy}, then read the script again")
    if found.passing != "pair":
        return suggestion
    return replace(suggestion, param=_as_flags(found, param))


def _as_flags(found: Found, param: Param) -> Param:
    table = param_to_dict(param) | {"choices": [found.spelling, found.off]}
    if param.has_default:
        table["default"] = found.spelling if found.default is True else found.off
    return param_from_dict(param.name, table)


def edits_of(reading: Reading, chosen: Sequence[Suggestion]) -> tuple[Edit, ...]:
    """The lines to change so that values written in the code come from the study: each keeps its value outside of one."""
    return tuple(_edits(reading, [s.found for s in chosen if s.param is not None]))


def _edits(reading: Reading, found: Sequence[Found]) -> Iterator[Edit]:
    coded = [f for f in found if f.passing in IN_CODE]
    if coded:
        yield Edit(f"{reading.path.name}:1", "", "from llmhpo import job; PARAMS = job.params()  # below the imports")
    source = read_source(reading.path) if coded else None
    for f in coded:
        assert source is not None
        start, end, line = _literal(source, f)
        old = line[start:end].decode()
        new = line[:start] + f'PARAMS.get("{f.name}", {old})'.encode() + line[end:]
        yield Edit(str(f.where), line.decode().strip(), new.decode().strip())


def _literal(source: Source, found: Found) -> tuple[int, int, bytes]:
    """(start, end, line) of the expression that gives a setting its value, in bytes as `ast` counts; the last that fits."""
    first = source.cells[found.where.cell - 1] - 1 if found.where.cell is not None else 0
    at = found.where.line + first
    line = source.text.split("\n")[at - 1].encode()
    name = (found.spelling if found.passing == "keyword" else found.spelling.rpartition(".")[2]).encode()
    behind = line.find(re.sub(rb'.*["(](\w+)(?:=\)|"\])$', rb"\1", name))
    types = {id(n) for s in ast.walk(source.tree) if isinstance(s, ast.AnnAssign) for n in ast.walk(s.annotation)}
    fits = [
        (n.col_offset, n.end_col_offset or n.col_offset)
        for n in ast.walk(source.tree)
        if isinstance(n, ast.expr)
        and id(n) not in types
        and n.lineno == n.end_lineno == at
        and not isinstance(n, ast.Name)
        and repr(source.scope.value(n)) == repr(found.default)
    ]
    after = [span for span in fits if span[0] > behind] or fits or [(len(line), len(line))]
    return (*min(after, key=lambda span: (span[0], -span[1])), line)

"""A saved `--help` text of argparse, click or typer, for programs whose source is not at hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from llmhpo.param import UNSET, ParamValue, Unset
from llmhpo.reading.base import Found, Kind, Passing, Source, fit, number, to_kind
from llmhpo.reading.values import dotted

_BOX = re.compile(r"[│┃|]\s{1,3}(?=[*\s-])|[│┃╭╮╰╯─━]|(?<=\s)\|$")
_START = re.compile(r"^(\s{1,12})\*?\s*(-{1,2}[A-Za-z][\w.-]*.*)$")
_FLAG = re.compile(r"(?:^|(?<=[\s,/]))--?[A-Za-z][\w.-]*")
_DEFAULT = re.compile(
    r"(?<![\w)])\(=([^)]*)\)|[(\[]default(?:s to|:| is|=)?\s*([^)\];]+?)\s*[)\];]|\bdefaults?(?: to| is|:|=)\s*([^\s,;)]+)",
    re.IGNORECASE,
)
_BOOST = re.compile(r"(?:-\w \[ (--[\w-]+) \]|(--[\w-]+)(?= arg\b))( arg)?\s*(\(=[^)]*\))?(.*)$")
_RANGE = re.compile(r"\[\s*(?:([-\d.e+]+)\s*<=?\s*)?x(?:\s*<=?\s*([-\d.e+]+))?\s*\]|\[x>=([-\d.e+]+)\]")
_TYPES: dict[str, Kind] = {
    "FLOAT": "float", "FLOAT RANGE": "float", "INTEGER": "int", "INT": "int", "INTEGER RANGE": "int", "BOOLEAN": "bool",
    "TEXT": "str", "STR": "str", "STRING": "str", "PATH": "path", "FILE": "path", "FILENAME": "path", "DIRECTORY": "path",
}  # fmt: skip
_SWITCH_NAMES = ("help", "version", "install_completion", "show_completion")


def is_help(text: str) -> bool:
    """Whether `text` looks like the answer to --help."""
    return re.search(r"^\W*usage\s*:", text, re.IGNORECASE | re.MULTILINE) is not None


def program(text: str) -> str:
    """The program that the usage line names, "" where there is none: "train.py"."""
    match = re.search(r"usage\s*:\s*(?:python3?\s+(?:-m\s+)?)?(\S+)", text, re.IGNORECASE)
    return match[1] if match else ""


def read_help(source: Source) -> list[Found]:
    """The options that a help text lists; [] for any other text."""
    if source.path.suffix == ".py" or not is_help(source.text):
        return []
    found = [_option(source, line, spec, doc) for line, spec, doc in _blocks(source.text)]
    return [f for f in found if f is not None]


def read_docopt(source: Source) -> list[Found]:
    """The options of the docstring that a script hands to docopt, and the positional arguments of its usage."""
    doc = source.tree.body[0] if source.tree.body else None
    text = ast.get_docstring(source.tree, clean=False)
    calls = (dotted(n.func) for n in ast.walk(source.tree) if isinstance(n, ast.Call))
    if doc is None or text is None or not any(name.rpartition(".")[2] == "docopt" for name in calls):
        return []
    first = doc.lineno - 1
    usage = re.search(r"usage:(.*?)(?:\n\s*\n|\Z)", text, re.IGNORECASE | re.DOTALL)
    words = dict.fromkeys(re.findall(r"(?<![=\w])<([\w-]+)>", usage[1].partition("\n  ")[2] if usage else ""))
    place = source.place(doc.lineno)
    found = [Found(w.replace("-", "_"), "str", place, "positional", w) for w in words]
    options = (_option(source, line, spec, help_) for line, spec, help_ in _blocks(text))
    return found + [replace(f, where=source.place(f.where.line + first)) for f in options if f is not None]


def _blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, how the option is spelled, its help) of each option, help of several lines joined."""
    line, indent, spec, doc = 0, 0, "", ""
    for at, raw in enumerate(text.split("\n"), 1):
        plain = _BOX.sub(lambda m: " " * len(m[0]), raw).rstrip()
        depth = len(plain) - len(plain.lstrip())
        match = _START.match(plain)
        if match and (not spec or depth <= indent + 4):
            if spec:
                yield line, spec, doc
            pieces = re.split(r"\s{2,}", match[2], maxsplit=1)
            line, indent, spec, doc = at, depth, pieces[0], pieces[1] if len(pieces) > 1 else ""
            if doc.startswith(
                ("-", "FLOAT", "INTEGER", "TEXT", "BOOLEAN", "PATH")
            ):  # typer sets flag, short flag and type apart
                more = re.split(r"\s{2,}", doc)
                types = [m for m in more if m.startswith("-") or m in _TYPES]
                spec, doc = " ".join([spec, *types]), " ".join(m for m in more if m not in types)
        elif spec and plain.strip() and depth > indent:
            doc = f"{doc} {plain.strip()}".strip()
        elif spec:
            yield line, spec, doc
            spec = ""
    if spec:
        yield line, spec, doc


def _option(source: Source, line: int, spec: str, doc: str) -> Found | None:
    flags = _FLAG.findall(spec)
    if (boost := _BOOST.match(spec)) is not None:  # -l [ --learning_rate ] arg (=0.5)
        spec, doc = f"{boost[1] or boost[2]}{' ARG' * bool(boost[3])}", f"{boost[4] or ''}{boost[5]} {doc}"
        flags = _FLAG.findall(spec)
    on = next((f for f in flags if f.startswith("--") and not f.startswith("--no-")), flags[0] if flags else "")
    name = on.lstrip("-").replace("-", "_").replace(".", "_")
    if not name or name in (*_SWITCH_NAMES, "h"):
        return None
    off = next((f for f in flags if f == f"--no-{on.lstrip('-')}"), "")
    listed = re.search(r"\{([^{}]*,[^{}]*)\}|\[([^\[\]<>]*\|[^\[\]<>]*)\]", spec)
    words = re.split(r"[,|]", (listed[1] or listed[2]).replace("…", "")) if listed else []
    metavar = " ".join(w.strip(",") for w in _FLAG.sub(" ", spec).split() if w not in (",", "/"))
    default = _default(doc)
    bounds = _RANGE.search(f"{spec} {doc}")
    low, high = (None, None) if bounds is None else (bounds[1] or bounds[3], bounds[2])
    kind, passing = _kind(metavar.partition(" [")[0], words, default), "flag"
    if not metavar and not words:
        kind, passing, default = "bool", "pair" if off else "switch", False if default is UNSET else default
    choices: tuple[ParamValue, ...] = tuple(w.strip() for w in words if w.strip())
    if kind in ("int", "float"):
        choices = tuple(n for c in choices if (n := number(str(c))) is not None)
    return Found(
        name, kind, source.place(line), _passing(passing), on, default=fit(kind, default), choices=choices,
        doc=_DEFAULT.sub("", doc).strip()[:300], low=None if low is None else number(low),
        high=None if high is None else number(high), off=off,
    )  # fmt: skip


def _passing(name: str) -> Passing:
    return "pair" if name == "pair" else "switch" if name == "switch" else "flag"


def _default(doc: str) -> ParamValue | Unset:
    match = _DEFAULT.search(doc)
    if match is None:
        return UNSET
    text = (match[1] or match[2] or match[3] or "").strip().strip("'\"")
    words: dict[str, ParamValue] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    value = number(text)
    return text if value is None else value


def _kind(metavar: str, choices: list[str], default: ParamValue | Unset) -> Kind:
    if metavar in _TYPES:
        return _TYPES[metavar]
    if choices:
        numbers = [number(c.strip()) for c in choices]
        return "str" if any(n is None for n in numbers) else to_kind(numbers[0])
    if metavar.endswith("...") or metavar.startswith("["):
        return "list"
    return to_kind(default)

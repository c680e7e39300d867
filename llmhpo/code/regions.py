"""What of a user's code may change: whole files, functions and classes by name, marked regions, and new files by pattern.

    model.py                    the whole file
    train.py#build_model        a function or class; "Net.forward" for one inside another; its decorators belong to it
    train.py#schedule           the lines between "# llmhpo: begin schedule" and "# llmhpo: end"
    blocks/*.py                 every file that fits, and new ones; * stays in a folder, ** does not

A region is whole lines. All else is protected.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from llmhpo.code.syntax import definitions, is_python, lines_of, parse_python
from llmhpo.errors import ConfigError

BOM = "\ufeff"
MARKER = re.compile(r"^\s*# *llmhpo: *(?:(begin) +(\S+)|(end))(?:\s.*)?$")


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the code that may change: a file, or what `name` names in it."""

    path: str
    name: str = ""

    @classmethod
    def of(cls, spec: str) -> Self:
        """Read "path" or "path#name"."""
        path, _, name = spec.partition("#")
        return cls(path, name)

    def __str__(self) -> str:
        return f"{self.path}#{self.name}" if self.name else self.path


class Span(NamedTuple):
    """The lines of a region, counted from 0: `start` is the first, `stop` the one after the last."""

    region: Region
    start: int
    stop: int


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, with "\n" between them and nothing else: what Python, git and editors count alike.

    A byte order mark before the first is none of it: nobody sees it who copies the line.
    """
    return text.removeprefix(BOM).replace("\r\n", "\n").split("\n")


def path_problem(path: str) -> str:
    """Why `path` cannot be one inside a project, in a few words; "" where it can."""
    parts = path.split("/")
    if not path or not path.isprintable() or len(path) > 300:
        return "is not the name of a file"
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        return "is not relative to the project"
    if "\\" in path:
        return "has a backslash; write / between folders"
    if ".." in parts:
        return "leaves the project"
    if "" in parts or "." in parts:
        return "is not written in its shortest form"
    return "lies in a hidden folder or is a hidden file" if any(p.startswith(".") for p in parts) else ""


@dataclass(frozen=True, slots=True)
class Editable:
    """What may change. `regions` names parts that exist in the baseline; `globs` patterns of files, new ones included."""

    regions: tuple[Region, ...]
    globs: tuple[str, ...] = ()

    @classmethod
    def of(cls, specs: Sequence[str], files: Mapping[str, str]) -> Self:
        """Read the `editable` of a study and check it against the texts of its files.

        Raises: ConfigError for what does not exist, is ambiguous, lies in another region, or is no UTF-8 text.
        """
        if not specs:
            raise ConfigError("editable = [] names nothing; name files, such as model.py or train.py#build_model")
        if doubled := [spec for spec, count in Counter(specs).items() if count > 1]:
            raise ConfigError(f"editable names {doubled[0]!r} twice; leave one out")
        regions: list[str] = []
        globs: list[str] = []
        for spec in specs:
            if problem := path_problem(spec.partition("#")[0]):
                raise ConfigError(f"editable {spec!r} {problem}; give a path inside the project, or path#name")
            (globs if _is_glob(spec) else regions).append(spec)
        if mixed := [g for g in globs if "#" in g]:
            raise ConfigError(f"editable {mixed[0]!r} has both a pattern and a name; name each file of it")
        editable = cls(tuple(Region.of(spec) for spec in regions), tuple(globs))
        for region in editable.regions:
            if region.path not in files:
                raise ConfigError(f"editable {str(region)!r}: {_absence(region.path, files)}")
        for path in editable.paths(files):
            if problem := text_problem(files[path]):
                raise ConfigError(f"editable {path!r} {problem}")
        editable.spans(files)
        return editable

    def allows(self, path: str) -> bool:
        """Whether something of the file `path` may change, or the file be made."""
        return any(r.path == path for r in self.regions) or self.fits(path)

    def fits(self, path: str) -> bool:
        """Whether `path` fits a pattern, so that the file may be made."""
        return any(_glob(pattern).fullmatch(path) for pattern in self.globs)

    def paths(self, files: Iterable[str]) -> list[str]:
        """Those of `files` that may change, sorted."""
        return sorted(path for path in files if self.allows(path))

    def spans(self, files: Mapping[str, str]) -> dict[str, list[Span]]:
        """The lines that may change, by path, in order; no two regions share a line.

        Raises: ConfigError where a region is missing, stands twice, or overlaps with another.
        """
        return {path: self.spans_of(path, files[path]) for path in self.paths(files)}

    def spans_of(self, path: str, text: str) -> list[Span]:
        """`spans` of one file."""
        regions = [r for r in self.regions if r.path == path] or [Region(path)]
        if self.fits(path) and Region(path) not in regions:
            regions.append(Region(path))
        spans = sorted((locate(region, text) for region in regions), key=lambda s: (s.start, -s.stop))
        for one, other in itertools.pairwise(spans):
            if other.start < one.stop or one.start == other.start:
                raise ConfigError(
                    f"editable {str(other.region)!r} lies in {str(one.region)!r}; leave one of them out of `editable`"
                )
        return spans

    def texts(self, files: Mapping[str, str]) -> list[tuple[Region, str]]:
        """What may change, region by region, as it stands."""
        return [
            (span.region, "\n".join(split_lines(files[path])[span.start : span.stop]))
            for path, spans in self.spans(files).items()
            for span in spans
        ]


def text_problem(text: str) -> str:
    """Why a file's text cannot be edited line by line, with the remedy; "" where it can."""
    rest = text.replace("\r\n", "")
    if "\r" in rest:
        return "has carriage returns inside lines; convert its line ends, for instance with dos2unix"
    if "\r\n" in text and "\n" in rest:
        return "has line ends of both kinds; convert them, for instance with dos2unix"
    return "holds a NUL character; it is no text that can be edited" if "\0" in text else ""


def locate(region: Region, text: str) -> Span:
    """Where a region lies in the text of its file. Raises: ConfigError where it is missing or stands more than once."""
    lines = split_lines(text)
    if not region.name:
        return Span(region, 0, len(lines))
    found = [*_marked(region, lines), *_defined(region, text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"editable {str(region)!r}: {region.path} has no function, class or marked region {region.name!r}; "
            f"correct the name, or write '# llmhpo: begin {region.name}' and '# llmhpo: end' around the lines"
        )
    places = ", ".join(str(span.start + 1) for span in found)
    raise ConfigError(
        f"editable {str(region)!r}: {region.path} has {len(found)} of the name {region.name!r}, at lines {places}; rename, "
        "or write '# llmhpo: begin NAME' and '# llmhpo: end' around the one that is meant"
    )


def _marked(region: Region, lines: Sequence[str]) -> list[Span]:
    """The regions of this name between markers, which pair up throughout the file."""
    found: list[Span] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(lines):
        if (mark := MARKER.match(line)) is None:
            continue
        if mark[1] and opened:
            raise ConfigError(
                f"{region.path}:{number + 1}: '# llmhpo: begin {mark[2]}' stands before the end of {opened[0]!r}; "
                "write '# llmhpo: end' first"
            )
        if mark[3] and not opened:
            raise ConfigError(f"{region.path}:{number + 1}: '# llmhpo: end' ends nothing; remove it, or add its begin")
        if mark[3] and opened and opened[0] == region.name:
            found.append(Span(region, opened[1] + 1, number))
        opened = (mark[2], number) if mark[1] else None
    if opened:
        raise ConfigError(
            f"{region.path}:{opened[1] + 1}: '# llmhpo: begin {opened[0]}' has no end; write '# llmhpo: end' below it"
        )
    return found


def _defined(region: Region, text: str) -> list[Span]:
    """The functions and classes of this name, each from its first decorator to its last line."""
    if not is_python(region.path):
        return []
    tree = parse_python(text)
    if isinstance(tree, str):
        raise ConfigError(f"{region.path}: is not valid Python: {tree}; correct it")
    return [Span(region, *lines_of(node)) for name, node in definitions(tree) if name == region.name]


def _absence(path: str, files: Iterable[str]) -> str:
    """Why there is no text at `path`, and what to write instead."""
    files = list(files)
    if any(file.startswith(f"{path}/") for file in files):
        return f"{path!r} is a folder; name files in it, or all of them: {f'{path}/**'!r}"
    close = difflib.get_close_matches(path, files, 1)
    hint = f"did you mean {close[0]!r}? Else " if close else ""
    return (
        f"the project has no text file {path!r} (a link, one that is not UTF-8, or an ignored one does not count); {hint}correct the "
        "path, or give a pattern where edits may make the file"
    )


def _is_glob(spec: str) -> bool:
    return "*" in spec or "?" in spec


def _glob(pattern: str) -> re.Pattern[str]:
    r"""`pattern` as a regular expression: ** any folders, * and ? within one name."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meaning = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return re.compile("".join(meaning.get(part) or re.escape(part) for part in parts), re.DOTALL)

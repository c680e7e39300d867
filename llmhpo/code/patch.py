"""Edits applied to the texts of a revision: only inside what may change, exactly where they say, or not at all.

What an edit must hold is enforced here, not asked for in a prompt. It does not guard what runs: code inside a region can do to
its process whatever Python can. That the metric is measured elsewhere, and the process shut in, is the business of others.
"""

from __future__ import annotations

import difflib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from llmhpo.code.edit import Change, Edit, EditError
from llmhpo.code.regions import BOM, MARKER, Editable, Region, Span, locate, path_problem, split_lines, text_problem
from llmhpo.code.syntax import check_python, is_python, parse_python, skeleton
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.space import SearchSpace

MAX_LINES = 400  # that an edit may write, and may take away
MAX_BYTES = 200_000  # of a file
_SHOWN = 5  # places and lines in a reason


class _Rejection(Exception):
    """Reasons, on their way to an `EditError`."""


class _Cut(NamedTuple):
    """Lines of the base, from 0, and what stands there instead."""

    start: int
    stop: int
    lines: tuple[str, ...]


def apply_edit(
    files: Mapping[str, str],
    editable: Editable,
    edit: Edit,
    *,
    space: SearchSpace,
    taken: Iterable[str] = (),
    max_lines: int = MAX_LINES,
    max_bytes: int = MAX_BYTES,
) -> dict[str, str] | EditError:
    """The texts of the files that `edit` changes or makes, by path, or why it is not taken.

    `files` holds the texts of the base revision, `taken` the paths of all that it has, links and binary files too, `space` what
    is tuned there. All blocks refer to the base, so that their order does not matter. Line ends stay those of the file.
    """
    taken = {*files, *taken}
    by_path: dict[str, list[Change]] = {}
    for change in edit.changes:
        by_path.setdefault(change.path, []).append(change)
    changed: dict[str, str] = {}
    reasons: list[str] = []
    for path, changes in by_path.items():
        try:
            _check_path(path, files, taken, by_path, editable)
            new = _changed(path, files.get(path), changes, editable)
            old = files.get(path, "")
            if new != old or path not in files:
                _check_text(path, old, new, max_bytes)
                changed[path] = new
        except _Rejection as rejection:
            reasons += rejection.args
    if not reasons:
        reasons = [*_size_problems(files, changed, max_lines), *_space_problems(edit, space, changed)]
    return EditError(tuple(reasons[:10])) if reasons else changed


# --- where ------------------------------------------------------------------------------------------------------------


def _check_path(
    path: str, files: Mapping[str, str], taken: Collection[str], edited: Collection[str], editable: Editable
) -> None:
    if problem := path_problem(path):
        raise _Rejection(f"{_show(path)} {problem}")
    if not editable.allows(path):
        what = "is protected" if path in files else "is not a file that may be made"
        raise _Rejection(f"{_show(path)} {what}; what may change: {_listed(editable)}")
    if path in files:
        return
    if path in taken:
        raise _Rejection(f"{_show(path)} is protected, a link or no text; it cannot be edited")
    for other in {*taken, *edited} - {path}:
        if path.startswith(f"{other}/") or other.startswith(f"{path}/"):
            raise _Rejection(f"{_show(path)} cannot be made: {other!r} is there already")
        if path.casefold() == other.casefold():
            raise _Rejection(f"{_show(path)} cannot be made beside {other!r}: some systems hold both names for equal")


def _listed(editable: Editable) -> str:
    names = [*map(str, editable.regions), *editable.globs]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _changed(path: str, old: str | None, changes: Sequence[Change], editable: Editable) -> str:
    """The new text of one file."""
    if old is None:
        return _made(path, changes, editable)
    lines = split_lines(old)
    spans = editable.spans_of(path, old)
    cuts = _cuts(changes, old, lines, spans)
    for one, other in itertools.pairwise(cuts):
        if other.start < one.stop or one[:2] == other[:2]:
            raise _Rejection(f"{path}: two blocks change line {other.start + 1}; make one block of them")
    new_lines = list(lines)
    for cut in reversed(cuts):
        new_lines[cut.start : cut.stop] = cut.lines
    new = "\n".join(new_lines)
    _check_regions(path, old, new, [_moved(span, cuts) for span in spans], spans, editable)
    mark = BOM if old.startswith(BOM) else ""
    return mark + (new.replace("\n", "\r\n") if "\r\n" in old else new)


def _made(path: str, changes: Sequence[Change], editable: Editable) -> str:
    if not editable.fits(path):
        raise _Rejection(f"{_show(path)} does not exist; what may change: {_listed(editable)}")
    if len(changes) > 1 or changes[0].name or changes[0].search:
        raise _Rejection(f"{_show(path)} does not exist; to make it, write it whole in one REWRITE block")
    return "\n".join(_without_blank_ends(changes[0].replace)) + "\n"


def _moved(span: Span, cuts: Iterable[_Cut]) -> Span:
    """A span of the base as it lies after the cuts, each of which is in one span."""
    start, stop = span.start, span.stop
    for cut in cuts:
        growth = len(cut.lines) - (cut.stop - cut.start)
        if span.start <= cut.start and cut.stop <= span.stop:
            stop += growth
        elif cut.stop <= span.start:
            start, stop = start + growth, stop + growth
    return Span(span.region, start, stop)


# --- one block --------------------------------------------------------------------------------------------------------


def _cuts(changes: Sequence[Change], text: str, lines: Sequence[str], spans: Sequence[Span]) -> list[_Cut]:
    """What the blocks replace, by line; all that is wrong with them is told at once."""
    cuts: list[_Cut] = []
    reasons: list[str] = []
    for change in changes:
        try:
            cuts.append(_cut(change, text, lines, spans))
        except _Rejection as rejection:
            reasons += rejection.args
    if reasons:
        raise _Rejection(*reasons)
    return sorted(cuts)


def _cut(change: Change, text: str, lines: Sequence[str], spans: Sequence[Span]) -> _Cut:
    """What a block replaces. Raises: _Rejection where that is not exactly one place inside one span."""
    where = next((s for s in spans if str(s.region) == str(change)), None)
    if where is None and change.name:
        try:
            where = locate(Region(change.path, change.name), text)
        except ConfigError as error:
            raise _Rejection(str(error).removeprefix("editable ")) from None
    if change.search is None:
        cut = _whole(change, where, spans)
    else:
        first, last = (0, len(lines)) if where is None else (where.start, where.stop)
        start = _found(change, change.search, lines, first, last)
        cut = _Cut(start, start + len(change.search), change.replace)
    if not any(s.start <= cut.start and cut.stop <= s.stop for s in spans):
        allowed = ", ".join(f"{s.region} (lines {s.start + 1}-{s.stop})" for s in spans[:_SHOWN])
        raise _Rejection(
            f"{change}: lines {cut.start + 1}-{max(cut.stop, cut.start + 1)} are not wholly in what may change: {allowed}; "
            "marker lines stay as they are"
        )
    return cut


def _whole(change: Change, where: Span | None, spans: Sequence[Span]) -> _Cut:
    if where is None and len(spans) == 1:
        where = spans[0]
    if where is None:
        regions = ", ".join(str(s.region) for s in spans[:_SHOWN])
        raise _Rejection(f"{change}: REWRITE needs the region: {regions}")
    lines = _without_blank_ends(change.replace)
    if not lines and not where.region.name:
        raise _Rejection(f"{change}: nothing would be left of the file")
    return _Cut(where.start, where.stop, lines if where.region.name else (*lines, ""))


def _without_blank_ends(lines: Sequence[str]) -> tuple[str, ...]:
    first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    last = next((i for i in range(len(lines), first, -1) if lines[i - 1].strip()), first)
    return tuple(lines[first:last])


def _found(change: Change, search: Sequence[str], lines: Sequence[str], first: int, last: int) -> int:
    """The only line in [first, last) from which on `search` stands."""
    if not any(line.strip() for line in search):
        raise _Rejection(f"{change}: SEARCH holds no text; copy the lines to replace, or write the region with REWRITE")
    places = _places(search, lines, first, last)
    if len(places) == 1:
        return places[0]
    if places:
        at = ", ".join(str(i + 1) for i in places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
        raise _Rejection(
            f"{change}: SEARCH stands {len(places)} times, at lines {at}; add lines around it until it is the only one"
        )
    near = _places([_bare(line) for line in search], [_bare(line) for line in lines], first, last)
    if near:
        raise _Rejection(
            f"{change}: SEARCH differs only in white space from lines {near[0] + 1}-{near[0] + len(search)}; copy them exactly"
        )
    raise _Rejection(f"{change}: SEARCH is not found; {_closest(search, lines, first, last)}")


def _places(search: Sequence[str], lines: Sequence[str], first: int, last: int) -> list[int]:
    wanted = list(search)
    return [
        i
        for i in range(first, last - len(wanted) + 1)
        if lines[i] == wanted[0] and lines[i : i + len(wanted)] == wanted
    ]


def _bare(line: str) -> str:
    return "".join(line.split())


def _closest(search: Sequence[str], lines: Sequence[str], first: int, last: int) -> str:
    """The first line of `search` that is nowhere, and what comes nearest to it."""
    known = set(lines[first:last])
    missing = next((line for line in search if line not in known), None)
    if missing is None:
        return "its lines are there, but not one after the other; copy them without a gap"
    part = missing.strip()
    if around := next((i for i in range(first, last) if part in lines[i]), None):
        return (
            f"its line {_show(missing)} is only a part of line {around + 1}: {_show(lines[around])}; copy whole lines"
        )
    numbers = {line[:300]: i + 1 for i, line in reversed(list(enumerate(lines[:last]))) if i >= first}
    close = difflib.get_close_matches(missing[:300], list(numbers)[:2000], 1, 0.5)
    hint = f"the closest line is {numbers[close[0]]}: {_show(close[0])}" if close else "no line is like it"
    return f"its line {_show(missing)} is not there, {hint}; copy whole lines exactly"


# --- what comes of it -------------------------------------------------------------------------------------------------


def _check_regions(
    path: str, old: str, new: str, moved: Sequence[Span], spans: Sequence[Span], editable: Editable
) -> None:
    """That all markers and regions are where they should be, and that nothing reaches out of them."""
    if _markers(old) != _markers(new):
        raise _Rejection(f"{path}: lines '# llmhpo: begin' and '# llmhpo: end' may not be added, changed or removed")
    if all(not span.region.name for span in spans) or (is_python(path) and isinstance(check_python(new), str)):
        return  # the whole file may change; or it is no Python, which `_check_text` tells
    try:
        found = editable.spans_of(path, new)
    except ConfigError as error:
        raise _Rejection(f"{path}: the regions must stay: {str(error).removeprefix('editable ')}") from None
    for span in moved:
        if span not in found:
            raise _Rejection(
                f"{span.region}: the new text must be this one function or class and nothing beside it; put imports and "
                "other functions inside"
            )
    before, after = parse_python(old), parse_python(new)
    if isinstance(before, str) or isinstance(after, str):
        return
    if skeleton(before, [s[1:] for s in spans]) != skeleton(after, [s[1:] for s in moved]):
        raise _Rejection(
            f"{path}: the edit reaches out of its region: the code around it would mean something else; close every bracket, "
            "string, function and condition inside"
        )


def _markers(text: str) -> list[str]:
    return [line for line in text.removeprefix(BOM).splitlines() if MARKER.match(line)]


def _check_text(path: str, old: str, new: str, max_bytes: int) -> None:
    if problem := text_problem(new):
        raise _Rejection(f"{path}: with this edit it {problem}")
    for char in sorted(Counter(c for c in new if _is_unseen(c)) - Counter(c for c in old if _is_unseen(c))):
        line = next(i for i, text in enumerate(new.split("\n"), 1) if char in text)
        raise _Rejection(
            f"{path}: line {line} would hold the character U+{ord(char):04X}, which is not seen; leave it out"
        )
    size = len(new.encode())
    if size > max(max_bytes, len(old.encode())):
        raise _Rejection(f"{path}: it would have {size} bytes; at most {max_bytes} are taken")
    if is_python(path) and isinstance(broken := check_python(new), str):
        number = int(broken.split(":")[0].removeprefix("line "))
        shown = "".join(split_lines(new)[number - 1 : number]).strip()
        raise _Rejection(f"{path}: would be no valid Python: {broken}" + (f" ({_show(shown)})" if shown else ""))


def _is_unseen(char: str) -> bool:
    """Control, format and unassigned characters, lone surrogates, unusual line ends."""
    return char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


def _size_problems(files: Mapping[str, str], changed: Mapping[str, str], max_lines: int) -> list[str]:
    if not changed:
        return ["the edit changes nothing"]
    added = removed = 0
    for path, new in changed.items():
        before, after = Counter(split_lines(files.get(path, ""))), Counter(split_lines(new))
        added += (after - before).total()
        removed += (before - after).total()
    if max(added, removed) <= max_lines:
        return []
    return [
        f"the edit adds {added} lines and removes {removed}; at most {max_lines} of each are taken; make a smaller one"
    ]


def _space_problems(edit: Edit, space: SearchSpace, changed: Mapping[str, str]) -> list[str]:
    reasons = []
    for param in edit.hyperparameters:
        if param.name in space:
            reasons.append(f"hyperparameter {param.name!r} exists already; take another name, or read the one there is")
        elif not any(re.search(rf"\b{param.name}\b", text) for text in changed.values()):
            reasons.append(f"hyperparameter {param.name!r} is declared, but the edited code does not name it")
    if not reasons:
        try:
            SearchSpace([*space.params, *edit.hyperparameters])
        except SpaceError as error:
            reasons.append(str(error))
    return reasons


def _show(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")

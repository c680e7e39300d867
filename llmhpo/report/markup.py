"""HTML and SVG as text: what comes from a study is escaped in one place, here."""

from __future__ import annotations

import html
from collections.abc import Iterable

from llmhpo.prompts import as_data, as_line

_EMPTY = frozenset({"meta", "line", "circle", "path", "polyline"})


class Markup(str):
    """Text that is markup already. All other text is foreign."""

    __slots__ = ()


def el(tag: str, *children: str | float, **attributes: object) -> Markup:
    """An element. Children that are no `Markup` are escaped, and so are attributes; `class_` stands for "class".

    An underscore within a name stands for "-"; an attribute that is None is left out.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(c if isinstance(c, Markup) else html.escape(_number(c)) for c in children)
    return Markup(f"<{tag}{pairs}/>" if tag in _EMPTY and not inside else f"<{tag}{pairs}>{inside}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Elements one after another."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def line(text: str, max_chars: int = 200) -> str:
    """Foreign text on one line: capped, nothing in it unseen. Still to be escaped."""
    return as_line(text, max_chars)


def block(text: str, max_chars: int = 4000) -> str:
    """Foreign text on its lines: capped, nothing in it unseen. Still to be escaped."""
    return as_data(text, max_chars)


def table(head: Iterable[str], rows: Iterable[Iterable[str | float]], class_: str = "") -> Markup:
    """A table; a narrow screen scrolls it sideways. Cells that are numbers are set to the right."""
    header = el("tr", *(el("th", h, scope="col") for h in head))
    body = [el("tr", *(el("td", c, class_=_cell_class(c)) for c in row)) for row in rows]
    return el("div", el("table", el("thead", header), el("tbody", *body), class_=class_ or None), class_="scroll")


def _cell_class(cell: str | float) -> str | None:
    text = str(cell)
    return "number" if not isinstance(cell, Markup) and text[:1] in "0123456789-+.$" and text[-1:] not in ")" else None


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

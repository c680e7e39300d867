"""Prompt templates: one file a version, `name.vN.md`, never changed once released.

A template is `string.Template` text: `$name` is replaced, a missing name is an error. The hash of a template's text
goes into every trial made with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template

_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\s{2,}|[^A-Za-z\s]+|\n")
_UNLIKE_A_WORD = re.compile(r"[^aeiouy]{4}|(.)\1\1")
_CUT = " [...] "
_TAG = re.compile(r"<\s*/?\s*data\b[^>\n]*>?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A released template."""

    name: str  # with its version: "propose.v1"
    text: str
    hash: str  # twelve hex digits of the SHA-256 of the text

    def takes(self, name: str) -> bool:
        """Whether the template has a place for this value."""
        return name in Template(self.text).get_identifiers()

    def render(self, **values: object) -> str:
        """Fill the template. A name without a value is a KeyError: a bug of ours."""
        return Template(self.text).substitute(values).strip()


@cache
def load(name: str) -> Prompt:
    """Read a template of the package by name and version, such as "propose.v1"."""
    text = resources.files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return Prompt(name, text, hashlib.sha256(text.encode()).hexdigest()[:12])


def as_data(text: str, max_chars: int, max_tokens: int | None = None) -> str:
    """Foreign text made safe to stand in a prompt: capped, all of it visible, unable to close a fence.

    The middle of an overlong text is left out, and the cut is shown. `max_tokens` caps by `rough_tokens` as well.
    """
    text = "".join(_visible(c) for c in text.replace("\r\n", "\n"))
    text = text.replace("```", "'''").replace("<", "‹").replace(">", "›").strip()
    shown = _cut(text, max_chars)
    while max_tokens is not None and shown and (tokens := rough_tokens(shown)) > max_tokens:
        shown = _cut(text, min(len(shown) - 1, len(shown) * max_tokens // tokens))
    return shown


def _visible(char: str) -> str:
    """`char`, a space for a control character, nothing for what has no glyph of its own."""
    category = unicodedata.category(char)
    if char == "\n" or category[0] != "C":
        return char
    return " " if category == "Cc" else ""


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    if max_chars <= len(_CUT):
        return text[: max(0, max_chars)]
    head = (max_chars - len(_CUT)) * 2 // 3
    return text[:head] + _CUT + text[len(text) - (max_chars - len(_CUT) - head) :]


def as_code(text: str, max_chars: int) -> str:
    """Source text as it stands, to be copied from: capped, all of it visible, unable to close the data.

    Only control characters and the tags of the data are altered; the middle of an overlong text is left out.
    """
    text = "".join(c if c == "\t" else _visible(c) for c in text.replace("\r\n", "\n"))
    return _cut(_TAG.sub(lambda tag: tag[0].replace("<", "‹").replace(">", "›"), text), max_chars)


def as_line(text: str, max_chars: int, max_tokens: int | None = None) -> str:
    """`as_data` on one line."""
    return " ".join(as_data(text, max_chars, max_tokens).split())


def as_json(value: str | float | bool | None) -> str:
    """A value as a JSON literal: what is read from it is the very value, and it cannot close a fence."""
    return escape(json.dumps(value, ensure_ascii=False))


def escape(text: str) -> str:
    r"""Characters that could close a fence or are not seen, as the \uXXXX of JSON; all else as it was."""
    return "".join(_escaped(c) for c in text.replace("```", r"\u0060\u0060\u0060"))


def _escaped(char: str) -> str:
    if char in "<>":
        return f"\\u{ord(char):04x}"
    unseen = char != " " and unicodedata.category(char)[0] in "CZ"
    return json.dumps(char)[1:-1] if unseen else char


def rough_tokens(text: str) -> int:
    """Tokens of `text` for a hard tokenizer, rather too many than too few; no tokenizer is needed.

    A digit, a sign and a byte of a letter beyond ASCII are a token each; so is a letter in what is no word.
    """
    return sum(_piece_tokens(piece) for piece in _PIECE.findall(text))


def _piece_tokens(piece: str) -> int:
    if not (piece.isascii() and piece.isalpha()):
        return len(piece.encode("utf-8", "surrogatepass"))
    if piece.isupper():
        return -(-len(piece) // 2) if len(piece) < 8 else len(piece)
    if len(piece) > 3 and _UNLIKE_A_WORD.search(piece):
        return len(piece)
    vowels = sum(piece.count(v) for v in "aeiouy")
    if len(piece) > 20 or 4 * vowels < len(piece) > 3:
        return len(piece)
    return -(-len(piece) // (6 if len(piece) <= 12 else 4))

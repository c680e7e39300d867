"""Prompt templates: one file a version, `name.vN.md`, never changed once released.

A template is `string.Template` text: `$name` is replaced, a missing name is an error. The hash of a template's text
goes into every trial made with it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template

_PIECE = re.compile(r"[^\W\d_]+|\d+|[^\w\s]+|_+|\n+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A released template."""

    name: str  # with its version: "propose.v1"
    text: str
    hash: str  # twelve hex digits of the SHA-256 of the text

    def render(self, **values: object) -> str:
        """Fill the template. A name without a value is a KeyError: a bug of ours."""
        return Template(self.text).substitute(values).strip()


@cache
def load(name: str) -> Prompt:
    """Read a template of the package by name and version, such as "propose.v1"."""
    text = resources.files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return Prompt(name, text, hashlib.sha256(text.encode()).hexdigest()[:12])


def as_data(text: str, max_chars: int) -> str:
    """Foreign text made safe to stand in a prompt: capped, without control and bidi characters, unable to close a fence.

    The middle of an overlong text is left out, and the cut is shown.
    """
    text = _CONTROL.sub(" ", text.replace("\r\n", "\n"))
    text = text.replace("```", "'''").replace("<", "‹").replace(">", "›").strip()
    if len(text) <= max_chars:
        return text
    mark = " [...] "
    head = (max_chars - len(mark)) * 2 // 3
    return text[:head] + mark + text[len(text) - (max_chars - len(mark) - head) :]


def rough_tokens(text: str) -> int:
    """Tokens of `text` for a tokenizer that takes digits one by one, the costliest there are; no tokenizer is needed."""
    return sum(
        -(-len(piece) // 6) if piece.isalpha() else len(piece.replace("_", "")) for piece in _PIECE.findall(text)
    )


def as_line(text: str, max_chars: int) -> str:
    """`as_data` on one line."""
    return " ".join(as_data(text, max_chars).split())

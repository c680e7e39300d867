"""Snippets as files, and what the reader makes of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llmhpo.reading.script import Reading, read

Read = Callable[..., Reading]


@pytest.fixture
def read_text(tmp_path: Path) -> Read:
    """Write a snippet to a file of the given name, and read it."""

    def write_and_read(text: str, name: str = "train.py") -> Reading:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return read(path)

    return write_and_read

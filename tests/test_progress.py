"""The live table: what others say while it stands is not drawn over."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from llmhpo.config import RunConfig
from llmhpo.progress import make_progress
from llmhpo.space import SearchSpace
from llmhpo.trial import Task


def test_a_warning_stands_above_the_live_table() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    config = RunConfig(space, Task(), Path(), "s", None)
    with make_progress(config, console=screen):
        print("no model was found", file=sys.stderr)
    assert isinstance(screen.file, io.StringIO)
    said = screen.file.getvalue()
    assert "no model was found\n" in said
    assert "trial" in said.split("no model was found\n")[1]

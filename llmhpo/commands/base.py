"""What the commands share: where they print, and how they find a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmhpo.operations import trial_of as trial_of

console = Console()
errors = Console(stderr=True)

StudyFile = Annotated[Path, typer.Argument(help="study.toml, or the folder it lies in")]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of the live table")]


def study_file(study: Path) -> Path:
    """The study file that a command was given, or that lies in the folder which it was given."""
    return study / "study.toml" if study.is_dir() else study

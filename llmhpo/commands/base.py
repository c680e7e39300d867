"""What the commands share: where they print, and how they find a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmhpo.errors import ConfigError
from llmhpo.trial import Context, Trial

console = Console()
errors = Console(stderr=True)

StudyFile = Annotated[Path, typer.Argument(help="study.toml, or the folder it lies in")]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of the live table")]


def study_file(study: Path) -> Path:
    """The study file that a command was given, or that lies in the folder which it was given."""
    return study / "study.toml" if study.is_dir() else study


def trial_of(context: Context, number: int) -> Trial:
    """The trial of this number. Raises: ConfigError where the study has none."""
    for trial in context.trials:
        if trial.number == number:
            return trial
    raise ConfigError(f"trial {number}: the study has trials 0 to {len(context.trials) - 1}")

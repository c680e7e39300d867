"""`llmhpo verify` and `replay`: the event log of a study against its storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from llmhpo.audit import Audit, replay, verify
from llmhpo.commands.base import StudyFile, console, study_file
from llmhpo.config import RunConfig, read_study_file
from llmhpo.prompts import as_line
from llmhpo.store import load_study
from llmhpo.store.journal import journal_path


def verify_command(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Check the event log of a study: that nobody changed it, and that it says what the storage says."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    found = verify(_log_path(config), context, config.study_name)
    _print_audit(found, f"{found.checked} events, {len(context.trials)} trials: log and storage agree")


def replay_command(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Decide again what the event log says was decided, with no model and no training: the trials must be the same."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    found = replay(_log_path(config))
    _print_audit(found, f"{found.checked} decisions: all of them come out the same")


def _log_path(config: RunConfig) -> Path:
    path = journal_path(config.storage, config.study_name, config.directory)
    assert path is not None
    return path


def _print_audit(found: Audit, all_well: str) -> None:
    for note in found.notes:
        console.print(Text(f"note: {as_line(note, 500)}"), soft_wrap=True)
    for problem in found.problems:
        console.print(Text(f"problem: {as_line(problem, 500)}", style="red"), soft_wrap=True)
    if not found.is_clean:
        raise typer.Exit(1)
    console.print(Text(all_well), soft_wrap=True)

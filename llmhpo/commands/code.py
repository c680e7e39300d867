"""`llmhpo diff`, `checkout` and `apply`: what edits made of the code."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.text import Text

from llmhpo.code.apply import FileChange, apply_changes, changes_of, is_applied, settle, unfinished, unlike
from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.commands.base import StudyFile, console, errors, study_file, trial_of
from llmhpo.config import RunConfig, read_study_file
from llmhpo.editing import REPOSITORY
from llmhpo.errors import ConfigError
from llmhpo.history import one_line
from llmhpo.store import load_study
from llmhpo.trial import Context, Trial

TrialNumber = Annotated[int, typer.Argument(metavar="TRIAL", help="number of a trial, as llmhpo show has it")]


class _Edited(NamedTuple):
    """A trial with the code that it ran; `revision` is the baseline where that was the code as it stood."""

    config: RunConfig
    context: Context
    trial: Trial
    lineage: Lineage
    baseline: str
    revision: str


def diff_command(
    trial: TrialNumber,
    study: StudyFile = Path("study.toml"),
    parent: Annotated[
        bool, typer.Option("--parent", help="against the version that was edited, not the first")
    ] = False,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Show what a trial's code changes, in the form that patch reads."""
    edited = _edited(trial, study, study_name, storage)
    before = edited.baseline
    if parent and edited.revision != edited.baseline:
        before = edited.lineage.parent(edited.revision)
    _print_diff(edited, before)


def checkout_command(
    trial: TrialNumber,
    folder: Annotated[Path, typer.Argument(help="new or empty folder")],
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write the code that a trial ran into a folder of its own."""
    edited = _edited(trial, study, study_name, storage)
    edited.lineage.checkout(edited.revision, folder)
    console.print(Text(f"the code of trial {trial} lies in {folder}"), soft_wrap=True)


def apply_command(
    trial: TrialNumber,
    study: StudyFile = Path("study.toml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write the edits of a trial's code into your own files, after showing them and asking. Your git is not touched."""
    edited = _edited(trial, study, study_name, storage)
    root, directory = edited.config.cwd, edited.config.directory
    _end_cut_off(edited)
    changes = changes_of(edited.lineage, edited.baseline, edited.revision)
    if not changes:
        raise ConfigError(f"trial {trial} ran the code as it stood when the study began; there is nothing to apply")
    _check_tree(edited, changes)
    if is_applied(root, changes):
        settle(directory, root, trial, changes)
        console.print(Text(f"{root} holds the code of trial {trial} already"), soft_wrap=True)
        return
    _print_diff(edited, edited.baseline)
    names = ", ".join(c.path for c in changes)
    if not yes and not typer.confirm(f"Write this into {root} ({names})?", err=True):
        errors.print("nothing was written", highlight=False)
        raise typer.Exit(1)
    apply_changes(directory, root, trial, changes)
    console.print(Text(f"written into {root}: {names}"), soft_wrap=True)
    console.print(Text(f"trial {trial} ran it with {one_line(edited.trial.params)}"), soft_wrap=True)


# --- pieces -----------------------------------------------------------------------------------------------------------


def _edited(number: int, study: Path, study_name: str | None, storage: str | None) -> _Edited:
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    trial = trial_of(context, number)
    if context.baseline is None:
        raise ConfigError(
            f"study {config.study_name!r} edits no code; name what may change with `editable` in {study_file(study)}. "
            f"The best configuration: llmhpo export {study}"
        )
    baseline = context.baseline.id
    lineage = Lineage(config.directory / REPOSITORY)
    return _Edited(config, context, trial, lineage, baseline, trial.proposal.code or baseline)


def _check_tree(edited: _Edited, changes: list[FileChange]) -> None:
    """That the files to be written are those that the edit was made of. Raises: ConfigError."""
    number, root = edited.trial.number, edited.config.cwd
    written = {c.path for c in changes}
    others = [p for p in edited.lineage.changed(edited.baseline, root) if p not in written]
    if changed := [*unlike(root, changes), *_editable(edited, others)]:
        raise ConfigError(
            f"{', '.join(map(repr, changed[:5]))} in {str(root)!r} changed since the study began{_whose(edited, changed[0])}; "
            f"put it back, or merge by hand: llmhpo diff {number} | git apply --3way, or llmhpo checkout {number} DIR"
        )
    if others:
        names = ", ".join(others[:5])
        errors.print(
            Text(f"note: {names} changed too since the study began; no trial has measured the edit with that"),
            soft_wrap=True,
        )


def _editable(edited: _Edited, paths: list[str]) -> list[str]:
    """Those of `paths` that the study lets a model edit."""
    if edited.config.editing is None:
        return []
    return Editable.of(edited.config.editing.editable, edited.lineage.files(edited.baseline)).paths(paths)


def _whose(edited: _Edited, path: str) -> str:
    """Which trial's version a file is of, where it is of one."""
    try:
        data = (edited.config.cwd / path).read_bytes()
    except OSError:
        return ""
    for trial in edited.context.trials:
        code = trial.proposal.code
        if code and edited.lineage.bytes_of(code, path) == data:
            return f" (it is the version of trial {trial.number})"
    return ""


def _end_cut_off(edited: _Edited) -> None:
    """End what an `apply` had begun when it was killed."""
    left = unfinished(edited.config.directory)
    if left is None:
        return
    number, root = left
    code = trial_of(edited.context, number).proposal.code or edited.baseline
    if settle(edited.config.directory, root, number, changes_of(edited.lineage, edited.baseline, code)):
        errors.print(
            Text(f"note: llmhpo apply {number} had been cut off; all of its files are written now"), soft_wrap=True
        )


def _print_diff(edited: _Edited, before: str) -> None:
    """On a terminal in colours, without characters that it would obey; elsewhere as patch needs it."""
    text = edited.lineage.diff(before, edited.revision)
    if not text:
        errors.print(f"trial {edited.trial.number} ran the code as it stood when the study began", highlight=False)
    if not console.is_terminal:
        sys.stdout.write(text)
        return
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.splitlines():
        shown = "".join(
            c if c == "\t" or unicodedata.category(c)[0] not in "CZ" or c == " " else "\ufffd" for c in line
        )
        console.print(Text(shown, style=styles.get(line[:1], "")), soft_wrap=True)

"""`llmhpo show` and `export`: what a study holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhpo.agents.edit.author import EDIT
from llmhpo.agents.quality import qualities
from llmhpo.commands.base import StudyFile, console, errors, study_file
from llmhpo.commands.quality import print_qualities
from llmhpo.commands.summary import print_summary
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.history import one_line
from llmhpo.progress import source_text, value_text
from llmhpo.prompts import as_line
from llmhpo.result import result_of
from llmhpo.store import load_study
from llmhpo.telling import chosen_trial, export_text, template_of, trial_text
from llmhpo.trial import Trial


def show(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
    trial: Annotated[int | None, typer.Option(help="one trial, with all that is known of it")] = None,
    model: Annotated[bool, typer.Option("--model", help="what each source's proposals were worth")] = False,
) -> None:
    """Show the trials of a study, and what its model cost. Works while the study runs."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    if trial is not None:
        console.print(Text(trial_text(context, trial, config)), soft_wrap=True)
        return
    if model:
        print_qualities(qualities(context), context.task.metric)
        return
    result = result_of(context, config.study_name, config.storage)
    best = result.best
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "source", config.task.metric, "seconds", "configuration"):
        table.add_column(Text(as_line(name, 30)), justify="left" if name in ("source", "configuration") else "right")
    several = len({p.model for t in context.trials if (p := t.proposal.provenance) is not None}) > 1
    for t in context.trials:
        seconds = "" if t.outcome is None else f"{t.outcome.seconds:.1f}"
        cells = [str(t.number), _source_text(t, several), value_text(t), seconds, one_line(t.params)]
        is_best = best is not None and (t is best or (context.task.noisy and t.params == best.params))
        table.add_row(*(Text(as_line(c, 500)) for c in cells), style="bold green" if is_best else "")
    # Piped into a file or another program, a row stays a row.
    (console if console.is_terminal else Console(width=400)).print(table, crop=False)
    for batch in context.batches:
        if batch.error:
            console.print(Text(f"model, before trial {batch.at}: {as_line(batch.error, 300)}", style="yellow"))
        elif batch.kind == EDIT:
            for problem in batch.problems:
                console.print(Text(f"rejected, before trial {batch.at}: {as_line(problem, 300)}"), soft_wrap=True)
    print_summary(result)


def _source_text(trial: Trial, several: bool) -> str:
    """Who proposed a trial; of `several` models by name."""
    provenance = trial.proposal.provenance if several else None
    return source_text(trial) + (f", {provenance.model}" if provenance is not None else "")


def export(
    study: StudyFile = Path("study.toml"),
    form: Annotated[
        Literal["json", "toml", "command"], typer.Option("--format", help="json, toml, or the command line")
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; default: standard output")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="another trial than the best")] = None,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write the best configuration as JSON, TOML or a command line."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    chosen = chosen_trial(context, config, trial)
    if form == "command" and "params_file" in template_of(config, context).placeholders:
        note = f"note: the command reads params.json; write it with: llmhpo export --trial {chosen.number} --output params.json"
        errors.print(note, soft_wrap=True, highlight=False)
    text = export_text(chosen, form, config, context)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror}; give a file that can be written") from None
        console.print(f"trial {chosen.number} written to {output}", highlight=False, markup=False)

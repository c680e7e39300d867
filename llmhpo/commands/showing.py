"""`llmhpo show` and `export`: what a study holds."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhpo.agents.edit.author import EDIT
from llmhpo.agents.quality import qualities
from llmhpo.api import result_of
from llmhpo.commands.base import StudyFile, console, errors, study_file, trial_of
from llmhpo.commands.quality import print_qualities
from llmhpo.commands.summary import print_summary
from llmhpo.config import RunConfig, read_study_file
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import one_line, show_number
from llmhpo.progress import source_text, value_text
from llmhpo.prompts import as_line
from llmhpo.store import load_study
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Provenance, Trial


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
        _show_trial(context, trial, config)
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
    chosen = incumbent(context) if trial is None else trial_of(context, trial)
    if chosen is None:
        raise ConfigError(
            f"study {config.study_name!r} has no trial that ended well yet; run it, or name one with --trial"
        )
    text = _as_text(chosen, form, config, context.seed)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror}; give a file that can be written") from None
        console.print(f"trial {chosen.number} written to {output}", highlight=False, markup=False)


def _show_trial(context: Context, number: int, config: RunConfig) -> None:
    trial = trial_of(context, number)
    provenance, outcome = trial.proposal.provenance, trial.outcome
    lines: list[tuple[str, Any]] = [
        ("trial", number),
        ("source", trial.proposal.source),
        ("rationale", trial.proposal.rationale),
        ("model", provenance and _provenance_text(provenance)),
        ("code", _code_text(context, trial.proposal.code)),
        ("status", "running" if outcome is None else outcome.status),
        (context.task.metric, outcome and outcome.value),
        ("metrics", outcome and " ".join(f"{k}={show_number(v)}" for k, v in outcome.metrics.items())),
        ("seconds", outcome and f"{outcome.seconds:.1f}"),
        ("message", outcome and outcome.message),
        ("tripwires", outcome and ", ".join(outcome.flags)),
        ("sandbox", outcome and outcome.sandbox),
        ("note", "the job measured this itself: no scorer checks it" if outcome and outcome.self_reported else ""),
        ("files", max((config.directory / "trials").glob(f"{number:05d}*"), default=None)),
        ("log", outcome and outcome.log_tail),
    ]
    for name, value in lines:
        if value not in (None, ""):
            console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for name, value in trial.params.items():
        console.print(Text(f"  {name} = {value!r}"), soft_wrap=True)


def _code_text(context: Context, code: str) -> str:
    """Which revision a trial ran, and how it came about; "" for the code as the user wrote it."""
    revision = next((r for r in context.revisions if r.id == code), None)
    return code if revision is None else f"{code[:12]}, {revision.source} of {revision.parent[:12]}: {revision.note}"


def _provenance_text(p: Provenance) -> str:
    money = "price unknown" if p.usd is None else f"${p.usd:.4f}"
    return f"{p.model}, {p.prompt} ({p.prompt_hash}), request {p.request}, {p.tokens:.0f} tokens, {money}"


def _as_text(trial: Trial, form: str, config: RunConfig, seed: int) -> str:
    if form == "json":
        return json.dumps(trial.params, indent=2, ensure_ascii=False)
    if form == "toml":
        given = {k: v for k, v in trial.params.items() if v is not None}  # TOML has no null
        return "\n".join(f"{json.dumps(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in given.items())
    assert config.command is not None
    template = CommandTemplate(config.command, config.space, config.cwd)
    if "params_file" in template.placeholders:
        errors.print(f"note: the command reads params.json; write it with --trial {trial.number} --output params.json")
    words = template.render(
        trial.params,
        trial=trial.number,
        seed=seed,
        params_file=Path("params.json"),
        result_file=Path("result.json"),
        report_file=Path("report.jsonl"),
    )
    return shlex.join(words)

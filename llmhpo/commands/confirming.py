"""`llmhpo confirm`: the best configuration against the default, on new seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhpo import stopping
from llmhpo.commands.base import StudyFile, console, errors, study_file
from llmhpo.comparison import LEVEL, SEEDLESS, Confirmation, Interval, Reruns
from llmhpo.config import read_study_file
from llmhpo.confirmation import Held
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import show_number
from llmhpo.progress import make_progress
from llmhpo.prompts import as_line
from llmhpo.result import result_of
from llmhpo.session import run_confirmation
from llmhpo.store import load_study


def confirm_command(
    study: StudyFile = Path("study.toml"),
    k: Annotated[int, typer.Option("-k", help="runs of each configuration")] = 5,
    n_workers: Annotated[int | None, typer.Option(help="runs at a time")] = None,
    test: Annotated[bool, typer.Option("--test", help="open the sealed test split: once, when all is decided")] = False,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Run the best configuration and the default again on new seeds; run the same command again to go on."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage, "n_workers": n_workers})
    result = result_of(load_study(str(config.storage), config.study_name), config.study_name, config.storage)
    result = replace(result, task=replace(config.task, noisy=result.task.noisy))
    assert config.command is not None
    if "seed" not in CommandTemplate(config.command, config.space, config.cwd).placeholders:
        errors.print(
            Text("note: the command does not pass {seed}; the runs differ only if the job reads LLMHPO_SEED"),
            soft_wrap=True,
        )
    try:
        with make_progress(config, force=True, console=Console(stderr=True, force_terminal=False)) as on_event:
            held: Held = "test" if test else "promotion"
            confirmation = run_confirmation(config, result, k, on_event, held=held)
    except KeyboardInterrupt:
        errors.print(stopping.farewell("runs"), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    print_confirmation(confirmation)


def print_confirmation(c: Confirmation) -> None:
    """Both configurations with mean and interval, their difference in pairs, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", f"mean {as_line(c.task.metric, 30)}", f"{LEVEL:.0%} interval", "runs", "failed"):
        table.add_column(Text(name), justify="left" if name == "" else "right")
    other = "code as it stood" if c.code else "default"
    best = f"version {c.code[:8]} (trial {c.trial})" if c.code else f"best (trial {c.trial})"
    arms: list[tuple[str, Reruns | None]] = [(other, c.default), (best, c.best)]
    for label, arm in arms:
        if arm is not None:
            ended = sum(v is not None for v in arm.values) + arm.failed
            table.add_row(label, *_interval_cells(arm.interval), str(ended), str(arm.failed))
    if c.default is not None:
        table.add_row("difference" if c.code else "best - default", *_interval_cells(c.difference))
    console.print(table)
    console.print(Text(_edit_verdict(c) if c.code else _verdict(c)), soft_wrap=True)
    if c.is_seedless:
        console.print(Text(f"note: {SEEDLESS}; pass {{seed}} in the command, or read LLMHPO_SEED"), soft_wrap=True)


def _verdict(c: Confirmation) -> str:
    if c.verdict in ("better", "worse"):
        return f"the best is {c.verdict} than the default"
    return "best and default are not distinguishable" if c.verdict else c.note


def _edit_verdict(c: Confirmation) -> str:
    """Whether edited code is confirmed to be better than the code as it stood, each in its best configuration."""
    if not c.confirmed:
        return f"not confirmed: {c.objection}"
    mean, low, high = _interval_cells(c.difference)[0], *_interval_cells(c.difference)[1].split(" to ")
    return (
        f"confirmed: on {c.where} the edited code changes {as_line(c.task.metric, 30)} by {mean} "
        f"({LEVEL:.0%} interval {low} to {high}); see it with llmhpo diff {c.trial}, take it with llmhpo apply {c.trial}"
    )


def _interval_cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    if interval.low is None or interval.high is None:
        return show_number(interval.mean), "-"
    return show_number(interval.mean), f"{show_number(interval.low)} to {show_number(interval.high)}"

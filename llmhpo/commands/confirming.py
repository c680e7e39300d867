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
from llmhpo.api import result_of, run_confirmation
from llmhpo.commands.base import StudyFile, console, errors, study_file
from llmhpo.config import read_study_file
from llmhpo.confirmation import LEVEL, Confirmation, Interval, Reruns
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import show_number
from llmhpo.progress import make_progress
from llmhpo.prompts import as_line
from llmhpo.store import load_study


def confirm_command(
    study: StudyFile = Path("study.toml"),
    k: Annotated[int, typer.Option("-k", help="runs of each configuration")] = 5,
    n_workers: Annotated[int | None, typer.Option(help="runs at a time")] = None,
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
            confirmation = run_confirmation(config, result, k, on_event)
    except KeyboardInterrupt:
        errors.print(stopping.farewell("runs"), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    _print_confirmation(confirmation)


def _print_confirmation(c: Confirmation) -> None:
    """Both configurations with mean and interval, their difference in pairs, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", f"mean {as_line(c.task.metric, 30)}", f"{LEVEL:.0%} interval", "runs", "failed"):
        table.add_column(Text(name), justify="left" if name == "" else "right")
    arms: list[tuple[str, Reruns | None]] = [("default", c.default), (f"best (trial {c.trial})", c.best)]
    for label, arm in arms:
        if arm is not None:
            ended = sum(v is not None for v in arm.values) + arm.failed
            table.add_row(label, *_interval_cells(arm.interval), str(ended), str(arm.failed))
    if c.default is not None:
        table.add_row("best - default", *_interval_cells(c.difference))
    console.print(table)
    console.print(
        Text(
            f"the best is {c.verdict} than the default"
            if c.verdict in ("better", "worse")
            else "best and default are not distinguishable"
            if c.verdict
            else c.note
        )
    )


def _interval_cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    if interval.low is None or interval.high is None:
        return show_number(interval.mean), "-"
    return show_number(interval.mean), f"{show_number(interval.low)} to {show_number(interval.high)}"

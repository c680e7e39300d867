"""The command line. What a command does stands in `commands`; here are their names, and how errors are told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from llmhpo import __version__, stopping
from llmhpo.chat.command import chat_command
from llmhpo.commands import (
    checking,
    code,
    confirming,
    drafting,
    isolating,
    lineage,
    models,
    reporting,
    running,
    serving,
    showing,
)
from llmhpo.commands.base import errors
from llmhpo.errors import LLMHPOError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
model_app = typer.Typer(no_args_is_help=True, help="Models that run on this machine.")
app.add_typer(model_app, name="model")
app.command("init")(drafting.init_command)
app.command("chat")(chat_command)
app.command("run")(running.run_command)
app.command("demo")(running.demo)
app.command("show")(showing.show)
app.command("export")(showing.export)
app.command("report")(reporting.report)
app.command("learned")(reporting.learned)
app.command("suggest", context_settings=reporting.SUGGEST_SETTINGS)(reporting.suggest)
app.command("dashboard")(serving.dashboard)
app.command("mcp")(serving.mcp_command)
app.command("confirm")(confirming.confirm_command)
app.command("verify")(checking.verify_command)
app.command("replay")(checking.replay_command)
app.command("doctor")(isolating.doctor_command)
app.command("lineage")(lineage.lineage_command)
app.command("diff")(code.diff_command)
app.command("checkout")(code.checkout_command)
app.command("apply")(code.apply_command)
model_app.command("install")(models.install)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    """Hyperparameter optimization driven by a language model and kept honest by a classical optimizer."""
    if version:
        sys.stdout.write(f"llmhpo {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Entry point: errors of ours are told without a traceback."""
    stopping.install()
    try:
        app()
    except SystemExit as end:
        stopping.leave_if_stopped(end.code)
        raise
    except LLMHPOError as error:
        errors.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        raise SystemExit(2) from None

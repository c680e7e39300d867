"""`llmhpo doctor`: which sandboxes hold on this machine."""

from __future__ import annotations

import typer
from rich.text import Text

from llmhpo.commands.base import console
from llmhpo.errors import SandboxError
from llmhpo.sandbox.base import label
from llmhpo.sandbox.choose import LIMITS, choose_sandbox, doctor
from llmhpo.sandbox.proof import Check


def doctor_command() -> None:
    """Try to break out of each sandbox on this machine, and print what holds; exit code 1 where none does."""
    for check in doctor():
        console.print(_line(check), soft_wrap=True)
        if check.name == "start" and check.holds:
            for limit in LIMITS[check.sandbox.split()[0]]:
                console.print(Text(f"  limit     {limit}"), soft_wrap=True)
    try:
        chosen = choose_sandbox("auto")
    except SandboxError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(Text(f'sandbox = "auto" is {label(chosen)} here'), soft_wrap=True)


def _line(check: Check) -> Text:
    if check.name == "start":
        said = "starts" if check.holds else f"does not start: {check.note}"
        return Text(f"{check.sandbox} {said}", style="bold" if check.holds else "yellow")
    if check.holds:
        return Text(f"  refused   {check.name}")
    return Text(f"  NOT HELD  {check.name}: {check.note}", style="red")

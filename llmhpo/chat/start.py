"""The chat as a program of its own, without what the other commands import."""

from __future__ import annotations

import sys

import typer

from llmhpo.chat.command import chat_command
from llmhpo.errors import LLMHPOError


def main() -> None:
    """Run `llmhpo chat`; errors of ours are told without a traceback."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(chat_command)
    try:
        app(args=sys.argv[2:], prog_name="llmhpo chat")
    except LLMHPOError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None

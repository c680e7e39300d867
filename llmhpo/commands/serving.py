"""`llmhpo mcp`: studies as tools of a coding agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmhpo.errors import ConfigError


def mcp_command(
    root: Annotated[Path, typer.Argument(help="folder that holds the studies, one folder each")] = Path("studies"),
    port: Annotated[
        int | None, typer.Option(help="serve HTTP at 127.0.0.1 instead of standard input and output")
    ] = None,
) -> None:
    """Serve studies to coding agents (Model Context Protocol): create, run, ask, tell, status, why, best, report."""
    from llmhpo.mcp import Studies, make_server

    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"--port {port} is no port; give one from 1 to 65535")
    server = make_server(Studies(root))
    if port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)

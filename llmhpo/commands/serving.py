"""`llmhpo mcp`: studies as tools of a coding agent; `llmhpo dashboard`: Optuna's dashboard on a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmhpo.commands.base import StudyFile, console, study_file
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError, MissingExtraError
from llmhpo.store import load_study
from llmhpo.store.storage import open_storage


def mcp_command(
    root: Annotated[Path, typer.Argument(help="folder that holds the studies, one folder each")] = Path("studies"),
    port: Annotated[
        int | None, typer.Option(help="serve HTTP at 127.0.0.1 instead of standard input and output")
    ] = None,
) -> None:
    """Serve studies to coding agents (Model Context Protocol): create, run, ask, tell, status, why, best, report."""
    from llmhpo.mcp import Studies, make_server

    if port is not None:
        _check_port(port)
    server = make_server(Studies(root))
    if port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)


def dashboard(
    study: StudyFile = Path("study.toml"),
    port: Annotated[int, typer.Option(help="of 127.0.0.1")] = 8080,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Start optuna-dashboard on the study's storage (extra `dashboard`). Works while the study runs."""
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise MissingExtraError("llmhpo dashboard", "dashboard", "optuna-dashboard") from None
    _check_port(port)
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    load_study(str(config.storage), config.study_name)  # says what is missing before a server does
    console.print(f"http://127.0.0.1:{port}/  (Ctrl-C ends it)", highlight=False)
    try:
        run_server(open_storage(config.storage), host="127.0.0.1", port=port)
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror}; give another one") from None


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise ConfigError(f"--port {port} is no port; give one from 1 to 65535")

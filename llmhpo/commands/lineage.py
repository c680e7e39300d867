"""`llmhpo lineage`: what came of which edit, drawn as a tree."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from llmhpo.agents.edit.tree import Node, parent_code, tree
from llmhpo.commands.base import StudyFile, console, study_file
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.history import show_number
from llmhpo.prompts import as_line
from llmhpo.store import load_study
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context

_WIDTH = 110  # of the picture, in characters
_NOTE_CHARS = 160
_STYLES = {"alive": "", "broken": "red", "closed": "dim", "fresh": "dim", "running": "dim"}


def lineage_command(
    study: StudyFile = Path("study.toml"),
    svg: Annotated[Path | None, typer.Option(help="write the picture into this file instead")] = None,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Draw the versions of the code that a study has tried, each below the one that it was made from."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    if context.baseline is None:
        raise ConfigError(
            f"study {config.study_name!r} edits no code; name what may change: editable = ['model.py'] in {study}"
        )
    picture = draw(context)
    if svg is None:
        (console if console.is_terminal else Console(width=400)).print(picture)
        return
    recorder = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    recorder.print(picture)
    try:
        recorder.save_svg(str(svg), title=as_line(config.study_name, 80))
    except OSError as error:
        raise ConfigError(f"--svg {svg}: {error.strerror}; give a file that can be written") from None
    console.print(f"written to {svg}", highlight=False, markup=False, soft_wrap=True)


def draw(context: Context) -> Tree:
    """The tree of a context that has a baseline: the value of each version's best trial, what it changes, how it ended."""
    best = incumbent(context)
    leader = None if best is None else best.proposal.code
    nodes = tree(context)
    drawn = {"": Tree(_label(nodes[0], leader))}
    for node in nodes[1:]:  # by age: a parent comes before its children
        drawn[node.code] = drawn[parent_code(context, node.revision)].add(_label(node, leader))
    return drawn[""]


def _label(node: Node, leader: str | None) -> Text:
    """ "0.1299 (trial 2) of 5 trials: what it changes [draft, tunes peak_lr]"."""
    count = f"{len(node.trials)} trial" + "s" * (len(node.trials) != 1)
    if node.best is not None and node.best.value is not None:
        found = f"{show_number(node.best.value)} (trial {node.best.number}) of {count}"
    else:
        found = {"broken": "failed", "closed": "refused"}.get(node.state, "no result yet") + f", {count}"
    about = [node.revision.source, *(f"tunes {p.name}" for p in node.revision.hyperparameters)]
    label = Text()
    style = "bold green" if node.code == leader else _STYLES[node.state]
    label.append(found, style=style)
    label.append(f": {as_line(node.revision.note, _NOTE_CHARS)}")
    if node.code:
        label.append(f" [{', '.join(about)}]", style="dim")
    if node.code == leader:
        label.append(" <- best", style="bold green")
    if node.why:
        label.append(f" ({as_line(node.why, _NOTE_CHARS)})", style=style)
    return label

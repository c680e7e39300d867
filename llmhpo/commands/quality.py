"""`llmhpo show --model`: what each source's proposals were worth, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhpo.agents.quality import Quality
from llmhpo.commands.base import console
from llmhpo.history import show_number
from llmhpo.progress import usage_text
from llmhpo.prompts import as_line

_NOTHING = "-"


def print_qualities(found: Sequence[Quality], metric: str) -> None:
    """One row a source, model and template: what it proposed, and what came of that; then the bill of each model."""
    if not found:
        console.print("no trial and no answer of a model yet")
        return
    metric = as_line(metric, 30)
    shown = ["source", "model", "template", "asked", *found[0].shares, "trials", "failed", "best"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, name in enumerate([*shown, f"{metric} gained", "per 1k tokens"]):
        table.add_column(Text(name), justify="left" if k < 3 else "right", no_wrap=True)
    for q in found:
        table.add_row(*(Text(as_line(cell, 60)) for cell in _cells(q)))
    wide = console if console.is_terminal else Console(width=400)
    wide.print(table, crop=False)
    for line in _bills(found):
        console.print(Text(line), soft_wrap=True)


def _cells(q: Quality) -> list[str]:
    asked = str(q.asked) if q.counted else _NOTHING
    per_1k = q.improvement_per_1k_tokens
    return [
        q.origin.source,
        q.origin.model or _NOTHING,
        q.origin.prompt or _NOTHING,
        asked,
        *(_NOTHING if share is None else f"{share:.0%}" for share in q.shares.values()),
        str(q.trials),
        str(q.failed),
        str(q.best_trials),
        show_number(q.improvement, 3),
        _NOTHING if per_1k is None else show_number(per_1k, 3),
    ]


def _bills(found: Iterable[Quality]) -> list[str]:
    lines = []
    for q in found:
        if q.consultations:
            how = q.origin.prompt or "no answer"
            lines.append(f"{as_line(q.origin.model, 60)}, {how}: {usage_text(q.usage)}")
        if q.critic.calls:
            lines.append(f"  of which the critic: {usage_text(q.critic)}; it dropped {q.dropped}")
    return lines

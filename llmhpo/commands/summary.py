"""What a study came to, as the commands print it."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from llmhpo.commands.base import console
from llmhpo.history import show_number
from llmhpo.progress import source_text, usage_text
from llmhpo.prompts import as_line
from llmhpo.result import Result
from llmhpo.trial import Trial


def print_summary(result: Result) -> None:
    """Best against default in every metric that both have, sources, and the bill."""
    best, default = result.best, result.default
    failed = sum(1 for t in result.trials if t.outcome is not None and t.value is None)
    if best is None:
        console.print(f"no trial has ended well; {failed} failed", highlight=False)
        bad = next((t for t in result.trials if t.outcome is not None), None)
        if bad is not None and bad.outcome is not None:
            console.print(Text(f"trial {bad.number}: {bad.outcome.status}: {as_line(bad.outcome.message, 500)}"))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        _print_estimate(result)
        rows = [("default", default), (f"best (trial {best.number}, from {source_text(best)})", best)]
        shown = [(label, t) for label, t in rows if t is not None]
        names = _metric_names(result, [t for _, t in shown])
        for name in names:
            table.add_column(Text(as_line(name, 30)), justify="right")
        for label, t in shown:
            table.add_row(label, *(show_number(_metrics(result, t)[name]) for name in names))
        console.print(table)
    sources = ", ".join(f"{count} {source}" for source, count in result.sources.items())
    console.print(Text(f"{len(result.trials)} trials: {sources}" + (f"; {failed} failed" if failed else "")))
    for transfer in result.transfers:
        console.print(Text(f"imported: {as_line(str(transfer), 600)}"), soft_wrap=True)
    console.print(Text(f"model: {usage_text(result.usage)}"))


def _print_estimate(result: Result) -> None:
    if (e := result.estimate) is None:
        return
    runs = f"{e.n} run{'s' * (e.n > 1)} of it gave {show_number(e.mean)}" + (" on average" if e.n > 1 else "")
    expected = f"{show_number(e.value)} +- {show_number(e.std, 2)}"
    console.print(
        Text(f"noisy: the best is the configuration with the best expected {result.task.metric}, {expected}; {runs}")
    )


def _metrics(result: Result, trial: Trial) -> dict[str, float]:
    assert trial.outcome is not None
    assert trial.outcome.value is not None
    return {result.task.metric: trial.outcome.value, **trial.outcome.metrics}


def _metric_names(result: Result, trials: list[Trial]) -> list[str]:
    common = set.intersection(*(set(_metrics(result, t)) for t in trials))
    return [name for name in _metrics(result, trials[0]) if name in common][:8]

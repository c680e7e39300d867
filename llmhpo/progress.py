"""A study on the screen: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from llmhpo.config import RunConfig
from llmhpo.events import Confirmed, Consulted, Consulting, Event, Finished, Launched, Opened, Stopped
from llmhpo.history import one_line, show_number
from llmhpo.prompts import as_line
from llmhpo.trial import Task, Trial
from llmhpo.usage import Usage

Show = Callable[[Event], None]
_ROWS = 12


@contextlib.contextmanager
def make_progress(config: RunConfig, *, force: bool | None = None, console: Console | None = None) -> Iterator[Show]:
    """What a run is shown with: a live table on a terminal, plain lines with `force` elsewhere, else nothing."""
    console = console or Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        screen = _Screen(config)
        with Live(screen, console=console, refresh_per_second=4, redirect_stdout=False, redirect_stderr=True) as live:
            yield lambda event: _update(screen, live, event)
    elif force:
        lines = _Lines(config.task, console)
        yield lines.show
    else:
        yield lambda _: None


def _update(screen: _Screen, live: Live, event: Event) -> None:
    screen.show(event)
    live.refresh()


# --- words shared by both ---------------------------------------------------------------------------------------------


def usage_text(usage: Usage) -> str:
    """Tokens and money in words: "3 requests, 4,210 tokens, $0.0123"."""
    money = "" if usage.usd == 0 else (", price unknown" if usage.usd is None else f", ${usage.usd:.4f}")
    plural = "" if usage.calls == 1 else "s"
    return f"{usage.calls} request{plural}, {usage.tokens:,} tokens{money}"


def duration(seconds: float) -> str:
    """ "0:07", "12:30", "3:02:10"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def batch_text(event: Consulted) -> str:
    """What a consultation gave, in one line."""
    batch = event.batch
    what = "edits" if batch.kind == "edit" else "configurations"
    text = f"{len(batch.proposals)} of {batch.asked} {what} in {batch.seconds:.1f} s ({usage_text(batch.usage)})"
    if batch.error:
        text += f": {as_line(batch.error, 300)}; the classical optimizer goes on"
        text += ", and the model is not asked again in this session" if batch.fatal else ""
    elif batch.problems:
        text += f"; {len(batch.problems)} problems, first: {as_line(batch.problems[0], 160)}"
    return text


def source_text(trial: Trial) -> str:
    """Who proposed a trial, and where code is edited the version that it runs: "gp, version 1a2b3c4d"."""
    code = trial.proposal.code
    return trial.proposal.source + (f", version {code[:8]}" if code else "")


def value_text(trial: Trial) -> str:
    """A trial's value, or in a word why it has none."""
    if trial.outcome is None:
        return "running"
    return trial.outcome.status if trial.value is None else show_number(trial.value)


def confirmed_text(event: Confirmed) -> str:
    """A confirming run in one line."""
    return f"confirming {event.done}/{event.total}: the {event.which} on seed {event.seed}: {value_text(event.trial)}"


# --- plain lines ------------------------------------------------------------------------------------------------------


class _Lines:
    def __init__(self, task: Task, console: Console) -> None:
        self.task = task
        self._print: Callable[[str], None] = lambda text: console.print(
            text, markup=False, highlight=False, soft_wrap=True
        )

    def show(self, event: Event) -> None:
        if isinstance(event, Opened):
            again = f", {event.again} to run again" if event.again else ""
            before = f" ({event.done} done before{again})" if event.done or event.again else ""
            self._print(f"study {event.study_name}: {event.n_trials} trials{before}")
            for transfer in event.transfers:
                self._print(f"imported: {as_line(str(transfer), 600)}")
        elif isinstance(event, Consulting):
            self._print(f"model: asked for {event.n} proposals")
        elif isinstance(event, Consulted):
            self._print(f"model: {batch_text(event)}")
        elif isinstance(event, Launched):
            trial = event.trial
            edited = f" [{as_line(trial.proposal.rationale, 160)}]" if trial.proposal.source == "edit" else ""
            self._print(f"trial {trial.number} started ({source_text(trial)}): {one_line(trial.params)}{edited}")
        elif isinstance(event, Finished):
            self._print(_finished_line(event, self.task))
        elif isinstance(event, Confirmed):
            self._print(confirmed_text(event))
        else:
            self._print(f"stopped: {event.message}")


def _finished_line(event: Finished, task: Task) -> str:
    trial, outcome = event.trial, event.trial.outcome
    assert outcome is not None
    text = f"trial {trial.number} {outcome.status} after {outcome.seconds:.1f} s"
    if trial.value is not None:
        text += f": {task.metric} {show_number(trial.value)}" + (" (best so far)" if event.is_best else "")
    return text + (f": {as_line(outcome.message, 300)}" if outcome.message and trial.value is None else "")


# --- the live table ---------------------------------------------------------------------------------------------------


class _Screen:
    """All state of the live view; rich renders it again and again."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.trials: dict[int, Trial] = {}
        self.best: Trial | None = None
        self.started: dict[int, float] = {}
        self.seconds: list[float] = []
        self.usage = Usage()
        self.model = ""
        self.n_trials = config.n_trials
        self.asked_at: float | None = None
        self.begin = time.monotonic()
        self.done_before = 0
        self.over = ""
        self.confirming = ""
        self.imported = ""

    def show(self, event: Event) -> None:
        if isinstance(event, Opened):
            self.n_trials, self.done_before, self.usage = event.n_trials, event.done, event.usage
            self.best = event.best
            self.trials = {} if event.best is None else {event.best.number: event.best}
            self.imported = " | ".join(map(str, event.transfers))
        elif isinstance(event, Consulting):
            self.asked_at, self.model = time.monotonic(), f"asked for {event.n} proposals"
        elif isinstance(event, Consulted):
            self.asked_at, self.model = None, batch_text(event)
            self.usage += event.batch.usage
        elif isinstance(event, Launched):
            self.trials[event.trial.number] = event.trial
            self.started[event.trial.number] = time.monotonic()
        elif isinstance(event, Finished):
            self.trials[event.trial.number] = event.trial
            self.best = event.best
            if event.best is not None:
                self.trials[event.best.number] = event.best
            assert event.trial.outcome is not None
            self.seconds.append(event.trial.outcome.seconds)
        elif isinstance(event, Stopped):
            self.usage, self.over = event.usage, f"stopped: {event.message}"
        else:
            self.confirming = confirmed_text(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        best = self.best
        table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
        for name, justify in (
            ("trial", "right"),
            ("source", "left"),
            (self.config.task.metric, "right"),
            ("time", "right"),
        ):
            table.add_column(Text(as_line(name, 20)), justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("configuration", ratio=1, no_wrap=True, overflow="ellipsis")
        rows = max(3, min(_ROWS, options.max_height - 5))
        shown = sorted(self.trials.values(), key=lambda t: t.number)
        visible = [t for t in shown if t.outcome is None or t is best]
        visible += [t for t in reversed(shown) if t not in visible][: max(0, rows - len(visible))]
        for trial in sorted(visible, key=lambda t: t.number):
            table.add_row(
                *self._cells(trial), style="bold green" if trial is best else ("dim" if trial.outcome is None else "")
            )
        yield self._head()
        yield Text(self._best_line(best), style="green" if best else "", no_wrap=True, overflow="ellipsis")
        yield Text(self._model_line(), style="dim", no_wrap=True, overflow="ellipsis")
        if self.imported:
            yield Text(f"imported: {as_line(self.imported, 600)}", style="dim", no_wrap=True, overflow="ellipsis")
        yield table
        for line in (self.over, self.confirming):
            if line:
                yield Text(as_line(line, 300))

    def _cells(self, trial: Trial) -> list[Text]:
        elapsed = time.monotonic() - self.started[trial.number] if trial.outcome is None else trial.outcome.seconds
        style = "red" if trial.outcome is not None and trial.value is None else ""
        cells = [str(trial.number), source_text(trial), value_text(trial), duration(elapsed), one_line(trial.params)]
        return [Text(as_line(cell, 400), style=style if i == 2 else "") for i, cell in enumerate(cells)]

    def _head(self) -> Table:
        done = self.done_before + len(self.seconds)
        grid = Table.grid(padding=(0, 1))
        left = "" if self.over else self._left(done)
        grid.add_row(
            Text(as_line(self.config.study_name, 30), style="bold"),
            ProgressBar(total=self.n_trials, completed=done, width=24),
            Text(f"{done}/{self.n_trials} trials, {duration(time.monotonic() - self.begin)}{left}"),
        )
        return grid

    def _left(self, done: int) -> str:
        if not self.seconds:
            return ""
        rounds = (self.n_trials - done) / self.config.n_workers
        return f", about {duration(statistics.median(self.seconds) * rounds)} left"

    def _best_line(self, best: Trial | None) -> str:
        if best is None or best.value is None:
            return "no trial has ended well yet"
        if self.config.task.noisy:
            value = f"{self.config.task.metric} {show_number(best.value)} in one run"
            return f"expected to be best: trial {best.number}, from {best.proposal.source}, {value}"
        return f"best {self.config.task.metric} {show_number(best.value)} (trial {best.number}, from {best.proposal.source})"

    def _model_line(self) -> str:
        if self.asked_at is not None:
            return f"model: {self.model}, {duration(time.monotonic() - self.asked_at)} ..."
        if not self.model:
            return "no model" if self.config.llm in (None, "none") else "model: not asked yet"
        return f"model: {self.model} | in all {usage_text(self.usage)}"

"""/plot: the values over the trials, or over one parameter, in the terminal and as PNG."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from llmhpo.chat.base import Session, wrong_use
from llmhpo.errors import ConfigError, MissingExtraError
from llmhpo.history import show_number
from llmhpo.prompts import as_line
from llmhpo.trial import Context

_WIDTH, _HEIGHT = 90, 20
_MOST_TICKS = 8


class Picture(NamedTuple):
    """Points, and a line through the best so far where the x axis is time. `log`: of the x axis."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    y: list[float]
    best: list[float]
    ticks: list[str]
    log: bool


def plot(session: Session, words: list[str]) -> str:
    """Draw."""
    path = Path(words[-1]).expanduser() if words and words[-1].lower().endswith(".png") else None
    rest = words[:-1] if path else words
    if len(rest) > 1:
        raise wrong_use("plot", words)
    picture = picture_of(session.study().context(), rest[0] if rest else "history")
    if path is None:
        return _in_terminal(picture)
    _save(picture, path)
    return f"{_in_terminal(picture)}\nwrote {path}"


def picture_of(context: Context, what: str) -> Picture:
    """What is to be drawn. Raises: ConfigError."""
    metric = as_line(context.task.metric, 30)
    done = context.finished
    if not done:
        raise ConfigError("there is nothing to draw: no trial has ended well yet; /status shows what happened")
    values = [t.value for t in done if t.value is not None]
    if len(values) == 1:  # a single point has no scale
        raise ConfigError(f"one trial has ended well so far, with {metric} {show_number(values[0])}; there is something to draw from two on")  # fmt: skip
    if what == "history":
        best, line = values[0], []
        for value in values:
            best = min(best, value) if context.task.direction == "minimize" else max(best, value)
            line.append(best)
        return Picture(
            f"{metric} over trials", "trial", metric, [float(t.number) for t in done], values, line, [], log=False
        )
    if what not in context.space:
        raise ConfigError(f"/plot {what}: draw history or a parameter: {', '.join(context.space.names)}")
    param = context.space[what]
    shown = [
        (context.space.complete(t.params)[what], v)
        for t, v in zip(done, values, strict=True)
        if what in context.space.complete(t.params)
    ]
    if not shown:
        raise ConfigError(f"/plot {what}: no trial that ended well has it")
    ticks = [as_line(str(c), 20) for c in param.choices]
    xs = [float(param.index(x)) if param.choices else float(x) for x, _ in shown]  # type: ignore[arg-type]
    name = as_line(what, 40)
    return Picture(f"{metric} over {name}", name, metric, xs, [y for _, y in shown], [], ticks, param.log)


def _in_terminal(picture: Picture) -> str:
    try:
        import plotext
    except ImportError:
        raise MissingExtraError("/plot", "chat", "plotext") from None
    size = shutil.get_terminal_size((_WIDTH, 2 * _HEIGHT))
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(_WIDTH, max(30, size.columns - 2)), min(_HEIGHT, max(10, size.lines - 8)))
    plotext.scatter(picture.x, picture.y, marker="dot")
    if picture.best:
        plotext.plot(picture.x, picture.best, label="best so far")
        first, last = int(picture.x[0]), int(picture.x[-1])
        numbers = range(first, last + 1, max(1, (last - first) // _MOST_TICKS))  # no trial has half a number
        plotext.xticks([float(n) for n in numbers], [str(n) for n in numbers])
    if picture.ticks:
        plotext.xticks([float(k) for k in range(len(picture.ticks))], picture.ticks)
    if picture.log:
        plotext.xscale("log")
    plotext.title(picture.title)
    plotext.xlabel(picture.x_label)
    plotext.ylabel(picture.y_label)
    return str(plotext.uncolorize(plotext.build()))


def _save(picture: Picture, path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(f"/plot {path}", "chat", "matplotlib") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(picture.x, picture.y, s=18, alpha=0.8)
    if picture.best:
        axes.step(picture.x, picture.best, where="post", label="best so far")
        axes.legend()
    if picture.ticks:
        axes.set_xticks(range(len(picture.ticks)), [_plain(t) for t in picture.ticks])
    if picture.log:
        axes.set_xscale("log")
    axes.set(title=_plain(picture.title), xlabel=_plain(picture.x_label), ylabel=_plain(picture.y_label))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}; name another file") from None


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")

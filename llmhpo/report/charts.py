"""The report's charts: history, importances, slices with the surrogate's view, parallel coordinates, learning curves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from llmhpo.history import one_line, show_number
from llmhpo.param import Param
from llmhpo.report.axes import HEIGHT, WIDTH, Frame, Scale, Tick, param_ticks, svg
from llmhpo.report.markup import Markup, el, join, line
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context, Trial

_LABEL = 15  # characters above a column of parallel coordinates
COLORS = 8  # of sources, as the style sheet names them: s0 to s7
_MOST_LINES = 250
_MOST_POINTS = 2000
_SLICES = 12
_GRID = 41
_GOOD = 0.6  # share of the values that a chart is made for


def sources(context: Context) -> dict[str, str]:
    """The class of each source's colour, the most frequent sources first; what is beyond `COLORS` shares the last."""
    counted = Counter(t.proposal.source for t in context.trials).most_common()
    return {source: f"s{min(k, COLORS - 1)}" for k, (source, _) in enumerate(counted)}


def history_chart(context: Context) -> Markup:
    """Values by trial number, in the colours of their sources; the best so far as a line, failures below."""
    done = [t for t in context.trials if t.outcome is not None]
    valued = [t for t in done if t.value is not None]
    if not valued:
        return Markup("")
    frame = Frame(64, 24, WIDTH - 12, HEIGHT - 44)
    scale = _value_scale([_value(t) for t in valued], context)
    across = Scale(-0.5, max(t.number for t in done) + 0.5)
    parts = [*frame.y_axis(scale.ticks(), line(context.task.metric, 60)), *frame.x_axis(_whole(across), "trial")]
    parts.append(el("polyline", points=_steps(valued, context, frame, across, scale), class_="best-line"))
    colors = sources(context)
    for t in _thinned(done):
        x = frame.x(across.at(t.number))
        if t.value is None:
            y = frame.bottom - 4
            parts.append(el("path", _title(t), d=f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6", class_="failure"))
        else:
            y = frame.y(scale.at(t.value))
            parts.append(el("circle", _title(t), cx=x, cy=y, r=4, class_=f"dot {colors[t.proposal.source]}"))
    legend = [el("span", el("i", class_=f"swatch {c}"), line(s, 30), class_="key") for s, c in colors.items()]
    legend.append(el("span", el("i", class_="swatch best"), "best so far", class_="key"))
    if len(valued) < len(done):
        legend.append(el("span", "× without a value", class_="key"))
    chart = el("div", svg(parts, "value of each trial and the best so far"), class_="scroll")
    return join([chart, el("p", *legend, class_="legend")])


def importance_chart(sensitivities: Mapping[str, float]) -> Markup:
    """A bar a parameter, the most important first."""
    ranked = sorted(sensitivities.items(), key=lambda item: -item[1])[:_SLICES]
    if not ranked:
        return Markup("")
    rows = [
        el(
            "div",
            el("span", line(name, 40), class_="name"),
            el("span", el("i", style=f"width:{max(0.5, 100 * share):.1f}%"), class_="bar"),
            el("span", f"{share:.0%}", class_="share"),
            class_="importance",
        )
        for name, share in ranked
    ]
    return join(rows)


def slice_charts(context: Context, best: Trial, order: Sequence[str]) -> Markup:
    """For each parameter, the trials' values over it, and what the surrogate predicts through the best configuration."""
    names = [n for n in order if n in context.space][:_SLICES]
    valued = [t for t in context.finished if t.value is not None]
    scale = _value_scale([_value(t) for t in valued], context)
    colors = sources(context)
    charts = [_slice(context, context.space[n], valued, best, scale, colors) for n in names]
    return el("div", *charts, class_="slices")


def _slice(
    context: Context, param: Param, valued: Sequence[Trial], best: Trial, scale: Scale, colors: Mapping[str, str]
) -> Markup:
    width, height = 340, 220
    frame = Frame(52, 26, width - 8, height - 28)
    parts = [*frame.y_axis(scale.ticks(4)), *frame.x_axis(param_ticks(param))]
    parts.append(el("text", line(param.name, 40), x=frame.left, y=14, class_="title"))
    parts += _predicted(context, param, best, frame, scale)
    for t in _thinned([t for t in valued if param.name in t.params]):
        x, y = frame.x(param.to_unit(t.params[param.name])), frame.y(scale.at(_value(t)))
        mark = "dot chosen" if t is best else f"dot {colors[t.proposal.source]}"
        parts.append(el("circle", _title(t), cx=x, cy=y, r=5 if t is best else 3, class_=mark))
    return svg(parts, f"values over {line(param.name, 40)}", width=width, height=height)


def _predicted(context: Context, param: Param, best: Trial, frame: Frame, scale: Scale) -> list[Markup]:
    """The surrogate's mean and its band of one standard deviation, all else as in the best configuration."""
    screen, space = fit_screen(context), context.space
    if not screen.fitted or param.name not in best.params:
        return []
    column = space.names.index(param.name)
    U = np.tile(space.to_unit(best.params), (_GRID, 1))
    U[:, column] = np.linspace(0.0, 1.0, _GRID)
    configurations = [space.from_unit(u) for u in U]
    units = [param.to_unit(c[param.name]) for c in configurations]
    prediction = screen.predict(configurations)
    if not np.isfinite(prediction.mean).all():
        return []
    at = [(frame.x(u), m, s) for u, m, s in zip(units, prediction.mean.tolist(), prediction.std.tolist(), strict=True)]
    upper = [f"{x:.1f},{frame.y(scale.at(m + s)):.1f}" for x, m, s in at]
    lower = [f"{x:.1f},{frame.y(scale.at(m - s)):.1f}" for x, m, s in reversed(at)]
    middle = [f"{x:.1f},{frame.y(scale.at(m)):.1f}" for x, m, _ in at]
    return [
        el("path", d=f"M{' L'.join([*upper, *lower])}Z", class_="band"),
        el("polyline", points=" ".join(middle), class_="mean"),
    ]


def parallel_chart(context: Context, best: Trial, order: Sequence[str]) -> Markup:
    """A line a trial across the parameters to its value; the better, the stronger its colour."""
    params = [context.space[n] for n in order if n in context.space][:_SLICES]
    ranked = sorted((t for t in context.finished if t.value is not None), key=lambda t: context.task.loss(_value(t)))
    if len(ranked) < 2 or not params:
        return Markup("")
    scale = _value_scale([_value(t) for t in ranked], context)
    columns = len(params) + 1
    width = max(WIDTH, 100 * columns)
    frame = Frame(48, 40, width - 72, HEIGHT - 16)
    x = [frame.x(k / (columns - 1)) for k in range(columns)]
    shown = ranked[: _MOST_LINES // 2] + _thinned(ranked[_MOST_LINES // 2 :], _MOST_LINES // 2)
    parts = []
    for rank, t in reversed(list(enumerate(shown))):
        heights = [frame.y(p.to_unit(t.params[p.name])) if p.name in t.params else None for p in params]
        heights.append(frame.y(scale.at(_value(t))))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, heights, strict=True) if b is not None)
        strength = 0.15 + 0.6 * (1 - rank / len(shown)) ** 2
        style, mark = (None, "strand chosen") if t is best else (f"opacity:{strength:.2f}", "strand")
        parts.append(el("polyline", _title(t), points=points, class_=mark, style=style))
    for k, param in enumerate(params):
        parts += _upright(frame, x[k], _label(param.name), param_ticks(param, 4))
    parts += _upright(frame, x[-1], _label(context.task.metric), scale.ticks(4))
    chart = svg(parts, "parallel coordinates", width=width)
    return el("div", chart, class_="scroll wide" if width > WIDTH else "scroll")


def _label(name: str) -> str:
    """A name where there is room for a column's width."""
    text = line(name, 60)
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _upright(frame: Frame, x: float, title: str, ticks: Sequence[Tick]) -> list[Markup]:
    parts = [
        el("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="axis"),
        el("text", title, x=x, y=frame.top - 14, class_="title middle"),
    ]
    return parts + [el("text", t.label, x=x + 4, y=frame.y(t.at) + 4, class_="tick halo") for t in ticks]


def curve_chart(context: Context, best: Trial) -> Markup:
    """The learning curves that trials reported, the best trial's on top."""
    curves = [t for t in context.trials if t.outcome is not None and len(t.outcome.curve) > 1]
    if not curves:
        return Markup("")
    shown = [t for t in _thinned(curves, 60) if t is not best] + [t for t in curves if t is best]
    points = [p for t in shown if t.outcome is not None for p in t.outcome.curve]
    scale = _value_scale([v for _, v in points], context)
    across = Scale(min(s for s, _ in points), max(s for s, _ in points) or 1)
    frame = Frame(64, 24, WIDTH - 12, HEIGHT - 44)
    parts = [*frame.y_axis(scale.ticks(), line(context.task.metric, 60)), *frame.x_axis(_whole(across), "step")]
    for t in shown:
        assert t.outcome is not None
        places = [f"{frame.x(across.at(s)):.1f},{frame.y(scale.at(v)):.1f}" for s, v in t.outcome.curve]
        mark = "strand chosen" if t is best else "strand faint"
        parts.append(el("polyline", _title(t), points=" ".join(places), class_=mark))
    return el("div", svg(parts, "learning curves"), class_="scroll")


# --- pieces -----------------------------------------------------------------------------------------------------------


def _value(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value


def _value_scale(values: Sequence[float], context: Context) -> Scale:
    """A scale of the metric for the better part of the values; those far worse lie at its end."""
    ordered = sorted(values, key=context.task.loss)
    good = ordered[: max(3, math.ceil(_GOOD * len(ordered)))]
    spread = max(good) - min(good)
    kept = [v for v in ordered if context.task.loss(v) <= context.task.loss(good[-1]) + spread]
    return Scale.over(kept)


def _steps(valued: Sequence[Trial], context: Context, frame: Frame, across: Scale, scale: Scale) -> str:
    points: list[str] = []
    best = math.inf
    y = None
    for t in valued:
        x = frame.x(across.at(t.number))
        loss = context.task.loss(_value(t))
        if loss < best:
            if y is not None:
                points.append(f"{x:.1f},{y:.1f}")
            best, y = loss, frame.y(scale.at(_value(t)))
            points.append(f"{x:.1f},{y:.1f}")
    return " ".join([*points, f"{frame.right:.1f},{y:.1f}"])


def _whole(scale: Scale) -> list[Tick]:
    return [t for t in scale.ticks(8) if "." not in t.label and not t.label.startswith("-")]


def _thinned(trials: Sequence[Trial], most: int = _MOST_POINTS) -> list[Trial]:
    """At most `most` of the trials, evenly."""
    stride = -(-len(trials) // most)
    return list(trials[:: max(1, stride)])


def _title(trial: Trial) -> Markup:
    """What a pointer that rests on a mark is told."""
    outcome = trial.outcome
    assert outcome is not None
    value = outcome.status if outcome.value is None else show_number(outcome.value, 5)
    words = f"trial {trial.number} ({line(trial.proposal.source, 30)}): {value}; {one_line(trial.params)}"
    return el("title", line(words, 300))

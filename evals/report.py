"""Figures of a comparison as PNG, and one self-contained HTML page with all figures and tables."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import friedmanchisquare, studentized_range

from evals.score import Array, Comparison, Table, all_tables, provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")  # Okabe and Ito
_STYLES = ("-", "--", "-.", ":")
_BOOTSTRAPS = 500
_ALPHA = 0.05
_STYLE_SHEET = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
img { max-width: 100%; } .note { color: #555; } .wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e5e5e5; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #f6f6f6; }
"""
_NOTES = (
    ("Regret over trials", "Normalised regret of the incumbent: 0 at the best configuration, 1 at the median one. "
     "Mean over tasks of the mean over seeds; bands are 95 % bootstrap intervals over tasks.", "regret"),
    ("Rank over trials", "Mean rank among the arms of the panel, 1 is best; ranked for each task and seed.", "rank"),
    ("Critical difference", "Mean ranks of tasks at the end. Arms joined by a bar do not differ: Nemenyi test after "
     "Friedman, 5 %.", "critical-difference"),
    ("Tokens against regret", "Input and output tokens of a run, and its mean regret at the end.", "tokens"),
)  # fmt: skip


def write(comparisons: Sequence[Comparison], out: Path) -> Path:
    """Write the PNG files and index.html into `out`; returns the page's path.

    Raises: ImportError without matplotlib, naming the extra.
    """
    arms = list(dict.fromkeys(arm for c in comparisons for arm in c.arms))
    look = {
        arm: (_COLOURS[i % len(_COLOURS)], _STYLES[i // len(_COLOURS) % len(_STYLES)]) for i, arm in enumerate(arms)
    }
    draw: dict[str, Callable[[Axes, Comparison, dict[str, tuple[str, str]]], None]] = {
        "regret": _regret,
        "rank": _rank,
        "critical-difference": _critical_difference,
        "tokens": _tokens,
    }
    pictures: dict[str, bytes] = {}
    for name, panel in draw.items():
        pictures[name] = _picture(comparisons, look, panel, flat=name == "critical-difference")
        (out / f"{name}.png").write_bytes(pictures[name])
    page = out / "index.html"
    page.write_text(_page(comparisons, pictures), encoding="utf-8")
    return page


def _picture(
    comparisons: Sequence[Comparison],
    look: dict[str, tuple[str, str]],
    panel: Callable[[Axes, Comparison, dict[str, tuple[str, str]]], None],
    *,
    flat: bool,
) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a report needs matplotlib; install the extra: pip install 'llmhpo[bench]'") from None
    columns = min(2, len(comparisons))
    rows = math.ceil(len(comparisons) / columns)
    height = 1.5 + 0.16 * max(len(c.arms) for c in comparisons) if flat else 3.6
    figure: Figure = Figure(figsize=(6.4 * columns, height * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for place, c in zip(axes.flat, comparisons, strict=False):
        panel(place, c, look)
        place.set_title(_wrapped(c.title), fontsize=9)
    for place in list(axes.flat)[len(comparisons) :]:
        place.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _wrapped(title: str, width: int = 74) -> str:
    if len(title) <= width:
        return title
    cut = title.rfind(" ", 0, width)
    return title[:cut] + "\n" + title[cut + 1 :]


# --- panels -----------------------------------------------------------------------------------------------------------


def _curves(axes: Axes, c: Comparison, look: dict[str, tuple[str, str]], values: dict[str, Array]) -> None:
    """Means over tasks with bands; `values`: arm -> (tasks, budget)."""
    trials = np.arange(1, c.budget + 1)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(c.tasks), (_BOOTSTRAPS, len(c.tasks)))
    for arm in c.arms:
        colour, style = look[arm]
        low, high = np.quantile(values[arm][rows].mean(axis=1), [0.025, 0.975], axis=0)
        axes.fill_between(trials, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.plot(trials, values[arm].mean(axis=0), color=colour, linestyle=style, label=arm, linewidth=1.6)
    axes.set_xlabel("trials")
    axes.set_xlim(1, max(2, c.budget))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2)


def _regret(axes: Axes, c: Comparison, look: dict[str, tuple[str, str]]) -> None:
    _curves(axes, c, look, c.regrets)
    axes.set_ylabel("normalised regret")
    axes.set_ylim(bottom=0)


def _rank(axes: Axes, c: Comparison, look: dict[str, tuple[str, str]]) -> None:
    _curves(axes, c, look, c.ranks)
    axes.set_ylabel("mean rank (1 is best)")


def critical_difference(arms: int, tasks: int) -> float:
    """How far apart two mean ranks must lie to differ, of `arms` arms on `tasks` tasks.

    Source: Demsar 2006, equation 7 (Nemenyi).
    """
    q = float(studentized_range.ppf(1 - _ALPHA, arms, np.inf)) / math.sqrt(2)
    return q * math.sqrt(arms * (arms + 1) / (6 * tasks))


def _task_ranks(c: Comparison) -> dict[str, float]:
    """Mean over tasks of the rank of each arm's mean regret at the end."""
    from scipy.stats import rankdata

    final = np.array([c.regrets[arm][:, -1] for arm in c.arms])
    return dict(zip(c.arms, rankdata(final, axis=0).mean(axis=1).tolist(), strict=True))


def _critical_difference(axes: Axes, c: Comparison, look: dict[str, tuple[str, str]]) -> None:
    """Ranks on a scale; names at the sides, the best at the upper left and the worst at the upper right."""
    ranks = _task_ranks(c)
    order = sorted(ranks, key=ranks.__getitem__)
    left, right = 0.6, len(order) + 0.4
    axes.set_yticks([])
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, len(order) + 1))
    axes.tick_params(labelsize=8)
    axes.set_xlim(left - 0.22 * len(order), right + 0.22 * len(order))
    middle = -(-len(order) // 2)
    groups = _tests(axes, c, order, ranks)
    top = 0.35 * (len(groups) + 1)
    axes.set_ylim(-top - 0.7 * middle - 0.5, 0)
    for level, (first, last) in enumerate(groups):
        ends = [ranks[order[first]] - 0.04, ranks[order[last]] + 0.04]
        axes.plot(ends, [-0.35 * (level + 0.8)] * 2, color="#444", linewidth=3, solid_capstyle="butt")
    for place, arm in enumerate(order):
        is_left = place < middle
        y = -top - 0.7 * (place if is_left else len(order) - 1 - place)
        side = left if is_left else right
        axes.plot([ranks[arm], ranks[arm], side], [0, y, y], color=look[arm][0], linewidth=1.2)
        axes.annotate(f"{arm}  {ranks[arm]:.2f}", (side, y), xytext=(-4 if is_left else 4, 0), fontsize=8,
                      textcoords="offset points", ha="right" if is_left else "left", va="center")  # fmt: skip
    axes.set_xlabel(f"mean rank at {c.budget} trials, 1 is best", fontsize=8)


def _tests(axes: Axes, c: Comparison, order: Sequence[str], ranks: dict[str, float]) -> list[tuple[int, int]]:
    """Write the tests' figures into the panel; returns the groups that do not differ."""
    if len(order) < 3 or len(c.tasks) < 3:  # Friedman's test needs three of both
        return []
    width = critical_difference(len(order), len(c.tasks))
    final = [c.regrets[arm][:, -1] for arm in order]
    differs = any(np.any(row != final[0]) for row in final[1:])
    p = float(friedmanchisquare(*final).pvalue) if differs else 1.0
    text = f"CD = {width:.2f}, Friedman p = {p:.2g}"
    axes.annotate(text, (0.5, 0.02), xycoords="axes fraction", ha="center", fontsize=8)
    return _joined([ranks[arm] for arm in order], width)


def _joined(ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """Maximal groups of neighbours (first, last), in ascending ranks, that lie within `width`; none of a single arm."""
    groups: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] < width)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def _tokens(axes: Axes, c: Comparison, look: dict[str, tuple[str, str]]) -> None:
    tokens = {a: float(np.mean([r.input_tokens + r.output_tokens for r in c.runs[a].values()])) for a in c.arms}
    final = {arm: float(c.regrets[arm][:, -1].mean()) for arm in c.arms}
    order = sorted(c.arms, key=final.__getitem__)
    span = max(final.values()) - min(final.values()) or 1.0
    for arm, height in zip(order, _spread([final[arm] for arm in order], 0.07 * span), strict=True):
        x, y, colour = tokens[arm], final[arm], look[arm][0]
        axes.plot(x, y, "o", color=colour)
        axes.annotate(arm, (x, y), xytext=(1.35 * x + 14, height), textcoords="data", va="center", fontsize=8,
                      color=colour, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5})  # fmt: skip
    axes.set_xscale("symlog", linthresh=100)
    axes.set_xlim(-20, 8 * max(100.0, *tokens.values()))
    axes.margins(y=0.15)
    axes.set_xlabel("tokens of a run")
    axes.set_ylabel(f"normalised regret at {c.budget}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved up as far as it takes to be `gap` apart."""
    out: list[float] = []
    for height in heights:
        out.append(height if not out else max(height, out[-1] + gap))
    return out


# --- page -------------------------------------------------------------------------------------------------------------


def _page(comparisons: Sequence[Comparison], pictures: dict[str, bytes]) -> str:
    parts = ["<h1>llmhpo: benchmark</h1>", f"<p class=note>{html.escape(provenance(comparisons))}</p>"]
    for title, note, name in _NOTES:
        data = base64.b64encode(pictures[name]).decode()
        parts += [f"<h2>{title}</h2>", f"<p class=note>{note}</p>"]
        parts.append(f'<img alt="{title}" src="data:image/png;base64,{data}">')
    for c in comparisons:
        parts.append(f"<h2>{html.escape(c.title)}</h2>")
        parts += [_html(table) for table in all_tables(c, per_task=True)]
    head = f"<meta charset=utf-8><title>llmhpo: benchmark</title><style>{_STYLE_SHEET}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table[0])
    rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table[1:])
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

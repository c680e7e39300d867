"""Scales and axes of the report's charts: a value's place in the drawing, and the ticks that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmhpo.history import show_number, show_value
from llmhpo.param import Param
from llmhpo.report.markup import Markup, el, line

WIDTH, HEIGHT = 720, 300  # of a chart in its own units; the page scales it
_CHARACTER = 7.2  # the width of one in a label
_MARGIN = 8  # what every chart leaves free at its right


class Tick(NamedTuple):
    """A mark at `at` in [0, 1] with its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low`..`high` to [0, 1]; logarithmic where `log`."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        """A scale that holds all values with a little room; logarithmic where they are positive and span three decades."""
        low, high = min(values), max(values)
        if low > 0 and high / low > 1000:
            return cls(low / 1.3, high * 1.3, log=True)
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room)

    def at(self, value: float) -> float:
        """Where a value lies; values beyond the ends lie at them."""
        low, high, x = self.low, self.high, value
        if self.log:
            low, high, x = math.log(low), math.log(high), math.log(max(x, self.low))
        return min(1.0, max(0.0, (x - low) / (high - low)))

    def ticks(self, most: int = 6) -> list[Tick]:
        """At round numbers."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            decades = range(first, last + 1, max(1, -(-(last - first + 1) // most)))
            return [Tick(self.at(10.0**k), show_number(10.0**k)) for k in decades]
        step = _round_step((self.high - self.low) / most)
        digits = 1 + max(1, math.ceil(math.log10(max(abs(self.low), abs(self.high)) / step)))
        inside = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [Tick(self.at(k * step), show_number(k * step, digits)) for k in inside]


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))


def param_ticks(param: Param, most: int = 5) -> list[Tick]:
    """Marks of a parameter on the unit scale of `Param.to_unit`."""
    if param.choices:
        shown = param.choices if len(param.choices) <= most else (param.choices[0], param.choices[-1])
        return [Tick(param.to_unit(choice), line(show_value(choice, 3), 14)) for choice in shown]
    if param.log:
        scale = Scale(float(param._low), float(param._high), log=True)
        inner = [t for t in scale.ticks(most) if 0.0 <= t.at <= 1.0]
        if len(inner) >= 2:
            return inner
    units = (0.0, 0.5, 1.0)
    return [Tick(param.to_unit(param.from_unit(u)), show_value(param.from_unit(u), 3)) for u in units]


class Frame(NamedTuple):
    """The drawing area of a chart: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def x(self, share: float) -> float:
        """A share of the width, from the left."""
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        """A share of the height, from the bottom."""
        return self.bottom - share * (self.bottom - self.top)

    def y_axis(self, ticks: Sequence[Tick], title: str = "") -> list[Markup]:
        """Lines across the chart, labelled at the left."""
        parts = [
            el("text", title, x=self.left, y=self.top - 8, class_="title") if title else Markup(""),
        ]
        for tick in ticks:
            y = self.y(tick.at)
            parts.append(el("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            parts.append(el("text", tick.label, x=self.left - 6, y=y + 4, class_="tick end"))
        return parts

    def x_axis(self, ticks: Sequence[Tick], title: str = "") -> list[Markup]:
        """Labels below the chart, none beyond its right end; those that would touch are left out."""
        parts = [el("line", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom, class_="axis")]
        free = -math.inf
        for tick in ticks:
            half = _CHARACTER / 2 * len(tick.label)
            x = min(self.x(tick.at), self.right + _MARGIN - half)
            if x - half > free:
                parts.append(el("text", tick.label, x=x, y=self.bottom + 17, class_="tick middle"))
                free = x + half
        if title:
            parts.append(el("text", title, x=self.right, y=self.bottom + 34, class_="title end"))
        return parts


def svg(parts: Sequence[Markup], label: str, *, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A chart that fills the width of its place; `label` is what a screen reader says."""
    return el("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)

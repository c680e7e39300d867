"""What the numeric side makes of the trials, in words for the model: effects, best region, uncertainty, its own next point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llmhpo.agents.candidates import everywhere
from llmhpo.agents.classical import classical_proposals
from llmhpo.history import show_configuration, show_literal, show_number
from llmhpo.param import Param
from llmhpo.prompts import as_line, escape, rough_tokens
from llmhpo.space import Params
from llmhpo.surrogates.base import Array
from llmhpo.surrogates.screen import Screen, fit_screen
from llmhpo.trial import Context

_TOP = 0.03  # of the points looked at, by predicted mean: the best region
_MIDDLE = (10.0, 90.0)  # percentiles of these that bound it
_WIDE = 0.5  # of a parameter's range: a region that wide says nothing
_COMMON = 0.25  # share of the best points that a choice must have
_FEWEST = 0.05  # share of the effect that is worth a word
_MOST = 4  # parameters that are named


@dataclass(frozen=True, slots=True)
class Expected:
    """What the surrogate predicts for a configuration: median and deviation, in the metric's units."""

    params: Params
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """The surrogate's view. Empty while it has no fit.

    `effects`: share of each parameter in the predicted mean. `region`: by parameter, ends of the range (two values) or choices
    that the best predicted configurations have. `best`: what is predicted best in it. `next`: what the classical optimizer would
    try now. `skill`: rank correlation of held-out predictions with what came, in [-1, 1]; None for fewer than five trials.
    """

    effects: Mapping[str, float] = field(default_factory=dict)
    region: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    best: Expected | None = None
    next: Expected | None = None
    skill: float | None = None


def outlook(context: Context) -> Outlook:
    """What the numeric side thinks now; a function of the context alone."""
    screen = fit_screen(context)
    if not screen.fitted:
        return Outlook()
    space = context.space
    U = everywhere(space, np.random.default_rng([context.seed, len(context.trials), 5]))
    ranked = np.argsort(screen.expected_loss(space.encode_unit(U)), kind="stable")
    top = U[ranked[: max(8, round(_TOP * len(U)))]]
    region = {p.name: found for p, column in zip(space.params, top.T, strict=True) if (found := _region(p, column))}
    following = classical_proposals(context, 1)
    return Outlook(
        effects=screen.sensitivities(),
        region=region,
        best=_expected(screen, space.from_unit(top[0])),
        next=_expected(screen, following[0].params) if following else None,
        skill=screen.skill(),
    )


def _expected(screen: Screen, params: Params) -> Expected:
    prediction = screen.predict([params])
    return Expected(params, float(prediction.mean[0]), float(prediction.std[0]))


def _region(param: Param, units: Array) -> tuple[object, ...]:
    """Where the best points of one parameter lie: (low, high), or its common choices; () where that is nearly everywhere."""
    if param.choices and not param.ordered:
        drawn = [param.from_unit(float(u)) for u in units]
        common = tuple(c for c in param.choices if drawn.count(c) >= _COMMON * len(drawn))
        return common if 0 < len(common) < len(param.choices) else ()
    low, high = np.percentile(units, _MIDDLE)
    return () if high - low > _WIDE else (param.from_unit(float(low)), param.from_unit(float(high)))


def outlook_text(view: Outlook, context: Context, max_tokens: int) -> str:
    """The view in lines, most useful first, as many whole ones as fit `max_tokens`; "" where there is nothing to say."""
    head = "What a numeric model of these trials expects:"
    shown: list[str] = []
    for line in _lines(view, context):
        if rough_tokens("\n".join([head, *shown, line])) <= max_tokens:
            shown.append(line)
    return "\n".join([head, *shown]) if shown else ""


def _lines(view: Outlook, context: Context) -> Sequence[str]:
    space, lines = context.space, []
    if view.region:
        named = sorted(view.region, key=lambda name: -view.effects.get(name, 0.0))[:_MOST]
        lines.append(f"- best region: {'; '.join(_region_text(space[name], view.region[name]) for name in named)}")
    if view.best is not None:
        trust = "" if view.skill is None else f"; held-out predictions correlate {view.skill:.1f} with results"
        lines.append(f"- {_value_text(view.best)} at its best point there{trust}")
    if view.next is not None:
        lines.append(f"- next it would try {show_configuration(view.next.params, space)}: {_value_text(view.next)}")
    if effects := effects_text(view.effects):
        lines.append(f"- effect on the value: {effects}")
    return lines


def _region_text(param: Param, found: tuple[object, ...]) -> str:
    name = as_line(escape(param.name), 60, 16)
    values = [show_literal(param, value) for value in found]  # type: ignore[arg-type]
    if param.choices and not param.ordered:
        return f"{name} {' or '.join(values)}"
    return f"{name} {values[0]}" if values[0] == values[1] else f"{name} {values[0]} to {values[1]}"


def _value_text(expected: Expected) -> str:
    return f"{show_number(expected.mean, 3)} +- {show_number(expected.std, 2)}"


def effects_text(effects: Mapping[str, float]) -> str:
    """The parameters that matter most and their shares; "" where none stands out."""
    top = sorted(effects.items(), key=lambda item: -item[1])[:_MOST]
    return ", ".join(f"{as_line(escape(name), 60, 16)} {share:.0%}" for name, share in top if share >= _FEWEST)

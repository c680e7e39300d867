"""What the trials show, as claims with their evidence: each a test or a prediction, computed here and worded elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmhpo.history import show_number, show_value
from llmhpo.param import Param, ParamValue
from llmhpo.surrogates.base import Array
from llmhpo.surrogates.incumbent import settled
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context, Trial

Kind = Literal["importance", "trend", "choice", "region", "failure"]
Sense = Literal["higher", "lower", ""]

_LEAST = 8  # trials that ended well, before anything is claimed
_LEAST_OF_GROUP = 3
_LEVEL = 0.05  # for all tests of a study together (Holm)
_MATTERS = 0.15  # share of the predicted variance
_GRID = 33
_SAMPLE = 32  # trials that a partial dependence is averaged over
_STEP = 0.5 / (_GRID - 1)
_NARROW = 0.5  # of a parameter's range: a region that is wider says nothing


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that the trials show of one parameter. `text` says it plainly; `statistic` is what it rests on.

    `sense` is the end of the range (or, of a failure, the end that fails) it speaks for, "" where that is not the point.
    `value` is the choice, or the bounds of the region, that is meant. `p` is the p-value corrected for all tests of the study
    (Holm 1979), None for what the surrogate predicts. `trials` are the numbers of the trials that it rests on, best first.
    """

    kind: Kind
    parameter: str
    text: str
    statistic: str
    trials: tuple[int, ...]
    sense: Sense = ""
    value: tuple[ParamValue, ...] = ()
    p: float | None = None


def claims(context: Context) -> list[Claim]:
    """What can be said of a study so far, the most important parameters first; [] while too few trials ended well.

    Trials are not drawn at random, but where the search looked: a claim holds for the region that was searched.
    """
    context = settled(context)
    if len(context.finished) < _LEAST:
        return []
    screen = fit_screen(context)
    shares = screen.sensitivities()
    found = [*_importances(context, shares), *_regions(context, shares), *_corrected([*_tests(context)])]
    kinds: list[Kind] = ["importance", "region", "trend", "choice", "failure"]
    return sorted(found, key=lambda c: (-shares.get(c.parameter, 0.0), c.parameter, kinds.index(c.kind)))


# --- what the surrogate says ------------------------------------------------------------------------------------------


def _importances(context: Context, shares: dict[str, float]) -> Iterator[Claim]:
    numbers = _best_first(context.finished, context)
    for name, share in shares.items():
        if share >= _MATTERS:
            text = f"{name} accounts for {share:.0%} of what changes {context.task.metric} over the space."
            yield Claim("importance", name, text, f"share of predicted variance {share:.2f}", numbers)


def _regions(context: Context, shares: dict[str, float]) -> Iterator[Claim]:
    """Where along each parameter that matters the surrogate expects what is as good as its best, averaged over the trials."""
    if not fit_screen(context).fitted:
        return
    for param in context.space.params:
        with_it = [t for t in context.finished if param.name in t.params]
        if param.choices or not with_it or shares.get(param.name, 0.0) < _MATTERS:
            continue
        units, mean, std = _dependence(context, param, with_it)
        low = int(np.argmin(mean))
        good = mean <= mean[low] + std[low]
        inside = units[_run_around(good, low)]
        low_end, high_end = max(0.0, float(inside.min()) - _STEP), min(1.0, float(inside.max()) + _STEP)
        ends = (param.from_unit(low_end), param.from_unit(high_end))
        numbers = _best_first([t for t in context.finished if _is_between(param, t, ends)], context)
        if high_end - low_end >= _NARROW or len(numbers) < _LEAST_OF_GROUP:
            continue
        low_text, high_text = (show_value(end, 3) for end in ends)
        where = f"at {low_text}" if low_text == high_text else f"between {low_text} and {high_text}"
        text = f"Averaged over the trials, {param.name} is best {where}."
        statistic = (
            f"partial dependence: {context.task.metric} predicted within one standard deviation of its optimum there"
        )
        yield Claim("region", param.name, text, statistic, numbers, value=ends)


def _dependence(context: Context, param: Param, trials: Sequence[Trial]) -> tuple[Array, Array, Array]:
    """(units, loss, standard deviation) along a parameter, each (grid,): means of the predictions with all else as in the trials.

    Source: Friedman 2001, Annals of Statistics 29, section 8.2 (partial dependence); over a sample of trials where there are many.
    """
    space, at = context.space, context.space.names.index(param.name)
    chosen = [trials[k] for k in np.unique(np.linspace(0, len(trials) - 1, _SAMPLE).round().astype(int))]
    others = np.array([space.to_unit(t.params) for t in chosen])
    U = np.repeat(others, _GRID, axis=0)
    U[:, at] = np.tile(np.linspace(0.0, 1.0, _GRID), len(chosen))
    configurations = [space.from_unit(u) for u in U]
    prediction = fit_screen(context).predict(configurations)
    units = np.array([param.to_unit(c[param.name]) for c in configurations[:_GRID]])
    mean, std = (values.reshape(len(chosen), _GRID).mean(axis=0) for values in (prediction.mean, prediction.std))
    return units, mean if context.task.direction == "minimize" else -mean, std


def _run_around(good: Array, at: int) -> slice:
    """The stretch of true values around a position."""
    first = last = at
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(good) - 1 and good[last + 1]:
        last += 1
    return slice(first, last + 1)


def _is_between(param: Param, trial: Trial, ends: tuple[ParamValue, ParamValue]) -> bool:
    if param.name not in trial.params:
        return False
    low, high = (param.to_unit(end) for end in ends)
    return low <= param.to_unit(trial.params[param.name]) <= high


# --- what tests say ---------------------------------------------------------------------------------------------------


def _tests(context: Context) -> Iterator[Claim]:
    from scipy import stats

    for param in context.space.params:
        with_it = [t for t in context.finished if param.name in t.params]
        losses = np.array([context.task.loss(t.value or 0.0) for t in with_it])
        if len(with_it) >= _LEAST and np.ptp(losses) > 0:
            if param.choices and not param.ordered:
                yield from _choice(context, param, with_it, losses)
            else:
                units = np.array([param.to_unit(t.params[param.name]) for t in with_it])
                if np.ptp(units) > 0:
                    rho, p = stats.spearmanr(units, losses)
                    sense: Sense = "lower" if rho > 0 else "higher"
                    text = f"{sense.capitalize()} {param.name} gave better {context.task.metric}."
                    statistic = f"Spearman's rho {rho if context.task.direction == 'minimize' else -rho:+.2f} over {len(with_it)} trials"
                    numbers = _best_first(with_it, context)
                    yield Claim("trend", param.name, text, statistic, numbers, sense, p=float(p))
        yield from _failure(context, param)


def _choice(context: Context, param: Param, trials: Sequence[Trial], losses: Array) -> Iterator[Claim]:
    """The choice with the best median against all others."""
    from scipy import stats

    labels = np.array([param.index(t.params[param.name]) for t in trials])
    groups = [k for k in set(labels.tolist()) if (labels == k).sum() >= _LEAST_OF_GROUP]
    if not groups or len(groups) == len(labels) or (labels == groups[0]).all():
        return
    best = min(groups, key=lambda k: float(np.median(losses[labels == k])))
    mine, others = losses[labels == best], losses[labels != best]
    if len(others) < _LEAST_OF_GROUP:
        return
    p = float(stats.mannwhitneyu(mine, others).pvalue)
    value = param.choices[best]
    text = f"{param.name} = {show_value(value)} gave better {context.task.metric} than its other values."
    medians = (context.task.loss(float(np.median(group))) for group in (mine, others))
    statistic = "medians {} against {}, Mann-Whitney, {} against {} trials".format(
        *(show_number(m) for m in medians), len(mine), len(others)
    )
    numbers = _best_first([t for t, k in zip(trials, labels, strict=True) if k == best], context)
    yield Claim("choice", param.name, text, statistic, numbers, value=(value,), p=p)


def _failure(context: Context, param: Param) -> Iterator[Claim]:
    """The end of a range at which trials fail."""
    from scipy import stats

    failed = [t for t in context.failed if param.name in t.params and t.outcome and t.outcome.status != "pruned"]
    well = [t for t in context.finished if param.name in t.params]
    if (param.choices and not param.ordered) or min(len(failed), len(well)) < _LEAST_OF_GROUP:
        return
    bad, good = (np.array([param.to_unit(t.params[param.name]) for t in group]) for group in (failed, well))
    if np.ptp([*bad, *good]) == 0:
        return
    p = float(stats.mannwhitneyu(bad, good).pvalue)
    sense: Sense = "higher" if np.median(bad) > np.median(good) else "lower"
    edge = min(failed, key=lambda t: param.to_unit(t.params[param.name]) * (1 if sense == "higher" else -1))
    value = edge.params[param.name]
    text = f"{sense.capitalize()} {param.name} made trials fail, {'from' if sense == 'higher' else 'up to'} {show_value(value, 3)}."
    statistic = f"Mann-Whitney, {len(failed)} failed against {len(well)} that ended well"
    numbers = tuple(t.number for t in failed)
    yield Claim("failure", param.name, text, statistic, numbers, sense, (value,), p)


def _corrected(tested: Sequence[Claim]) -> list[Claim]:
    """Those that hold when all tests are counted. Source: Holm 1979, Scandinavian Journal of Statistics 6."""
    from dataclasses import replace

    kept: list[Claim] = []
    known = [c for c in tested if c.p is not None and math.isfinite(c.p)]
    so_far = 0.0
    for k, claim in enumerate(sorted(known, key=lambda c: c.p or 0.0)):
        so_far = max(so_far, min(1.0, (claim.p or 0.0) * (len(known) - k)))
        if so_far <= _LEVEL:
            kept.append(replace(claim, p=so_far, statistic=f"{claim.statistic}, p {_p(so_far)}"))
    return kept


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _best_first(trials: Sequence[Trial], context: Context) -> tuple[int, ...]:
    return tuple(t.number for t in sorted(trials, key=lambda t: (context.task.loss(t.value or 0.0), t.number)))

"""Trials of another study fitted to the space of this one by name: what fits is taken as it was measured, nothing is changed to fit.

What is taken over is trials that ended well. A parameter that an old trial lacks takes the default that the space declares; a
value that does not fit leaves the trial out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from llmhpo.errors import ConfigError
from llmhpo.param import Param
from llmhpo.space import Params, SearchSpace
from llmhpo.transfer import Transfer, few
from llmhpo.trial import IMPORTED, Outcome, Proposal, Task, Trial


def fit_trials(
    trials: Sequence[FrozenTrial], origin: str, space: SearchSpace, task: Task
) -> tuple[Transfer, list[Trial]]:
    """The trials that fit, in their old order and with their old numbers, and what became of all.

    Of several that become one configuration, the one with the median value is taken.

    Raises: ConfigError where the parameters have other types, or no trial fits; it says what would help.
    """
    _check_names(trials, origin, space)
    _check_types(trials, origin, space)
    left_out, filled, known = Counter[str](), Counter[str](), dict[str, list[Trial]]()
    for frozen in trials:
        reason = _why_not(frozen, task)
        params, missing = ({}, []) if reason else _fitted(frozen, space)
        if reason := reason or ("" if params else missing[0]):
            left_out[reason] += 1
            continue
        filled.update(missing)
        known.setdefault(space.key(params), []).append(_imported(frozen, params, origin))
    taken = [_median(same, task) for same in known.values()]
    if merged := sum(map(len, known.values())) - len(taken):
        left_out["another one became the same configuration"] = merged
    ignored = dict.fromkeys(name for t in trials for name in t.params if name not in space)
    made = Transfer(origin, len(trials), len(taken), dict(left_out), dict(filled), tuple(ignored))
    if not taken:
        raise ConfigError(
            f"warm_start: none of the trials fits: {made}; widen the ranges, declare defaults, or leave it out"
        )
    return made, sorted(taken, key=lambda t: t.number)


def _why_not(frozen: FrozenTrial, task: Task) -> str:
    """Why a trial's result is no history here; "" where it is."""
    values = frozen.values if frozen.state == TrialState.COMPLETE else None
    if values is None or not math.isfinite(values[0]):
        return "did not end well"
    if frozen.user_attrs.get("code"):
        return "ran edited code"
    low, high = task.bounds or (None, None)
    is_outside = (low is not None and values[0] < low) or (high is not None and values[0] > high)
    return "value outside metric_bounds" if is_outside else ""


def _fitted(frozen: FrozenTrial, space: SearchSpace) -> tuple[Params, list[str]]:
    """The configuration and the names that took a default; or nothing, and why."""
    old: Mapping[str, Any] = frozen.user_attrs.get("evaluated") or frozen.params
    params: Params = {}
    filled = []
    for param in space._order:
        if not space.is_active(param, params):
            continue
        if param.name in old:
            if param.check(old[param.name]) is not None:
                return {}, [f"{param.name} {'none of its choices' if param.choices else 'out of its range or grid'}"]
            params[param.name] = param.cast(old[param.name])
        elif param.has_default:
            params[param.name] = param.cast(param.default)
            filled.append(param.name)
        else:
            return {}, [f"{param.name} missing, and no default declared"]
    return {name: params[name] for name in space.names if name in params}, filled


def _imported(frozen: FrozenTrial, params: Params, origin: str) -> Trial:
    source, seconds = frozen.user_attrs.get("source"), frozen.user_attrs.get("seconds")
    duration = frozen.duration
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        seconds = 0.0 if duration is None else max(0.0, duration.total_seconds())
    why = f"trial {frozen.number} of {origin}" + (f", from {source}" if isinstance(source, str) else "")
    assert frozen.values is not None
    return Trial(frozen.number, Proposal(params, IMPORTED, why), Outcome("ok", float(frozen.values[0]), float(seconds)))


def _median(same: Sequence[Trial], task: Task) -> Trial:
    """The one in the middle, the better of two: with a parameter ignored, the best of many was not this configuration's merit."""
    ranked = sorted(same, key=lambda t: (task.loss(t.value or 0.0), t.number))
    return ranked[(len(ranked) - 1) // 2]


def _check_names(trials: Sequence[FrozenTrial], origin: str, space: SearchSpace) -> None:
    if not trials:
        raise ConfigError(f"warm_start: {origin} has no trials; leave it out, or name another study")
    theirs = dict.fromkeys(name for t in trials for name in t.params)
    if not any(name in space for name in theirs):
        raise ConfigError(
            f"warm_start: {origin} tunes {few(tuple(theirs)) or 'nothing'}, this space {few(space.names)}: no name is common to "
            "both; parameters are matched by name, so rename those of this space"
        )


def _check_types(trials: Sequence[FrozenTrial], origin: str, space: SearchSpace) -> None:
    """Raises: ConfigError for a parameter of which no value can ever fit: words here and numbers there."""
    for param in space.params:
        for distribution in {t.distributions[param.name] for t in trials if param.name in t.distributions}:
            if not (_may_be(param.distribution) & _may_be(distribution)):
                raise ConfigError(
                    f"warm_start: {param.name!r} takes {param.describe_range()} here, and {_words(param.name, distribution)} in "
                    f"{origin}; these have nothing in common, so rename it here, or leave the study out"
                )


def _may_be(distribution: BaseDistribution) -> set[str]:
    """The types of its values, numbers being one."""
    if not isinstance(distribution, CategoricalDistribution):
        return {"number"}
    kinds = {type(c).__name__ for c in distribution.choices}
    return {"number" if kind in ("int", "float") else kind for kind in kinds}


def _words(name: str, distribution: BaseDistribution) -> str:
    try:
        return Param(name, distribution).describe_range()
    except ValueError:  # choices that are no choices of ours
        return repr(distribution)[:200]

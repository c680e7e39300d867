"""Under which conditions a draw is made, told from runs that did and runs that did not make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from optuna.distributions import FloatDistribution

from llmhpo.param import Param, ParamValue, When

_MOST_VALUES = 64  # of one condition; a longer list is no help to anybody


class Seen(NamedTuple):
    """What one run drew, in the order of the draws. Where it was cut off (`is_whole` false), what is missing says nothing."""

    values: Mapping[str, ParamValue]
    is_whole: bool = True


def conditions(name: str, params: Mapping[str, Param], runs: Sequence[Seen]) -> tuple[When, ...]:
    """The conditions that tell the runs with the draw `name` from those without; () where it was always made.

    Parents are discrete parameters drawn before it. The parent that explains most is taken first, of equals the one drawn
    first. What no value explains is left out: the draw then counts as made more often than it is.
    """
    present = [r for r in runs if name in r.values]
    absent = [r for r in runs if name not in r.values and r.is_whole]
    chosen: list[When] = []
    candidates = [c for parent in _before(name, present) if (c := _when(params[parent], runs, present)) is not None]
    while absent and candidates:
        best = max(candidates, key=lambda c: sum(not _holds(c, r) for r in absent))  # the first of equals
        left = [r for r in absent if _holds(best, r)]
        if len(left) == len(absent):
            break
        chosen.append(best)
        absent = left
    return tuple(chosen)


def _before(name: str, present: Sequence[Seen]) -> list[str]:
    """The parameters drawn before `name` in every run that drew it, in the order of the first run."""
    lists = [list(r.values)[: list(r.values).index(name)] for r in present]
    return [p for p in lists[0] if all(p in others for others in lists[1:])] if lists else []


def _when(parent: Param, runs: Sequence[Seen], present: Sequence[Seen]) -> When | None:
    if isinstance(parent.distribution, FloatDistribution):
        return None
    allowed = {r.values[parent.name] for r in present}
    if not parent.choices:
        known = {r.values[parent.name] for r in runs if parent.name in r.values}
        allowed |= _between(parent, sorted(allowed, key=_number), known - allowed)
    if len(allowed) > _MOST_VALUES:
        return None
    order = parent.choices or sorted(allowed, key=_number)
    return When(parent.name, tuple(v for v in order if v in allowed))


def _between(parent: Param, allowed: Sequence[ParamValue], others: set[ParamValue]) -> set[ParamValue]:
    """Whole numbers never tried that lie between two neighbours under which the draw was made."""
    out: set[ParamValue] = set()
    for low, high in pairwise(allowed):
        first, last = int(_number(low)), int(_number(high))
        if last - first > 1 and not any(first < _number(o) < last for o in others) and last - first <= 10_000:
            out |= {v for v in range(first + 1, last) if parent.check(v) is None}
    return out


def _number(value: ParamValue) -> float:
    assert isinstance(value, int | float)
    return value


def _holds(when: When, run: Seen) -> bool:
    return when.parent in run.values and run.values[when.parent] in when.values

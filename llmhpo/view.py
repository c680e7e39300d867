"""The part of a search space that is searched now, where the person has narrowed or frozen parameters.

Trials outside of it stay in the record and go on to inform the surrogate; nothing outside is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo.errors import SpaceError
from llmhpo.param import UNSET, Param, ParamValue, When, param_from_dict
from llmhpo.space import Params, SearchSpace
from llmhpo.steering import Limit, Steering

if TYPE_CHECKING:
    from llmhpo.trial import Context, Task

Array = npt.NDArray[np.float64]


class View:
    """The configurations of `space` that keep to `limits`. Names that the space does not have are left out of account.

    Raises: SpaceError for limits that leave a parameter no value.
    """

    def __init__(self, space: SearchSpace, limits: Mapping[str, Limit]) -> None:
        self.full = space
        self._limits = {name: limit for name, limit in limits.items() if name in space}
        self._narrow = {name: narrowed(space[name], limit) for name, limit in self._limits.items()}

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return not self._limits

    @property
    def key(self) -> str:
        """Equal for equal views of one space."""
        return repr(sorted((name, p.distribution) for name, p in self._narrow.items()))

    @property
    def space(self) -> SearchSpace:
        """The space that is left, with the parameters and conditions that can still occur."""
        if self.is_whole:
            return self.full
        kept: dict[str, Param] = {}
        for param in self.full._order:
            conditions = [(w, _possible(w, kept)) for w in param.when]
            if all(values for _, values in conditions):
                when = tuple(When(w.parent, values) for w, values in conditions)
                kept[param.name] = replace(self._narrow.get(param.name, param), when=when)
        return SearchSpace([kept[name] for name in self.full.names if name in kept])

    def allows(self, params: Params) -> bool:
        """Whether a configuration of the space keeps to the limits."""
        return all(p.check(params[name]) is None for name, p in self._narrow.items() if name in params)

    def confine(self, params: Params) -> Params:
        """A configuration of the space with every value that is outside moved inside."""
        if self.allows(params):
            return params
        return self.from_unit(self.units(self.full.to_unit(params)[None, :])[0])

    def from_unit(self, u: npt.ArrayLike) -> Params:
        """The configuration at a point (p,) of the view; its bounds are met exactly, where a logarithm would round."""
        params = self.full.from_unit(u)
        for name, narrow in self._narrow.items():
            if name in params and not narrow.choices:
                value = cast("float", params[name])
                params[name] = narrow.cast(min(max(value, narrow._low), narrow._high))
        return params

    def units(self, U: Array) -> Array:
        """Points of the unit cube (m, p) moved into the view: numbers are reflected at its bounds, choices dealt out anew.

        Points inside stay where they are.
        """
        if self.is_whole:
            return U
        U = U.copy()
        for k, param in enumerate(self.full.params):
            if param.name in self._narrow:
                U[:, k] = _inside(U[:, k], param, self._narrow[param.name])
        return U


def view_of(context: Context) -> View:
    """What of a context's space is searched now."""
    return View(context.space, context.steering.limits)


def steered(space: SearchSpace, steering: Steering) -> SearchSpace:
    """The space of a study that began with `space`, with ranges widened and parameters added since.

    Raises: SpaceError.
    """
    if not steering.params:
        return space
    tables = dict(steering.params)
    params = [param_from_dict(p.name, tables.pop(p.name)) if p.name in tables else p for p in space.params]
    params += [param_from_dict(name, table) for name, table in tables.items()]
    names = {p.name for p in params}
    late = [*space.late, *(name for name in steering.added if name not in space.late)]
    return SearchSpace(params, late=[name for name in late if name in names])


def reworded(task: Task, steering: Steering) -> Task:
    """The task in the words that the person has for it now."""
    return replace(task, text=steering.task) if steering.task else task


def undone(began: SearchSpace, now: Steering, before: Steering) -> Steering:
    """The state `before` a change, where trials have run since: what was added is held at its default, what was widened is
    narrowed again, and what talking has cost stays.
    """
    was, limits = steered(began, before), dict(before.limits)
    for param in steered(began, now).params:
        if param.name not in was:
            assert param.default is not UNSET, "what joins a study has a default"
            limits[param.name] = Limit(values=(param.default,))
        elif param != was[param.name] and param.name not in limits:
            limits[param.name] = as_limit(was[param.name])
    return replace(before, limits=limits, params=now.params, added=now.added, arguments=now.arguments, talk=now.talk)


def as_limit(param: Param) -> Limit:
    """The range of a parameter as a limit."""
    return Limit(values=param.choices) if param.choices else Limit(param._low, param._high)


def narrowed(param: Param, limit: Limit) -> Param:
    """A parameter within a limit; its default goes where that is outside. Raises: SpaceError where no value is left."""
    if param.choices or limit.values:
        values = tuple(v for v in limit.values if param.check(v) is None)
        if not values:
            raise SpaceError(f"{param.name}: {list(limit.values)!r} holds none of its values; {param.describe_range()}")
        if param.choices:
            kept = sorted({param.index(param.cast(v)) for v in values})
            return _with(param, CategoricalDistribution([param.choices[k] for k in kept]))
        low = high = float(cast("float", param.cast(values[0])))
    else:
        low, high = _on_grid(param, limit)
    d = cast("FloatDistribution | IntDistribution", param.distribution)
    if isinstance(d, IntDistribution):
        return _with(param, IntDistribution(int(low), int(high), log=d.log, step=d.step))
    return _with(param, FloatDistribution(low, high, log=d.log, step=d.step))


def _on_grid(param: Param, limit: Limit) -> tuple[float, float]:
    """The lowest and the highest value of a number that are within a limit."""
    d = cast("FloatDistribution | IntDistribution", param.distribution)
    low, high = max(float(d.low), limit.low), min(float(d.high), limit.high)
    if d.step is not None:
        first = math.ceil((low - d.low) / d.step - 1e-9)
        last = math.floor((high - d.low) / d.step + 1e-9)
        low, high = (float(cast("float", param.cast(d.low + k * d.step))) for k in (first, last))
    if low > high:
        raise SpaceError(
            f"{param.name}: no value from {limit.low:g} to {limit.high:g} is in its range; it takes {param.describe_range()}"
        )
    return low, high


def _with(param: Param, distribution: CategoricalDistribution | FloatDistribution | IntDistribution) -> Param:
    bare = replace(param, distribution=distribution, default=UNSET)
    fits = param.default is not UNSET and bare.check(param.default) is None
    return replace(bare, default=param.default) if fits else bare


def _possible(when: When, kept: Mapping[str, Param]) -> tuple[ParamValue, ...]:
    parent = kept.get(when.parent)
    return () if parent is None else tuple(v for v in when.values if parent.check(v) is None)


def _inside(u: Array, param: Param, narrow: Param) -> Array:
    """Positions (m,) of one parameter, moved to those of its narrow range."""
    if param.choices:
        allowed = np.array([param.index(c) for c in narrow.choices])
        index = np.minimum((u * len(param.choices)).astype(np.int64), len(param.choices) - 1)
        moved = (allowed[index % len(allowed)] + 0.5) / len(param.choices)
        return np.where(np.isin(index, allowed), u, moved)
    low, high = (param.to_unit(cast("ParamValue", bound)) for bound in (narrow._low, narrow._high))
    width = high - low
    if width <= 0:
        return np.full(len(u), low)
    turned = np.mod(u - low, 2 * width)
    return np.where((u >= low) & (u <= high), u, low + np.where(turned > width, 2 * width - turned, turned))

"""What the model said in words about good values, as a density over where the optimum lies: a hint that data outvotes.

A statement says how sure it is: the probability that the best value lies in a range or among some choices. Its density
gives the range that much of the mass, with soft shoulders, and spreads the rest; a fifth of the joint density is uniform.
So nothing is ever cut off: no point lies more than `-log(0.2)` below a point about which nothing was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from llmhpo.param import Param, ParamValue
from llmhpo.space import Array, SearchSpace

Better = Literal["lower", "higher"]

UNIFORM = 0.2  # of the joint density: what is never taken away from the rest of the space
_SUREST = 0.9  # models are surer than they are right
_TREND_SHARE = 0.7  # of the mass in the better half, for a trend that is surely one
_SHOULDER = (0.05, 0.25)  # standard deviation of a range's shoulders: at least so much of the cube, and of the range
_CELLS = 1024
_MOST_VALUES = 256  # of a discrete parameter; with more it is as good as continuous
_PLANNED = 50  # trials, where nobody knows
_GOODWILL = 6.0  # trials that agree, counted before any has been seen
_MOST_PAIRED = 200


@dataclass(frozen=True, slots=True)
class Belief:
    """One statement about one parameter: a range (`low`, `high`), likely `choices`, or which end is `better`.

    `low` and `high` are in the parameter's own units. `confidence` in [0, 1] is the probability that the best value lies
    there, or that the trend holds.
    """

    parameter: str
    confidence: float
    low: float | None = None
    high: float | None = None
    choices: tuple[ParamValue, ...] = ()
    better: Better | None = None

    def informs(self, param: Param) -> bool:
        """Whether the statement prefers any value of `param` to another."""
        density = _table(param, (self,)).density
        return bool(np.ptp(density) > 1e-6)


@dataclass(frozen=True, slots=True)
class Prior:
    """A density over the unit cube, made of statements about single parameters; 1 where nothing was said.

    Source: as a weight of an acquisition function, Hvarfner et al., ICLR 2022 (piBO, arXiv 2204.11051); that data must be
    able to overrule it, Souza et al., ECML PKDD 2021 (BOPrO, arXiv 2006.14608), who let a model of the good trials outgrow
    it. `weight` has both: it falls with the number of trials, and sooner where they contradict.
    """

    beliefs: tuple[Belief, ...]

    def log_density(self, space: SearchSpace, U: Array) -> Array:
        """Logarithm of the density at `U` (n, p) in [0, 1], (n,): 0 is indifferent, `log(UNIFORM)` the least there is.

        A parameter that is inactive at a point, or not in the space, has no say there.
        """
        U = np.clip(U, 0.0, 1.0)
        total = np.zeros(len(U))
        active = _active(space, U)
        for name, table in self._tables(space).items():
            column = U[:, space.names.index(name)]
            total += np.where(active[name], table.log_at(space[name], column), 0.0)
        return np.asarray(np.logaddexp(np.log1p(-UNIFORM) + total, np.log(UNIFORM)))

    def sample(self, space: SearchSpace, rng: np.random.Generator, n: int) -> Array:
        """`n` points of the unit cube drawn from the density, (n, p)."""
        U = rng.random((n, len(space)))
        follows = rng.random(n) >= UNIFORM
        for name, table in self._tables(space).items():
            column = U[:, space.names.index(name)]
            column[follows] = table.quantile(column[follows], rng)
        return U

    def weight(self, space: SearchSpace, tried: Array, losses: Array, planned: int | None = None) -> float:
        """The exponent of the density in [0, 1], given finished trials at `tried` (m, p) with `losses` (m,), lower better.

        The product of a decay, min(1, beta / m) with beta a tenth of the `planned` trials, and of the trials' agreement:
        0 where better trials lie where the density is low. It goes to 0 with m whatever the trials say.

        Source: beta / n with beta = N / 10, piBO (section 4, and its experiments).
        """
        beta = (_PLANNED if planned is None else max(planned, 1)) / 10.0
        decay = min(1.0, beta / max(len(losses), 1))
        return decay * _agreement(self.log_density(space, tried), losses) if len(losses) else decay

    def log_weight(
        self, space: SearchSpace, U: Array, tried: Array, losses: Array, planned: int | None = None
    ) -> Array:
        """What is added to the logarithm of an acquisition function at `U` (n, p), (n,): `weight` times `log_density`."""
        weight = self.weight(space, tried, losses, planned)
        return weight * self.log_density(space, U) if weight > 0 else np.zeros(len(U))

    def _tables(self, space: SearchSpace) -> dict[str, _Table]:
        """Of each parameter that anything was said about, in the order of the space."""
        said = {b.parameter for b in self.beliefs}
        return {
            param.name: _table(param, tuple(b for b in self.beliefs if b.parameter == param.name))
            for param in space.params
            if param.name in said
        }


def prior_from_dict(raw: Mapping[str, Any]) -> Prior:
    """A prior as `dataclasses.asdict` writes it, read back from JSON."""
    return Prior(tuple(Belief(**{**belief, "choices": tuple(belief["choices"])}) for belief in raw["beliefs"]))


class _Table(NamedTuple):
    """The density of one parameter at its values, or in equal cells of the unit interval; each (m,)."""

    units: Array  # where the values are; the centres of the cells
    mass: Array  # of a value or cell under the uniform distribution
    density: Array
    discrete: bool

    def log_at(self, param: Param, u: Array) -> Array:
        if self.discrete:
            return np.asarray(np.log(self.density)[param.at_units(u)[0]])
        return np.interp(u, self.units, np.log(self.density))

    def quantile(self, q: Array, rng: np.random.Generator) -> Array:
        cumulated = np.cumsum(self.mass * self.density)
        at = np.minimum(np.searchsorted(cumulated, q * cumulated[-1], side="right"), len(cumulated) - 1)
        jitter = 0.0 if self.discrete else (rng.random(len(q)) - 0.5) / len(cumulated)
        return np.asarray(self.units[at] + jitter)


@lru_cache(maxsize=256)
def _table(param: Param, beliefs: tuple[Belief, ...]) -> _Table:
    cells = (np.arange(_CELLS) + 0.5) / _CELLS
    discrete = bool(param.choices) or param.size <= _MOST_VALUES
    if discrete:
        units = param.value_units()
        fine = (np.arange(16 * _CELLS) + 0.5) / (16 * _CELLS)  # the last values of a logarithmic range are close
        mass = np.bincount(param.at_units(fine)[0], minlength=len(units)) / len(fine)
    else:
        units, mass = cells, np.full(_CELLS, 1.0 / _CELLS)
    density = np.ones(len(units))
    for belief in beliefs:
        density = density * _factor(param, belief, units, mass)
    return _Table(units, mass, density / float(mass @ density), discrete)


def _factor(param: Param, belief: Belief, units: Array, mass: Array) -> Array:
    """How a statement multiplies the density at `units`; 1 everywhere where it says nothing."""
    sure = min(max(belief.confidence, 0.0), _SUREST)
    if belief.better is not None:
        share = 0.5 + (_TREND_SHARE - 0.5) * sure
        slope = 2.0 * np.log(share / (1.0 - share))  # gives the better half that share of the mass
        return np.asarray(np.exp(slope * (units - 0.5) * (1.0 if belief.better == "higher" else -1.0)))
    inside = _inside(param, belief, units)
    share = float(mass @ inside)
    if not 0.0 < share < sure:  # so large a part of the space holds the best value by chance
        return np.ones(len(units))
    pull = (sure - share) / (1.0 - share)
    return pull * inside / share + (1.0 - pull)


def _inside(param: Param, belief: Belief, units: Array) -> Array:
    """1 in the range or at the choices of a statement, 0 far from them."""
    if param.choices:
        return np.array([float(any(_same(c, b) for b in belief.choices)) for c in param.choices])
    if belief.low is None or belief.high is None:
        return np.zeros(len(units))
    low, high = param.to_unit(belief.low), param.to_unit(belief.high)
    least, relative = _SHOULDER
    beyond = np.maximum(np.maximum(low - units, units - high), 0.0) / max(least, relative * (high - low))
    return np.asarray(np.exp(-0.5 * beyond**2))


def _same(a: ParamValue, b: ParamValue) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _active(space: SearchSpace, U: Array) -> dict[str, npt.NDArray[np.bool_]]:
    """Whether each parameter exists at the rows of `U` (n, p)."""
    active: dict[str, npt.NDArray[np.bool_]] = {}
    for param in space._order:
        is_active = np.full(len(U), True)
        for when in param.when:
            parent = space[when.parent]
            position, _ = parent.at_units(U[:, space.names.index(parent.name)])
            allowed = [parent.position(value) for value in when.values]
            is_active &= active[parent.name] & np.isin(position, allowed)
        active[param.name] = is_active
    return active


def _agreement(log_density: Array, losses: Array) -> float:
    """How far finished trials bear a density out, in [0, 1]: the better ones should lie where it is high.

    The share of pairs in the right order less that in the wrong order, each pair weighted by how differently the density
    judges the two, so that trials it does not tell apart say nothing. Shrunk towards 1 with the weight of `_GOODWILL`
    trials; where the two are at odds it reaches 0 within a few.
    """
    keep = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), _MOST_PAIRED)).astype(int))
    judged = log_density[keep][:, None] - log_density[keep][None, :]
    better = np.sign(losses[keep][None, :] - losses[keep][:, None])
    told_apart = float(np.abs(judged).sum())
    if told_apart < 1e-9:
        return 1.0
    concordance = float((judged * better).sum()) / told_apart
    pairs = len(keep) * (len(keep) - 1)
    seen = len(losses) * min(1.0, told_apart / pairs)
    return min(max((_GOODWILL + seen * concordance) / (_GOODWILL + seen), 0.0), 1.0)

"""One parameter of a search space: its values, its condition, and how it is read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo.bounds import GRID_TOLERANCE, check_choices, check_numbers, fail, grid_high, show, unreached
from llmhpo.errors import SpaceError

ParamValue = float | int | str | bool | None
_KEYS = {
    "float": {"low", "high", "log", "step"},
    "int": {"low", "high", "log", "step"},
    "categorical": {"choices"},
    "ordinal": {"choices"},
}
_COMMON_KEYS = {"type", "default", "doc", "unit", "when"}


class Unset(Enum):
    """The type of `UNSET`, the default of a parameter that declares none; None may be a choice, and a default."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class When:
    """A condition: the parent is active and has one of `values`."""

    parent: str
    values: tuple[ParamValue, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.parent} = {show(self.values[0])}"
        return f"{self.parent} in ({', '.join(show(v) for v in self.values)})"


@dataclass(frozen=True, slots=True)
class Param:
    """A named parameter.

    `distribution` is Optuna's own. `ordered` marks a categorical as ordinal: its choices stand in their natural order.
    `when` lists conditions that must all hold for the parameter to exist. `default` is UNSET where none is declared.

    Raises: SpaceError, naming the parameter, the value and the remedy.
    """

    name: str
    distribution: BaseDistribution
    doc: str = ""
    unit: str = ""
    when: tuple[When, ...] = ()
    default: ParamValue | Unset = UNSET
    ordered: bool = False

    def __post_init__(self) -> None:
        name, d = self.name, self.distribution
        if not isinstance(name, str):
            raise SpaceError(f"parameter name {show(name)} is not a string; write it in quotes")
        if not name or not name.isprintable() or any(c in name for c in "{}\"'\\"):
            raise SpaceError(
                f"parameter name {name!r} is empty or has a brace, quote, backslash or control character; rename it"
            )
        if isinstance(d, CategoricalDistribution):
            check_choices(name, d.choices)
        elif isinstance(d, FloatDistribution | IntDistribution):
            if self.ordered:
                fail(name, "is a number and has its order already; leave out `ordered`")
            check_numbers(name, isinstance(d, IntDistribution), {"low": d.low, "high": d.high})
            if isinstance(d, FloatDistribution) and d.step is not None:
                grid_high(name, d.low, d.high, d.step)
        else:
            fail(name, f"{show(d)} is not a float, int or categorical distribution")
        if self.default is not UNSET and (problem := self.check(self.default)) is not None:
            fail(name, f"the default does not fit: {problem}")

    # --- values -----------------------------------------------------------------------------------------------------

    @property
    def has_default(self) -> bool:
        """Whether a default is declared; None is one where it is a choice."""
        return self.default is not UNSET

    @property
    def size(self) -> float:
        """The number of distinct values; infinite for a float without step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, IntDistribution):
            return (d.high - d.low) // d.step + 1
        return math.inf if self._step is None else round((self._high - self._low) / self._step) + 1

    def value_units(self) -> npt.NDArray[np.float64]:
        """The positions in [0, 1] of all values, in order, (size,); the parameter must have finitely many."""
        if self.choices:
            return np.array([self.to_unit(choice) for choice in self.choices])
        d = cast("FloatDistribution | IntDistribution", self.distribution)
        return np.array([self.to_unit(self.cast(d.low + k * (d.step or 0))) for k in range(int(self.size))])

    @property
    def width(self) -> int:
        """The number of columns in `SearchSpace.encode`."""
        d = self.distribution
        unordered = isinstance(d, CategoricalDistribution) and not self.ordered
        return len(d.choices) if isinstance(d, CategoricalDistribution) and unordered and len(d.choices) > 2 else 1

    @property
    def log(self) -> bool:
        """Whether the parameter is searched on a logarithmic scale."""
        return bool(getattr(self.distribution, "log", False))

    @property
    def choices(self) -> tuple[ParamValue, ...]:
        """The choices of a categorical or ordinal parameter, else ()."""
        return tuple(self.distribution.choices) if isinstance(self.distribution, CategoricalDistribution) else ()

    @property
    def _low(self) -> float:
        return float(cast("FloatDistribution | IntDistribution", self.distribution).low)

    @property
    def _high(self) -> float:
        return float(cast("FloatDistribution | IntDistribution", self.distribution).high)

    @property
    def _step(self) -> float | None:
        step = cast("FloatDistribution | IntDistribution", self.distribution).step
        return None if step is None else float(step)

    def index(self, value: ParamValue) -> int:
        """Position among the choices."""
        return self.choices.index(value)

    def check(self, value: object) -> str | None:
        """What is wrong with `value`, in one line; None where it fits."""
        fault = self._fault(value)
        return f"{self.name} = {show(value)} is {fault}; it takes {self.describe_range()}" if fault else None

    def _fault(self, value: object) -> str:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            # Python holds True and 1 for equal, a space does not
            fits = any(c == value and isinstance(c, bool) == isinstance(value, bool) for c in self.choices)
            return "" if fits else "not one of its choices"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "not a number"
        if isinstance(value, float) and not math.isfinite(value):
            return "not finite"
        number = cast("FloatDistribution | IntDistribution", d)
        if isinstance(d, IntDistribution) and value != int(value):
            return "not an integer"
        if not number.low <= value <= number.high:
            return "out of range"
        if isinstance(d, IntDistribution):
            on_grid = (int(value) - d.low) % d.step == 0
        else:
            steps = 0.0 if self._step is None else (value - self._low) / self._step
            on_grid = abs(steps - round(steps)) <= GRID_TOLERANCE
        return "" if on_grid else "not on its grid"

    def cast(self, value: object) -> ParamValue:
        """A value that passed `check`, with the exact type of the space."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return self.choices[self.index(cast("ParamValue", value))]
        number = cast("float", value)
        if isinstance(d, IntDistribution):
            return int(number)
        if self._step is None:
            return float(number)
        return self._on_grid(round((number - self._low) / self._step))

    def _on_grid(self, k: int) -> float:
        """The double nearest to the decimal low + k * step: 0.3, where binary arithmetic gives 0.30000000000000004."""
        value = float(Decimal(repr(self._low)) + k * Decimal(repr(self._step)))
        return min(max(value, self._low), self._high)

    def to_unit(self, value: ParamValue) -> float:
        """Position of `value` in [0, 1]; a discrete value sits in the middle of its equal share."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return (self.index(value) + 0.5) / len(d.choices)
        low, high = self._span()
        if high <= low:
            return 0.5
        x = math.log(cast("float", value)) if self.log else cast("float", value)
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def from_unit(self, u: float) -> ParamValue:
        """The value at `u` in [0, 1], snapped to type and grid."""
        d = self.distribution
        u = min(max(u, 0.0), 1.0)
        if isinstance(d, CategoricalDistribution):
            return self.choices[min(int(u * len(d.choices)), len(d.choices) - 1)]
        low, high = self._span()
        x = low + u * (high - low)
        x = math.exp(x) if self.log else x
        x = min(max(x, self._low), self._high)
        if isinstance(d, IntDistribution):
            return min(d.low + d.step * round((x - d.low) / d.step), d.low + d.step * ((d.high - d.low) // d.step))
        if self._step is None:
            return x
        return self._on_grid(round((x - self._low) / self._step))

    def _span(self) -> tuple[float, float]:
        """Low and high on the search scale, widened by half a step so that the end values get an equal share."""
        half = 0.0 if self._step is None else self._step / 2
        low, high = self._low - half, self._high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)

    def to_feature(self, value: ParamValue) -> float:
        """The one column of a numeric, ordinal or two-valued parameter: 0 at the lowest, 1 at the highest value."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.index(value) / max(len(self.choices) - 1, 1)
        if self._high <= self._low:
            return 0.5
        number, low, high = float(cast("float", value)), self._low, self._high
        if self.log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return (number - low) / (high - low)

    def position(self, value: ParamValue) -> int:
        """Position of `value` among the discrete values, counted from 0; 0 for a float without step."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.index(value)
        return 0 if self._step is None else round((float(cast("float", value)) - self._low) / self._step)

    def at_units(self, u: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """`position` and `to_feature` of `from_unit`, for many units at once, each (n,)."""
        zeros = np.zeros(len(u), dtype=np.int64)
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            count = len(d.choices)
            index = np.minimum((u * count).astype(np.int64), count - 1)
            return index, index / max(count - 1, 1)
        if self._high <= self._low:
            return zeros, np.full(len(u), 0.5)
        if self._step is None:
            return zeros, u
        low, high = self._span()
        x = low + u * (high - low)
        steps = np.round((np.clip(np.exp(x) if self.log else x, self._low, self._high) - self._low) / self._step)
        steps = np.minimum(steps, self.size - 1)
        number = np.minimum(self._low + steps * self._step, self._high)
        if self.log:
            return steps.astype(np.int64), np.log(number / self._low) / math.log(self._high / self._low)
        return steps.astype(np.int64), (number - self._low) / (self._high - self._low)

    def describe_range(self) -> str:
        """The values in words: "a float from 1e-05 to 0.1 (log scale)"."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return ("in this order " if self.ordered else "one of ") + ", ".join(show(c) for c in self.choices)
        kind = "an integer" if isinstance(d, IntDistribution) else "a float"
        step = f" in steps of {self._step:g}" if self._step not in (None, 1) else ""
        return f"{kind} from {self._low:g} to {self._high:g}{step}" + (" (log scale)" if self.log else "")


# --- reading and writing --------------------------------------------------------------------------------------------


def param_from_dict(name: str, raw: object) -> Param:
    """Read one parameter: an Optuna distribution, or a table with `type` and what belongs to the type.

    Raises: SpaceError.
    """
    if isinstance(raw, BaseDistribution):
        return Param(name, raw)
    if isinstance(raw, Param):
        return raw if raw.name == name else fail(name, f"holds a Param named {raw.name!r}; use one name")
    if not isinstance(raw, Mapping):
        fail(name, f"expected a table with a `type`, got {show(raw)}")
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        fail(name, f"type = {show(kind)} is unknown; use one of {', '.join(_KEYS)}")
    if unknown := sorted(repr(key) for key in raw if key not in _KEYS[kind] | _COMMON_KEYS):
        allowed = ", ".join(sorted(_KEYS[kind] | _COMMON_KEYS))
        fail(name, f"{', '.join(unknown)} does not belong to a parameter of type {kind}; allowed: {allowed}")
    for key in ("doc", "unit"):
        if not isinstance(raw.get(key, ""), str):
            fail(name, f"{key} = {show(raw[key])} is not a string")
    return Param(
        name,
        _distribution(name, kind, raw),
        doc=str(raw.get("doc", "")),
        unit=str(raw.get("unit", "")),
        when=_conditions(name, raw.get("when", {})),
        default=cast("ParamValue | Unset", raw.get("default", UNSET)),
        ordered=kind == "ordinal",
    )


def _distribution(name: str, kind: str, raw: Mapping[str, object]) -> BaseDistribution:
    if kind in ("categorical", "ordinal"):
        return _choices(name, raw.get("choices"))
    for key in ("low", "high"):
        if raw.get(key) is None:
            fail(name, f"{key!r} is missing; a {kind} needs low and high")
    check_numbers(name, kind == "int", {k: raw[k] for k in ("low", "high", "step") if raw.get(k) is not None})
    log = raw.get("log", False)
    if not isinstance(log, bool):
        fail(name, f"log = {show(log)} is neither true nor false")
    low, high, step = cast("float", raw["low"]), cast("float", raw["high"]), cast("float | None", raw.get("step"))
    if low > high:
        fail(name, f"low = {low!r} is above high = {high!r}; swap them")
    if log and low <= 0:
        fail(name, f"low = {low!r} with log = true; a logarithmic range needs low > 0")
    if step is not None and step <= 0:
        fail(name, f"step = {step!r} is not positive")
    if log and step is not None and not (kind == "int" and step == 1):
        fail(
            name,
            f"step = {step!r} with log = true; a logarithmic parameter has no step: drop one, or list ordinal choices",
        )
    if kind == "int":
        if step is not None and (high - low) % step:
            unreached(name, low, high, step)
        return IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    if step is not None:
        low, step = float(low), float(step)
        high = grid_high(name, low, float(high), step)
    return FloatDistribution(low, high, log=log, step=step)


def _choices(name: str, raw: object) -> CategoricalDistribution:
    if not isinstance(raw, list | tuple) or not raw:
        fail(name, f"choices = {show(raw)} is not a list of at least one value")
    check_choices(name, raw)  # before Optuna warns
    return CategoricalDistribution(tuple(raw))


def _conditions(name: str, raw: object) -> tuple[When, ...]:
    if not isinstance(raw, Mapping):
        fail(name, f'when = {show(raw)} is not a table such as {{ optimizer = "sgd" }}')
    conditions = []
    for parent, values in raw.items():
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not listed:
            fail(name, f"when.{parent} lists no value; name at least one")
        conditions.append(When(str(parent), listed))
    return tuple(conditions)


def param_to_dict(param: Param) -> dict[str, object]:
    """The inverse of `param_from_dict`; keys at their default values are left out."""
    d = param.distribution
    out: dict[str, object]
    if isinstance(d, CategoricalDistribution):
        out = {"type": "ordinal" if param.ordered else "categorical", "choices": list(d.choices)}
    else:
        number = cast("FloatDistribution | IntDistribution", d)
        out = {"type": "int" if isinstance(d, IntDistribution) else "float", "low": number.low, "high": number.high}
        if number.log:
            out["log"] = True
        if number.step != (1 if isinstance(d, IntDistribution) else None):
            out["step"] = number.step
    if param.has_default:
        out["default"] = param.default
    if param.doc:
        out["doc"] = param.doc
    if param.unit:
        out["unit"] = param.unit
    if param.when:
        out["when"] = {w.parent: w.values[0] if len(w.values) == 1 else list(w.values) for w in param.when}
    return out

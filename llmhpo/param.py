"""One parameter of a search space: its values, its condition, and how it is read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, cast

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo.errors import SpaceError

ParamValue = float | int | str | bool | None
_GRID_TOLERANCE = 1e-9  # of a step: what decimal fractions lose in binary, and nothing more
_KEYS = {
    "float": {"low", "high", "log", "step"},
    "int": {"low", "high", "log", "step"},
    "categorical": {"choices"},
    "ordinal": {"choices"},
}
_COMMON_KEYS = {"type", "default", "doc", "unit", "when"}


@dataclass(frozen=True, slots=True)
class When:
    """A condition: the parent is active and has one of `values`."""

    parent: str
    values: tuple[ParamValue, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.parent} = {_show(self.values[0])}"
        return f"{self.parent} in ({', '.join(_show(v) for v in self.values)})"


@dataclass(frozen=True, slots=True)
class Param:
    """A named parameter.

    `distribution` is Optuna's own. `ordered` marks a categorical as ordinal: its choices stand in their natural order.
    `when` lists conditions that must all hold for the parameter to exist. `default` None means that none is declared.

    Raises: SpaceError, naming the parameter, the value and the remedy.
    """

    name: str
    distribution: BaseDistribution
    doc: str = ""
    unit: str = ""
    when: tuple[When, ...] = ()
    default: ParamValue = None
    ordered: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or any(c in self.name for c in "{}\"'\\"):
            raise SpaceError(
                f"parameter name {self.name!r} is empty or has a brace, quote, backslash or control character; rename it"
            )
        if not isinstance(self.distribution, FloatDistribution | IntDistribution | CategoricalDistribution):
            raise SpaceError(
                f"parameter {self.name!r}: {self.distribution!r} is not a float, int or categorical distribution"
            )
        if not isinstance(self.distribution, CategoricalDistribution):
            if self.ordered:
                raise SpaceError(f"parameter {self.name!r} is a number and has its order already; leave out `ordered`")
            if not (math.isfinite(self.distribution.low) and math.isfinite(self.distribution.high)):
                raise SpaceError(
                    f"parameter {self.name!r}: bounds {self.distribution.low!r} and {self.distribution.high!r} must be finite"
                )
        if self.default is not None and (problem := self.check(self.default)) is not None:
            raise SpaceError(f"parameter {self.name!r}: the default does not fit: {problem}")

    # --- values -----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> float:
        """The number of distinct values; infinite for a float without step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, IntDistribution):
            return (d.high - d.low) // d.step + 1
        return math.inf if self._step is None else round((self._high - self._low) / self._step) + 1

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
        """Position among the choices; True and 1, which Python holds for equal, are told apart."""
        return next(
            i for i, c in enumerate(self.choices) if c == value and isinstance(c, bool) == isinstance(value, bool)
        )

    def check(self, value: object) -> str | None:
        """What is wrong with `value`, in one line; None where it fits."""
        takes = f"it takes {self.describe_range()}"
        if isinstance(self.distribution, CategoricalDistribution):
            fits = any(c == value and isinstance(c, bool) == isinstance(value, bool) for c in self.choices)
            return None if fits else f"{self.name} = {_show(value)} is not one of its choices; {takes}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{self.name} = {_show(value)} is not a number; {takes}"
        if isinstance(value, int) and abs(value) > 2**63:
            return f"{self.name} = an integer of {value.bit_length()} bits is out of range; {takes}"
        if not math.isfinite(value):
            return f"{self.name} = {value!r} is not finite; {takes}"
        if isinstance(self.distribution, IntDistribution) and value != int(value):
            return f"{self.name} = {value!r} is not an integer; {takes}"
        if not self._low <= value <= self._high:
            return f"{self.name} = {value!r} is out of range; {takes}"
        if self._step is not None:
            steps = (value - self._low) / self._step
            if abs(steps - round(steps)) > _GRID_TOLERANCE * max(1.0, abs(steps)):
                return f"{self.name} = {value!r} is not on its grid; {takes}"
        return None

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
        assert self._step is not None
        return min(float(f"{self._low + k * self._step:.12g}"), self._high)

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
            return ("in this order " if self.ordered else "one of ") + ", ".join(_show(c) for c in self.choices)
        kind = "an integer" if isinstance(d, IntDistribution) else "a float"
        step = f" in steps of {self._step:g}" if self._step not in (None, 1) else ""
        return f"{kind} from {self._low:g} to {self._high:g}{step}" + (" (log scale)" if self.log else "")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- reading and writing --------------------------------------------------------------------------------------------


def param_from_dict(name: str, raw: object) -> Param:
    """Read one parameter: an Optuna distribution, or a table with `type` and what belongs to the type.

    Raises: SpaceError.
    """
    if isinstance(raw, BaseDistribution):
        return Param(name, raw)
    if isinstance(raw, Param):
        return raw if raw.name == name else _fail(name, f"holds a Param named {raw.name!r}; use one name")
    if not isinstance(raw, Mapping):
        _fail(name, f"expected a table with a `type`, got {_show(raw)}")
    kind = raw.get("type")
    if kind not in _KEYS:
        _fail(name, f"type = {_show(kind)} is unknown; use one of {', '.join(_KEYS)}")
    if unknown := sorted(set(raw) - _KEYS[kind] - _COMMON_KEYS):
        allowed = ", ".join(sorted(_KEYS[kind] | _COMMON_KEYS))
        _fail(
            name, f"{', '.join(map(repr, unknown))} does not belong to a parameter of type {kind}; allowed: {allowed}"
        )
    for key in ("doc", "unit"):
        if not isinstance(raw.get(key, ""), str):
            _fail(name, f"{key} = {_show(raw[key])} is not a string")
    return Param(
        name,
        _distribution(name, kind, raw),
        doc=str(raw.get("doc", "")),
        unit=str(raw.get("unit", "")),
        when=_conditions(name, raw.get("when", {})),
        default=cast("ParamValue", raw.get("default")),
        ordered=kind == "ordinal",
    )


def _distribution(name: str, kind: str, raw: Mapping[str, object]) -> BaseDistribution:
    if kind in ("categorical", "ordinal"):
        return _choices(name, raw.get("choices"))
    for key in ("low", "high"):
        if key not in raw:
            _fail(name, f"{key!r} is missing; a {kind} needs low and high")
    number = int if kind == "int" else (int, float)
    numbers = {key: raw[key] for key in ("low", "high", "step") if raw.get(key) is not None}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, number) or not math.isfinite(cast("float", value)):
            _fail(name, f"{key} = {_show(value)} is not a finite {'integer' if kind == 'int' else 'number'}")
    log = raw.get("log", False)
    if not isinstance(log, bool):
        _fail(name, f"log = {_show(log)} is neither true nor false")
    low, high, step = cast("float", raw["low"]), cast("float", raw["high"]), cast("float | None", raw.get("step"))
    if low > high:
        _fail(name, f"low = {low!r} is above high = {high!r}; swap them")
    if log and low <= 0:
        _fail(name, f"low = {low!r} with log = true; a logarithmic range needs low > 0")
    if step is not None and step <= 0:
        _fail(name, f"step = {step!r} is not positive")
    if log and step is not None and not (kind == "int" and step == 1):
        _fail(
            name,
            f"step = {step!r} with log = true; a logarithmic parameter has no step: drop one, or list ordinal choices",
        )
    if (
        step is not None
        and abs((high - low) / step - round((high - low) / step)) > _GRID_TOLERANCE * (high - low) / step
    ):
        _fail(name, f"high = {high!r} is not reached from low = {low!r} in steps of {step!r}; move high onto the grid")
    if kind == "int":
        return IntDistribution(int(low), int(high), log=log, step=1 if step is None else int(step))
    if step is not None:
        high = float(f"{high:.12g}")  # 0.30000000000000004 stands for 0.3: Optuna warns of less
    return FloatDistribution(low, high, log=log, step=step)


def _choices(name: str, raw: object) -> CategoricalDistribution:
    if not isinstance(raw, list | tuple) or not raw:
        _fail(name, f"choices = {_show(raw)} is not a list of at least one value")
    for choice in raw:
        if not (choice is None or isinstance(choice, bool | int | float | str)):
            _fail(name, f"choice {_show(choice)} is not a string, number, bool or null")
        if isinstance(choice, float) and not math.isfinite(choice):
            _fail(name, f"choice {choice!r} is not finite")
    seen = [json.dumps(choice) for choice in raw]
    if len(set(seen)) < len(seen):
        _fail(name, f"choices = {_show(raw)} lists a value twice; list each once")
    return CategoricalDistribution(tuple(raw))


def _conditions(name: str, raw: object) -> tuple[When, ...]:
    if not isinstance(raw, Mapping):
        _fail(name, f'when = {_show(raw)} is not a table such as {{ optimizer = "sgd" }}')
    conditions = []
    for parent, values in raw.items():
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not listed:
            _fail(name, f"when.{parent} lists no value; name at least one")
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
        if number.step not in (None, 1) or (isinstance(d, FloatDistribution) and d.step is not None):
            out["step"] = number.step
    if param.default is not None:
        out["default"] = param.default
    if param.doc:
        out["doc"] = param.doc
    if param.unit:
        out["unit"] = param.unit
    if param.when:
        out["when"] = {w.parent: w.values[0] if len(w.values) == 1 else list(w.values) for w in param.when}
    return out


def _fail(name: str, problem: str) -> NoReturn:
    raise SpaceError(f"parameter {name!r}: {problem}")

"""The search space: what may be tuned, in which range, and under which condition.

A configuration (`Params`) holds the active parameters only. Two numeric views of it exist: `to_unit` / `from_unit`, one
column a parameter, to sample and move in; and `encode`, one-hot where there is no order, to fit surrogates to.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    distribution_to_json,
)

from llmhpo.errors import SpaceError
from llmhpo.param import UNSET, Param, When, param_from_dict, param_to_dict
from llmhpo.param import ParamValue as ParamValue

Params = dict[str, ParamValue]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class InvalidParams:
    """Why a raw configuration does not fit the space: one line a violation."""

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.problems)


class SearchSpace:
    """An ordered, immutable set of parameters.

    `late` names those that joined while a study ran: a configuration without one of them ran with its default.

    Raises: SpaceError for duplicate names, unknown parents, parent values that cannot occur, and cyclic conditions; for a late
    parameter without a default.
    """

    def __init__(self, params: Sequence[Param], *, late: Sequence[str] = ()) -> None:
        if not params:
            raise SpaceError("the search space is empty; add at least one parameter")
        self.params = tuple(params)
        self._by_name: dict[str, Param] = {}
        for param in self.params:
            if not isinstance(param, Param):
                raise SpaceError(f"{param!r} is not a Param; read a table of parameters with SearchSpace.from_dict")
            if param.name in self._by_name:
                raise SpaceError(f"two parameters are named {param.name!r}; rename one of them")
            self._by_name[param.name] = param
        for param in self.params:
            for when in param.when:
                self._check_condition(param, when)
        self._order = self._parents_first()
        self.late = tuple(late)
        for name in self.late:
            if not self[name].has_default:
                raise SpaceError(
                    f"parameter {name!r} joins a study that runs; give it the default that was used so far"
                )

    def _check_condition(self, param: Param, when: When) -> None:
        parent = self._by_name.get(when.parent)
        if parent is None:
            raise SpaceError(
                f"parameter {param.name!r} depends on {when.parent!r}, which is not in the space; "
                f"known parameters: {', '.join(self._by_name)}"
            )
        if isinstance(parent.distribution, FloatDistribution):
            raise SpaceError(
                f"parameter {param.name!r} depends on {when.parent!r}, a float: conditions need an int or a category as parent"
            )
        for value in when.values:
            if parent.check(value) is not None:
                raise SpaceError(
                    f"parameter {param.name!r} needs {when.parent} = {value!r}, a value that {when.parent!r} cannot take; "
                    f"it takes {parent.describe_range()}"
                )

    def _parents_first(self) -> tuple[Param, ...]:
        order: dict[str, Param] = {}
        rest = list(self.params)
        while rest:
            ready = [p for p in rest if all(w.parent in order for w in p.when)]
            if not ready:
                names = ", ".join(repr(p.name) for p in rest)
                raise SpaceError(f"the conditions of {names} form a cycle; a parameter may not depend on itself")
            order.update((p.name, p) for p in ready)
            rest = [p for p in rest if p.name not in order]
        return tuple(order.values())

    def __getitem__(self, name: str) -> Param:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self.params)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and (self.params, self.late) == (other.params, other.late)

    def __hash__(self) -> int:
        return hash(self.revision)

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(self.names)}; revision {self.revision})"

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order given."""
        return tuple(self._by_name)

    @cached_property
    def revision(self) -> str:
        """Twelve hex digits that change when anything changes that decides which configurations are valid."""
        parts = [
            [
                p.name,
                json.loads(distribution_to_json(p.distribution)),
                p.ordered,
                [[w.parent, list(w.values)] for w in p.when],
            ]
            for p in sorted(self.params, key=lambda p: p.name)
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    # --- in and out -------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, raw: Mapping[str, object]) -> SearchSpace:
        """Read `{name: parameter}`, where a parameter is a table as in study.toml or an Optuna distribution.

        Raises: SpaceError.
        """
        if not isinstance(raw, Mapping):
            raise SpaceError(
                f'a search space is a table such as {{"lr": {{"type": "float", ...}}}}, not {type(raw).__name__}'
            )
        return cls([param_from_dict(name, spec) for name, spec in raw.items()])

    @classmethod
    def from_file(cls, path: str | Path) -> SearchSpace:
        """Read a TOML or JSON file: the table `space` of it, or the whole of it where there is no such table.

        Raises: SpaceError.
        """
        path = Path(path)
        if path.suffix not in (".toml", ".json"):
            raise SpaceError(
                f"{path}: a search space is read from a .toml or .json file, not from {path.suffix or 'a file without suffix'!r}"
            )
        try:
            text = path.read_text(encoding="utf-8")
            raw = tomllib.loads(text) if path.suffix == ".toml" else _json(text)
        except (OSError, ValueError) as error:
            raise SpaceError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from error
        table = raw.get("space", raw) if isinstance(raw, dict) else raw
        if not isinstance(table, dict):
            raise SpaceError(f"{path}: expected a table of parameters, found {type(table).__name__}")
        return cls.from_dict(table)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """The inverse of `from_dict`; ready for JSON and TOML."""
        return {p.name: param_to_dict(p) for p in self.params}

    @classmethod
    def from_optuna(cls, distributions: Mapping[str, BaseDistribution]) -> SearchSpace:
        """A flat space of Optuna distributions."""
        return cls([Param(name, distribution) for name, distribution in distributions.items()])

    def to_optuna(self) -> dict[str, BaseDistribution]:
        """Optuna distributions of all parameters; conditions, defaults and docs have no place there."""
        return {p.name: p.distribution for p in self.params}

    def extended(self, params: Sequence[Param]) -> SearchSpace:
        """The space with more parameters; the same object where there are none to add.

        Raises: as the constructor.
        """
        return SearchSpace([*self.params, *params], late=self.late) if params else self

    # --- configurations ---------------------------------------------------------------------------------------------

    def is_active(self, param: Param, params: Mapping[str, object]) -> bool:
        """Whether `param` exists in a configuration: every parent is active itself and has one of the values asked for."""
        return all(
            self.is_active(self[w.parent], params) and w.parent in params and params[w.parent] in w.values
            for w in param.when
        )

    def coerce(self, raw: object) -> Params | InvalidParams:
        """Check a raw configuration strictly and return it with the exact types of the space.

        Nothing is changed but the type of a number of equal value (1 for 1.0) and rounding noise below 1e-8 of a step.
        An inactive parameter may be absent or None. Unknown, missing, inactive, mistyped, out of range and off-grid
        parameters are named, all of them at once.
        """
        if not isinstance(raw, Mapping):
            return InvalidParams((f"expected an object of parameters, got {type(raw).__name__}",))
        problems = [f"unknown parameter {name!r}; known: {', '.join(self.names)}" for name in raw if name not in self]
        values: dict[str, ParamValue] = {}
        unknown: set[str] = set()  # whether these exist hangs on a parent whose value does not fit
        for param in self._order:
            given = param.name in raw
            if any(w.parent in unknown for w in param.when):
                unknown.add(param.name)
                continue
            value = raw.get(param.name)
            if self.is_active(param, values):
                if not given:
                    problems.append(f"missing parameter {param.name!r}; it takes {param.describe_range()}")
                    unknown.add(param.name)
                elif (problem := param.check(value)) is not None:
                    problems.append(problem)
                    unknown.add(param.name)
                else:
                    values[param.name] = param.cast(value)
            elif given and value is not None:
                condition = " and ".join(str(w) for w in param.when)
                problems.append(f"{param.name} = {value!r} is given but {param.name} exists only when {condition}")
        if problems:
            return InvalidParams(tuple(problems))
        return {name: values[name] for name in self.names if name in values}

    def complete(self, params: Params) -> Params:
        """A configuration of earlier days with the late parameters that it does not name, at their defaults."""
        missing = [self[name] for name in self.late if name not in params]
        if not missing:
            return params
        values = dict(params)
        for param in self._order:
            if param in missing and self.is_active(param, values) and param.default is not UNSET:
                values[param.name] = param.default
        return {name: values[name] for name in self.names if name in values}

    def drop_inactive(self, raw: Mapping[str, object]) -> dict[str, object]:
        """`raw` without the parameters that do not exist in it, for sources that cannot leave anything out."""
        return {name: value for name, value in raw.items() if name not in self or self.is_active(self[name], raw)}

    def key(self, params: Params) -> str:
        """A string equal for equal configurations, to find repeats with."""
        params = self.complete(params)
        return json.dumps([params.get(name) for name in self.names])

    def default(self) -> Params:
        """The configuration of declared defaults; the middle of the range where a parameter declares none."""
        return self._assemble({p.name: p.from_unit(0.5) if p.default is UNSET else p.default for p in self.params})

    @property
    def has_default(self) -> bool:
        """Whether any parameter declares a default."""
        return any(p.has_default for p in self.params)

    def _assemble(self, values: Mapping[str, ParamValue]) -> Params:
        active: Params = {}
        for param in self._order:
            if self.is_active(param, active):
                active[param.name] = values[param.name]
        return {name: active[name] for name in self.names if name in active}

    @cached_property
    def size(self) -> float:
        """The number of distinct configurations, conditions left out of account; infinite with a free float."""
        return math.prod(p.size for p in self.params)

    # --- numeric views ----------------------------------------------------------------------------------------------

    def to_unit(self, params: Params) -> Array:
        """One column a parameter, (p,) in [0, 1]; 0.5 for inactive ones. `from_unit` is its inverse."""
        params = self.complete(params)
        return np.array([p.to_unit(params[p.name]) if p.name in params else 0.5 for p in self.params])

    def from_unit(self, u: npt.ArrayLike) -> Params:
        """The configuration at `u` (p,) in [0, 1], snapped to types and grid; uniform `u` gives uniform parameters."""
        return self._assemble({p.name: p.from_unit(float(x)) for p, x in zip(self.params, np.asarray(u), strict=True)})

    def sample(self, rng: np.random.Generator, n: int) -> list[Params]:
        """`n` independent uniform configurations (uniform in the logarithm where a parameter is logarithmic)."""
        return [self.from_unit(u) for u in rng.random((n, len(self)))]

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """For each parameter, its columns in `encode`."""
        groups: list[tuple[int, ...]] = []
        start = 0
        for param in self.params:
            width = param.width
            groups.append(tuple(range(start, start + width)))
            start += width
        return tuple(groups)

    def encode(self, configurations: Sequence[Params]) -> Array:
        """Features for surrogates, (n, d) in [0, 1].

        A numeric, ordinal or two-valued parameter takes one column, another category one column a choice. Inactive
        parameters sit at the middle of their range, at zero in every column of a category.
        """
        X = np.zeros((len(configurations), self.groups[-1][-1] + 1))
        if self.late:
            configurations = [self.complete(params) for params in configurations]
        for param, columns in zip(self.params, self.groups, strict=True):
            single = len(columns) == 1
            for row, params in zip(X, configurations, strict=True):
                if param.name not in params:
                    row[columns[0]] = 0.5 if single else 0.0
                elif single:
                    row[columns[0]] = param.to_feature(params[param.name])
                else:
                    row[columns[param.index(params[param.name])]] = 1.0
        return X

    def encode_unit(self, U: Array) -> Array:
        """`encode` of the configurations at the rows of `U` (n, p) in [0, 1], without building them: for thousands."""
        U = np.clip(U, 0.0, 1.0)
        X = np.zeros((len(U), self.groups[-1][-1] + 1))
        active: dict[str, npt.NDArray[np.bool_]] = {}
        position: dict[str, npt.NDArray[np.int64]] = {}  # of the value among the discrete values
        rows = np.arange(len(U))
        for param in self._order:
            p = self.names.index(param.name)
            columns = self.groups[p]
            is_active = np.full(len(U), True)
            for when in param.when:
                allowed = [self[when.parent].position(value) for value in when.values]
                is_active = is_active & active[when.parent] & np.isin(position[when.parent], allowed)
            active[param.name] = is_active
            position[param.name], feature = param.at_units(U[:, p])
            if len(columns) == 1:
                X[:, columns[0]] = np.where(is_active, feature, 0.5)
            else:
                X[rows, columns[0] + position[param.name]] = is_active
        return X


def _json(text: str) -> object:
    """JSON without repeated keys, of which `json.loads` keeps the last and swallows the others."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table: dict[str, object] = {}
        for key, value in pairs:
            if key in table:
                raise ValueError(f"the key {key!r} stands twice in one object; rename or remove one")
            table[key] = value
        return table

    return cast("object", json.loads(text, object_pairs_hook=unique))

"""A trial's rows in Optuna's tables: begun, noted and ended, with as few statements as it takes.

Optuna's own way looks every object up before each of its values is written, some forty statements a trial. Here a group of trials is
written by a statement a table. The rows are those that Optuna 5 writes itself, which the tests compare.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from llmhpo.errors import StoreError

_json_of = lru_cache(maxsize=1024)(distribution_to_json)
_distribution_of = lru_cache(maxsize=1024)(json_to_distribution)
_TRIALS, _PARAMS, _VALUES, _CURVE, _ATTRS, _STUDIES = (
    getattr(model, "__table__")  # noqa: B009 - what the mapper calls the table, mypy takes for any clause
    for model in (
        models.TrialModel,
        models.TrialParamModel,
        models.TrialValueModel,
        models.TrialIntermediateValueModel,
        models.TrialUserAttributeModel,
        models.StudyModel,
    )
)


class Ending(NamedTuple):
    """How a trial ends: its state, its value if it has one, points (step, value) of its curve, attributes by name."""

    number: int
    state: TrialState
    value: float | None
    curve: Sequence[tuple[int, float]]
    attrs: Mapping[str, Any]


class Rows(Protocol):
    """The trials of one study in a storage. Each method is part of the transaction that its caller has begun."""

    def begin(self, templates: Sequence[FrozenTrial]) -> list[int]:
        """Add trials as running; their numbers."""
        ...

    def add(self, attrs: Mapping[int, Mapping[str, Any]]) -> None:
        """Write attributes of running trials, by number, of names that these have not yet."""
        ...

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Write attributes of a running trial, in the place of older ones of the same names."""
        ...

    def end(self, endings: Sequence[Ending]) -> None:
        """End running trials. Raises: StoreError where one has ended already."""
        ...


class PlainRows:
    """By Optuna's own methods, for a storage that lives in memory."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def begin(self, templates: Sequence[FrozenTrial]) -> list[int]:
        """See `Rows`."""
        ids = [self._storage.create_new_trial(self._study_id, template) for template in templates]
        return [self._storage.get_trial_number_from_id(i) for i in ids]

    def add(self, attrs: Mapping[int, Mapping[str, Any]]) -> None:
        """See `Rows`."""
        for number, named in attrs.items():
            self.note(number, named)

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """See `Rows`."""
        for name, value in attrs.items():
            self._storage.set_trial_user_attr(self._id(number), name, value)

    def end(self, endings: Sequence[Ending]) -> None:
        """See `Rows`."""
        for ending in endings:
            for step, value in ending.curve:
                self._storage.set_trial_intermediate_value(self._id(ending.number), step, value)
            self.note(ending.number, ending.attrs)
            values = None if ending.value is None else [ending.value]
            self._storage.set_trial_state_values(self._id(ending.number), ending.state, values)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


class TableRows:
    """By statements of its own, on the connection of `storage.one_transaction`. `known` are the trials that the study has."""

    def __init__(self, storage: RDBStorage, study_id: int, known: Sequence[FrozenTrial]) -> None:
        self._storage, self._study_id = storage, study_id
        self._ids = {t.number: t._trial_id for t in known if not t.state.is_finished()}
        self._last_id, self._count = max((t._trial_id for t in known), default=0), len(known)

    def begin(self, templates: Sequence[FrozenTrial]) -> list[int]:
        """See `Rows`. A trial's number counts those before it, also those that somebody else has put in the queue."""
        connection = self._connection()
        connection.execute(select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == self._study_id).with_for_update())
        later = (_TRIALS.c.study_id == self._study_id) & (_TRIALS.c.trial_id > self._last_id)
        ids = connection.execute(select(_TRIALS.c.trial_id).where(later)).scalars().all()
        self._last_id, self._count = max([self._last_id, *ids]), self._count + len(ids)
        numbers, params, attrs = [], [], []
        for number, template in enumerate(templates, self._count):
            start = None if template.datetime_start is None else _utc(template.datetime_start)
            row = {"number": number, "study_id": self._study_id, "state": template.state, "datetime_start": start}
            key = connection.execute(insert(_TRIALS).values(row)).inserted_primary_key
            assert key is not None, "SQLAlchemy knows it of every database that Optuna has"
            trial_id = int(key[0])
            params += [_param(trial_id, name, template) for name in template.params]
            attrs += _attr_rows(trial_id, template.user_attrs)
            self._ids[number] = trial_id
            numbers.append(number)
        connection.execute(insert(_PARAMS), params)
        if attrs:
            connection.execute(insert(_ATTRS), attrs)
        return numbers

    def add(self, attrs: Mapping[int, Mapping[str, Any]]) -> None:
        """See `Rows`."""
        rows = [row for number, named in attrs.items() for row in _attr_rows(self._ids[number], named)]
        if rows:
            self._connection().execute(insert(_ATTRS), rows)

    def note(self, number: int, attrs: Mapping[str, Any]) -> None:
        """See `Rows`."""
        connection, trial_id = self._connection(), self._ids[number]
        for row in _attr_rows(trial_id, attrs):
            mine = (_ATTRS.c.trial_id == trial_id) & (_ATTRS.c.key == row["key"])
            if connection.execute(update(_ATTRS).where(mine).values(value_json=row["value_json"])).rowcount == 0:
                connection.execute(insert(_ATTRS).values(row))

    def end(self, endings: Sequence[Ending]) -> None:
        """See `Rows`."""
        connection = self._connection()
        values, curve, attrs = [], [], []
        for ending in endings:
            trial_id = self._ids[ending.number]
            running = (_TRIALS.c.trial_id == trial_id) & (_TRIALS.c.state == TrialState.RUNNING)
            over = {"state": ending.state, "datetime_complete": _utc(datetime.datetime.now())}
            if connection.execute(update(_TRIALS).where(running).values(over)).rowcount != 1:
                raise StoreError(
                    f"trial {ending.number} has been ended by somebody else; look at it with Optuna's tools"
                )
            if ending.value is not None:
                value, kind = models.TrialValueModel.value_to_stored_repr(ending.value)
                values.append({"trial_id": trial_id, "objective": 0, "value": value, "value_type": kind})
            curve += [_point(trial_id, step, value) for step, value in ending.curve]
            attrs += _attr_rows(trial_id, ending.attrs)
        for table, rows in ((_VALUES, values), (_CURVE, curve), (_ATTRS, attrs)):
            if rows:
                connection.execute(insert(table), rows)

    def _connection(self) -> Connection:
        return self._storage.scoped_session().connection()


def read_trials(storage: BaseStorage, study_id: int) -> list[FrozenTrial]:
    """All trials of a study that nobody else writes to, without their times and curves for plots: a table at a time."""
    if not isinstance(storage, RDBStorage):
        return storage.get_all_trials(study_id, deepcopy=False)
    with storage.engine.connect() as connection:
        mine = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)
        params, kinds, attrs, values = (defaultdict[int, dict[str, Any]](dict) for _ in range(4))
        for i, name, value, text in connection.execute(
            _of(mine, _PARAMS, "param_name", "param_value", "distribution_json")
        ):
            kinds[i][name] = distribution = _distribution_of(text)
            params[i][name] = distribution.to_external_repr(value)
        for i, key, text in connection.execute(_of(mine, _ATTRS, "key", "value_json")):
            attrs[i][key] = json.loads(text)
        for i, value, kind in connection.execute(_of(mine, _VALUES, "value", "value_type")):
            values[i]["value"] = models.TrialValueModel.stored_repr_to_value(value, kind)
        trials = connection.execute(
            select(_TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state).where(_TRIALS.c.study_id == study_id)
        )
        return [
            FrozenTrial(n, state, values[i].get("value"), None, None, params[i], kinds[i], attrs[i], {}, {}, i)
            for i, n, state in trials.all()
        ]


def _of(mine: Any, table: Any, *names: str) -> Any:
    """The named columns of the rows of a study's trials, in the order in which they were written."""
    wanted = [table.c.trial_id, *(table.c[name] for name in names)]
    return select(*wanted).where(table.c.trial_id.in_(mine)).order_by(next(iter(table.primary_key)))


def make_rows(storage: BaseStorage, study_id: int, known: Sequence[FrozenTrial]) -> Rows:
    """The way of writing that fits a storage."""
    if isinstance(storage, RDBStorage):
        return TableRows(storage, study_id, known)
    return PlainRows(storage, study_id)


def _param(trial_id: int, name: str, template: FrozenTrial) -> dict[str, Any]:
    distribution: BaseDistribution = template.distributions[name]
    value = distribution.to_internal_repr(template.params[name])
    return {
        "trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": _json_of(distribution),
    }  # fmt: skip


def _attr_rows(trial_id: int, attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def _point(trial_id: int, step: int, value: float) -> dict[str, Any]:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def _utc(moment: datetime.datetime) -> datetime.datetime:
    """As Optuna keeps it: naive, in UTC."""
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)

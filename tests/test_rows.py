from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from llmhpo.errors import StoreError
from llmhpo.store.rows import Ending, PlainRows, Rows, TableRows, read_trials
from llmhpo.store.storage import one_transaction

TEMPLATE = optuna.trial.create_trial(
    state=TrialState.RUNNING,
    params={"x": 0.25, "kind": "b", "n": 3},
    distributions={
        "x": optuna.distributions.FloatDistribution(1e-5, 1.0, log=True),
        "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
        "n": optuna.distributions.IntDistribution(1, 9),
    },
    user_attrs={"source": "gp", "rationale": 'because "x"'},
)
PLAIN = optuna.trial.create_trial(
    state=TrialState.RUNNING,
    params={"x": 0.5},
    distributions={"x": optuna.distributions.FloatDistribution(1e-5, 1.0, log=True)},
)
ENDINGS = [
    Ending(0, TrialState.COMPLETE, 0.75, [(0, 1.0), (1, float("nan")), (2, float("inf"))], {"seconds": 1.5, "metrics": {"a": 1}}),
    Ending(1, TrialState.FAIL, None, (), {"message": "no"}),
]  # fmt: skip


def storage(folder: Path) -> RDBStorage:
    made = RDBStorage(f"sqlite:///{folder / 'study.db'}")
    made.create_new_study([StudyDirection.MINIMIZE], "s")
    return made


@pytest.fixture
def table(tmp_path: Path):
    made = storage(tmp_path)
    yield made, TableRows(made, 1, [])
    made.remove_session()
    made.engine.dispose()


def write(made: RDBStorage, rows: Rows) -> list[object]:
    with one_transaction(made):
        rows.begin([TEMPLATE, PLAIN])
        rows.add({0: {"attempt:000": {"index": 0}}, 1: {"attempt:000": 1, "attempt:001": 2}})
    with one_transaction(made):
        rows.note(0, {"attempt:001": {"index": 1}})
        rows.note(0, {"attempt:001": {"index": 1, "cancelled": True}, "attempt:002": 2})
    with one_transaction(made):
        rows.end(ENDINGS)
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")
    with made.engine.connect() as connection:
        found = [[dict(r) for r in connection.exec_driver_sql(f"SELECT * FROM {t}").mappings()] for t in tables]
    for row in found[0]:
        assert all(row.pop(name) for name in ("datetime_start", "datetime_complete"))
    for rows_of_table in found:
        for row in rows_of_table:
            row.pop(next(iter(row)))  # its own id
    return [sorted(map(repr, rows_of_table)) for rows_of_table in found]


def test_the_rows_are_those_that_optuna_writes(tmp_path: Path, table) -> None:
    (tmp_path / "optuna").mkdir()
    theirs = storage(tmp_path / "optuna")
    assert write(*table) == write(theirs, PlainRows(theirs, 1))
    theirs.remove_session()
    theirs.engine.dispose()


def test_times_are_those_that_optuna_reads_back(table) -> None:
    made, _ = table
    write(*table)
    first = made.get_all_trials(1)[0]
    assert first.datetime_start == TEMPLATE.datetime_start
    assert first.duration is not None
    assert first.duration.total_seconds() >= 0


def test_numbers_count_trials_that_somebody_else_has_queued(table) -> None:
    made, rows = table
    with one_transaction(made):
        assert rows.begin([PLAIN]) == [0]
    optuna.load_study(study_name="s", storage=made).enqueue_trial({"x": 0.1})
    with one_transaction(made):
        assert rows.begin([PLAIN, PLAIN]) == [2, 3]
    assert [t.number for t in made.get_all_trials(1)] == [0, 1, 2, 3]


def test_a_transaction_that_failed_uses_up_no_number(table) -> None:
    made, rows = table

    def fail() -> None:
        with one_transaction(made):
            rows.begin([PLAIN])
            rows.note(7, {"there is": "no such trial"})

    with pytest.raises(KeyError):
        fail()
    with one_transaction(made):
        assert rows.begin([PLAIN]) == [0]


def test_a_trial_that_somebody_else_has_ended_is_not_ended_again(table) -> None:
    made, rows = table
    with one_transaction(made):
        rows.begin([PLAIN])
    made.set_trial_state_values(made.get_all_trials(1)[0]._trial_id, TrialState.FAIL)
    with pytest.raises(StoreError, match="trial 0 has been ended by somebody else"), one_transaction(made):
        rows.end([Ending(0, TrialState.COMPLETE, 1.0, (), {})])


def test_trials_are_read_back_as_optuna_reads_them(table) -> None:
    made, rows = table
    write(*table)
    with one_transaction(made):
        rows.begin([TEMPLATE])
    optuna.load_study(study_name="s", storage=made).enqueue_trial({"x": 0.1})
    for mine, theirs in zip(read_trials(made, 1), made.get_all_trials(1), strict=True):
        assert list(mine.params.items()) == list(theirs.params.items())
        assert (mine.number, mine.state, mine._trial_id) == (theirs.number, theirs.state, theirs._trial_id)
        assert mine.user_attrs == theirs.user_attrs
        assert mine.values == theirs.values
        assert mine.distributions == theirs.distributions

"""Studies of others as a warm start: what fits is history and nothing more, what does not is counted, and what cannot is refused."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from typer.testing import CliRunner

from llmhpo import optimize
from llmhpo.audit import replay, verify
from llmhpo.cli import app
from llmhpo.errors import ConfigError, StoreError, StudyMismatchError
from llmhpo.result import Result
from llmhpo.space import Params, SearchSpace
from llmhpo.store import load_study
from llmhpo.store.fit import fit_trials
from llmhpo.store.others import read_other
from llmhpo.study import Study
from llmhpo.trial import IMPORTED, Task

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
        "k": {"type": "int", "low": 1, "high": 8, "default": 2},
        "kind": {"type": "categorical", "choices": ["a", "b"], "default": "a"},
        "beta": {"type": "float", "low": 0.1, "high": 0.9, "default": 0.5, "when": {"kind": "b"}},
    }
)
X, K, KIND, BETA = SPACE.to_optuna().values()
TASK = Task("t", "value")


def loss(params: Params) -> float:
    return (float(params["x"]) - 0.3) ** 2 + 0.01 * int(params["k"])  # type: ignore[arg-type]


def old(
    params: dict[str, Any], value: float | None = 1.0, distributions: dict[str, BaseDistribution] | None = None
) -> FrozenTrial:
    known = {"x": X, "k": K, "kind": KIND, "beta": BETA} | (distributions or {})
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    return create_trial(
        state=state, values=None if value is None else [value], params=params,
        distributions={name: known[name] for name in params},
    )  # fmt: skip


def study(trials: Sequence[FrozenTrial] = (), storage: Any = None, name: str = "old", **how: Any) -> optuna.Study:
    made = optuna.create_study(storage=storage, study_name=name, **how)
    made.add_trials(list(trials))
    return made


def searched(n: int = 12) -> list[FrozenTrial]:
    return [old(params, loss(params)) for params in SPACE.sample(np.random.default_rng(0), n)]


def run(warm_start: Any, n_trials: int = 4, **more: Any) -> tuple[Result, list[Params]]:
    """The result, and all configurations that were really run."""
    asked: list[Params] = []

    def job(params: Params) -> float:
        asked.append(params)
        return loss(params)

    settings_: dict[str, Any] = {"llm": "none", "seed": 1, "progress": False, "isolated": False} | more
    return optimize(job, SPACE, n_trials=n_trials, warm_start=warm_start, **settings_), asked


# --- in a study -------------------------------------------------------------------------------------------------------


def test_imported_trials_count_in_no_budget_and_are_not_run_again() -> None:
    result, asked = run(study(searched()))
    imported = [t.params for t in result.trials if t.proposal.source == IMPORTED]
    assert (len(imported), len(asked), len(result.trials)) == (12, 4, 16)
    assert [p for p in asked if p in imported] == []


def test_they_are_what_the_search_goes_on_from() -> None:
    result, _ = run(study(searched()))
    assert [t.proposal.source for t in result.trials if t.proposal.source == "random"] == []
    without, _ = run(())
    assert {t.proposal.source for t in without.trials} == {"default", "random"}


def test_an_imported_trial_says_where_it_comes_from() -> None:
    result, _ = run(study([old({"x": 0.2, "k": 1, "kind": "a"})]), n_trials=1)
    assert result.trials[0].proposal.rationale == "trial 0 of old"
    assert str(result.transfers[0]) == "1 of 1 trials of old are history here"


def test_a_default_that_was_run_elsewhere_is_the_default_here() -> None:
    result, asked = run(study([old({"x": 0.9, "k": 2, "kind": "a"}, 7.0)]), n_trials=2)
    assert SPACE.default() not in asked
    assert result.default is not None
    assert result.default.value == 7.0


def test_the_default_is_run_where_nobody_has() -> None:
    _, asked = run(study(searched()), n_trials=1)
    assert asked == [SPACE.default()]


def test_a_study_that_goes_on_imports_nothing_twice(tmp_path: Path) -> None:
    kept = {"storage": f"sqlite:///{tmp_path / 'new.db'}", "study_name": "new", "cwd": tmp_path}
    run(study(searched()), 2, **kept)
    result, asked = run(study(searched()), 5, **kept)
    assert (len(result.trials), len(asked)) == (12 + 5, 3)
    assert [t.taken for t in result.transfers] == [12]


def test_several_studies_are_imported_one_after_the_other() -> None:
    one, two = study(searched(3), name="one"), study([old({"x": 0.4, "k": 1, "kind": "b", "beta": 0.3})], name="two")
    result, _ = run([one, two], 1)
    assert [t.origin for t in result.transfers] == ["one", "two"]
    assert len(result.trials) == 5


def test_log_and_storage_agree_and_decisions_follow_from_what_was_imported(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'new.db'}"
    run(study(searched()), 5, storage=storage, study_name="new", cwd=tmp_path)
    log = next(tmp_path.rglob("*.jsonl"))
    assert verify(log, load_study(storage, "new"), "new").problems == ()
    again = replay(log)
    assert (again.problems, again.checked) == ((), 5)


def test_an_import_that_a_crash_kept_from_the_log_is_found_again(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'new.db'}"
    with Study(SPACE, storage=storage, study_name="new", llm="none", warm_start=study(searched(40))):
        pass
    log = next(tmp_path.rglob("*.jsonl"))
    lines = log.read_text().splitlines(keepends=True)
    cut = next(i for i, text in enumerate(lines) if '"imported"' in text)
    log.write_text("".join(lines[:cut]))
    with Study(SPACE, storage=storage, study_name="new", llm="none"):
        pass
    found = verify(log, load_study(storage, "new"), "new")
    assert found.problems == ()
    assert not any("set aside" in note for note in found.notes), found.notes


def test_a_noisy_study_repeats_no_imported_configuration() -> None:
    result, _ = run(study([*searched(10), old({"x": 0.3, "k": 1, "kind": "a"}, -5.0)]), 20, noisy=True)
    imported = [t.params for t in result.trials if t.proposal.source == IMPORTED]
    assert [t for t in result.trials if t.proposal.source != IMPORTED and t.params in imported] == []


def test_a_study_that_is_asked_and_told_has_its_own_trials_in_its_budget() -> None:
    with Study(SPACE, llm="none", n_trials=1, warm_start=study(searched())) as asked:
        assert asked.stop is None
        asked.tell(asked.ask()[0], 0.5)
        assert asked.stop is not None
        assert asked.stop.reason == "budget"


def test_trials_that_were_imported_are_not_waited_for_as_stale() -> None:
    good = old({"x": 0.3, "k": 1, "kind": "a"}, -9.0)
    result, asked = run(study([good, *searched()]), 8, stop_stale=3)
    assert (result.stopped, len(asked)) == ("stale", 3)


# --- what fits --------------------------------------------------------------------------------------------------------


def test_a_missing_parameter_takes_its_default_and_is_counted() -> None:
    made, trials = fit_trials([old({"x": 0.2})], "o", SPACE, TASK)
    assert trials[0].params == {"x": 0.2, "k": 2, "kind": "a"}
    assert made.filled == {"k": 1, "kind": 1}


def test_a_value_out_of_range_leaves_the_trial_out_and_is_counted() -> None:
    wide = {"x": FloatDistribution(-5, 5)}
    made, trials = fit_trials([old({"x": 3.0}, 1.0, wide), old({"x": 0.2})], "o", SPACE, TASK)
    assert [t.params["x"] for t in trials] == [0.2]
    assert made.left_out == {"x out of its range or grid": 1}


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (old({"x": 0.2}, None), "did not end well"),
        (old({"x": 0.2, "kind": "c"}, 1.0, {"kind": CategoricalDistribution(["a", "c"])}), "kind none of its choices"),
        (old({"x": 0.2, "k": 2.5}, 1.0, {"k": FloatDistribution(0, 9)}), "k out of its range or grid"),
        (old({"x": 0.2}, 99.0), "value outside metric_bounds"),
    ],
)
def test_what_is_left_out_has_a_reason(trial: FrozenTrial, reason: str) -> None:
    made, _ = fit_trials([trial, old({"x": 0.5})], "o", SPACE, Task("t", bounds=(0, 10)))
    assert made.left_out == {reason: 1}
    assert made.taken == 1


def test_what_was_really_run_counts_and_what_edited_code_gave_does_not() -> None:
    snapped, edited = old({"x": 0.21}), old({"x": 0.4})
    snapped.set_user_attr("evaluated", {"x": 0.25, "k": 4, "kind": "a"})
    edited.set_user_attr("code", "a" * 40)
    made, taken = fit_trials([snapped, edited], "o", SPACE, TASK)
    assert [t.params for t in taken] == [{"x": 0.25, "k": 4, "kind": "a"}]
    assert made.left_out == {"ran edited code": 1}


def test_without_a_declared_default_a_missing_parameter_leaves_the_trial_out() -> None:
    space = SearchSpace.from_dict({"x": X, "new": {"type": "float", "low": 0.0, "high": 1.0}})
    with pytest.raises(ConfigError, match=r"1 new missing, and no default declared.*declare defaults"):
        fit_trials([old({"x": 0.2})], "o", space, TASK)


def test_an_old_parameter_that_is_inactive_here_is_dropped_and_one_that_is_unknown_is_told() -> None:
    trial = old({"x": 0.2, "kind": "a", "beta": 0.3, "width": 3}, 1.0, {"width": IntDistribution(1, 9)})
    made, trials = fit_trials([trial], "o", SPACE, TASK)
    assert trials[0].params == {"x": 0.2, "k": 2, "kind": "a"}
    assert made.ignored == ("width",)


def test_of_several_that_become_one_configuration_the_median_is_taken() -> None:
    width = {"width": IntDistribution(1, 9)}
    trials = [old({"x": 0.2, "width": w}, v, width) for w, v in ((1, 5.0), (2, 1.0), (3, 2.0))]
    made, taken = fit_trials(trials, "o", SPACE, TASK)
    assert [t.value for t in taken] == [2.0]
    assert sum(made.left_out.values()) == 2


def test_numbers_of_another_kind_are_numbers() -> None:
    kinds = {"k": CategoricalDistribution([2, 4, 64]), "x": IntDistribution(0, 1)}
    _, taken = fit_trials([old({"x": 1, "k": 4}, 1.0, kinds)], "o", SPACE, TASK)
    assert taken[0].params == {"x": 1.0, "k": 4, "kind": "a"}
    assert isinstance(taken[0].params["x"], float)


_NUMBERS = st.floats(-0.5, 1.5)
_OLD = st.fixed_dictionaries(
    {},
    optional={
        "x": _NUMBERS,
        "k": st.integers(-2, 12),
        "kind": st.sampled_from(["a", "b", "c"]),
        "beta": _NUMBERS,
        "other": _NUMBERS,
    },
)
_WIDE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1, 2), "k": IntDistribution(-2, 12), "kind": CategoricalDistribution(["a", "b", "c"]),
    "beta": FloatDistribution(-1, 2), "other": FloatDistribution(-1, 2),
}  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(_OLD, st.none() | st.floats(-10, 10)), max_size=12))
def test_every_trial_is_taken_as_it_was_or_counted_as_left_out(rows: list[tuple[dict[str, Any], float | None]]) -> None:
    numbered = [old(params, value, _WIDE) for params, value in rows]
    for number, trial in enumerate(numbered):
        trial.number = number
    try:
        made, taken = fit_trials(numbered, "o", SPACE, TASK)
    except ConfigError:
        return
    assert made.taken + sum(made.left_out.values()) == made.offered == len(rows)
    assert len({SPACE.key(t.params) for t in taken}) == len(taken) == made.taken
    for trial in taken:
        before, value = rows[trial.number]
        assert trial.value == value
        assert SPACE.coerce(trial.params) == trial.params
        defaults = {p.name: p.default for p in SPACE.params}
        assert all(trial.params[name] == before.get(name, defaults[name]) for name in trial.params)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: study(searched(), direction="maximize"), "was to maximize, this one is to minimize"),
        (lambda: study(directions=["minimize", "minimize"]), "has 2 objectives"),
    ],
)
def test_a_study_of_another_metric_is_refused(other: Any, message: str) -> None:
    with pytest.raises(StudyMismatchError, match=message):
        run(other())


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([], "has no trials"),
        ([old({"y": 0.1}, 1.0, {"y": X})], "no name is common"),
        ([old({"x": "big"}, 1.0, {"x": CategoricalDistribution(["big", "small"])})], "have nothing in common, so rename it"),
        ([old({"kind": 3}, 1.0, {"kind": IntDistribution(1, 4)})], "'kind' takes one of 'a', 'b' here, and an integer"),
        ([old({"x": 0.2}, None)], "none of the trials fits: 0 of 1 trials.*1 did not end well"),
    ],
)  # fmt: skip
def test_what_can_never_fit_is_refused_with_the_remedy(trials: list[FrozenTrial], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(study(trials))


def test_a_study_that_is_refused_leaves_no_trials_behind(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(StudyMismatchError):
        run(study(searched(), direction="maximize"), storage=storage, study_name="new", cwd=tmp_path)
    assert load_study(storage, "new").trials == ()


def test_no_history_is_taken_over_where_code_is_edited(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("A = 1\n")
    with pytest.raises(ConfigError, match="other code may have given"):
        optimize("true {x}", SPACE, editable=["model.py"], warm_start=study(searched()), cwd=tmp_path, llm="none")


# --- where studies lie ------------------------------------------------------------------------------------------------


def test_a_database_a_file_and_a_journal_are_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    study(searched(5), url)
    study(searched(3), JournalStorage(JournalFileBackend(str(tmp_path / "old.log"))))
    named = [f"{url}#old", url, str(tmp_path / "old.db"), f"{tmp_path / 'old.log'}#old"]
    assert [len(read_other(name, "minimize").trials) for name in named] == [5, 5, 5, 3]


def test_nothing_is_written_to_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="holds no Optuna studies"):
        read_other(f"sqlite:///{path}#x", "minimize")
    with pytest.raises(StoreError, match="No such file"):
        read_other(str(tmp_path / "gone.db"), "minimize")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine.db"]


@pytest.mark.parametrize(
    ("suffix", "message"),
    [("", "holds 2 studies.*'one', 'two'"), ("#three", "no study named 'three'.*'one', 'two'")],
)
def test_a_study_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, suffix: str, message: str) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    for name in ("one", "two"):
        study((), url, name)
    with pytest.raises(ConfigError, match=message):
        read_other(url + suffix, "minimize")


def test_the_confirmation_of_a_study_is_not_taken_for_another_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    study(searched(4), url)
    study(searched(2), url, "old:confirm")
    assert len(read_other(url, "minimize").trials) == 4
    assert len(read_other(f"{url}#old:confirm", "minimize").trials) == 2


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(StoreError, match="neither a SQLite file nor a journal"):
        read_other(str(tmp_path / "notes.txt"), "minimize")


def test_a_study_is_no_warm_start_of_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    run((), 2, storage=url, study_name="new", cwd=tmp_path)
    with pytest.raises(ConfigError, match="is this very study"):
        run(f"{url}#new", 3, storage=url, study_name="new", cwd=tmp_path)


def test_a_study_file_and_the_command_line_name_old_studies(tmp_path: Path) -> None:
    study(searched(6), f"sqlite:///{tmp_path / 'old.db'}")
    job = f"{sys.executable} -c \"import json, os; json.dump(({{x}} - 0.3) ** 2, open(os.environ['LLMHPO_RESULT'], 'w'))\""
    text = f"""command = '''{job}'''\nmetric = "value"\ndirection = "minimize"\nn_trials = 2\nllm = "none"
warm_start = "old.db#old"\n[space]\nx = {{type = "float", low = 0.0, high = 1.0, default = 0.9}}\n"""
    (tmp_path / "study.toml").write_text(text)
    done = CliRunner().invoke(app, ["run", str(tmp_path), "--plain"])
    assert done.exit_code == 0, done.output
    assert "imported: 6 of 6 trials" in done.output
    assert "8 trials: 6 imported" in done.output
    words = [
        "run",
        str(tmp_path),
        "--plain",
        "--study-name",
        "b",
        "--warm-start",
        f"sqlite:///{tmp_path / 'old.db'}#none",
    ]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code != 0
    assert "no study named 'none'" in str(refused.exception or refused.output)

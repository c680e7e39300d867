from __future__ import annotations

import pytest

from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial, confirm_seed
from llmhpo.tripwires import (
    CHANGED,
    CONSTANT,
    FAST,
    JUMP,
    Expectations,
    condemned,
    needs_rerun,
    rerun_seed,
    settle,
    suspicions,
)

ACCURACY = Task(metric="accuracy", direction="maximize")
LOSS = Task(metric="loss")
KNOWN = Expectations((0.80, 0.82, 0.83, 0.79, 0.2), (10.0, 12.0, 30.0))


def ok(value: float, seconds: float = 11.0, **fields: object) -> Outcome:
    return Outcome("ok", value, seconds, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value, flagged", [(0.83, False), (0.85, False), (0.99, True), (0.1, False), (0.835, False)], ids=str
)
def test_a_value_far_beyond_the_best_of_all_is_a_jump(value: float, flagged: bool) -> None:
    assert (JUMP in suspicions(ok(value), ACCURACY, KNOWN)) is flagged


def test_a_jump_is_one_in_the_direction_of_the_task() -> None:
    known = Expectations(tuple(-v for v in KNOWN.values))
    assert JUMP in suspicions(ok(-0.99), LOSS, known)
    assert JUMP not in suspicions(ok(0.99), LOSS, known)


def test_a_failed_training_among_the_known_does_not_hide_a_jump() -> None:
    known = Expectations((0.80, 0.82, 0.83, 0.81, 1e6, 1e9))
    assert JUMP in suspicions(ok(0.1), LOSS, known)


@pytest.mark.parametrize("values, flagged", [((), False), ((0.8,), False), ((0.4, 0.3), True)], ids=str)
def test_with_few_known_values_only_a_large_jump_counts(values: tuple[float, ...], flagged: bool) -> None:
    assert (JUMP in suspicions(ok(0.9), ACCURACY, Expectations(values))) is flagged


@pytest.mark.parametrize(
    "known, edge",
    [
        ((1.0, 2.0, 3.0), 0.5),  # few: half of the best
        ((1.0, 1.1, 1.2, 5.0), 0.8),  # four times as far beyond the best as the better half lies from it
        ((1.0, 1.1, 1.2, 5.0, 9.0), 0.6),
        ((1.0, 1.0, 1.0, 1.0), 0.996),  # equal values: a thousandth of the best is their spread
    ],
    ids=str,
)
def test_a_jump_begins_where_the_known_values_say(known: tuple[float, ...], edge: float) -> None:
    for loss, flagged in ((edge + 1e-6, False), (edge - 1e-6, True)):
        assert (JUMP in suspicions(ok(loss), LOSS, Expectations(known))) is flagged


@pytest.mark.parametrize("seconds, flagged", [(1.9, True), (2.1, False), (11.0, False)])
def test_a_fraction_of_the_quickest_trial_is_too_fast(seconds: float, flagged: bool) -> None:
    assert (FAST in suspicions(ok(0.8, seconds), ACCURACY, KNOWN)) is flagged


def test_where_every_trial_is_quick_none_is_too_fast() -> None:
    assert suspicions(ok(0.8, 0.01), ACCURACY, Expectations(seconds=(0.2, 0.3))) == ()


def test_a_trial_without_a_value_touches_no_tripwire() -> None:
    assert suspicions(Outcome("failed", seconds=0.01), ACCURACY, KNOWN) == ()


def test_an_ordinary_value_needs_no_second_run_and_a_flagged_one_does() -> None:
    assert not needs_rerun(ok(0.83), suspicions(ok(0.83), ACCURACY, KNOWN))
    assert needs_rerun(ok(0.99), (JUMP,))
    assert needs_rerun(ok(0.8, flags=(CONSTANT,)), suspicions(ok(0.8, flags=(CONSTANT,)), ACCURACY, KNOWN))


def test_a_changed_file_is_condemned_without_a_second_run() -> None:
    assert not needs_rerun(ok(0.8), (CHANGED,))
    outcome = condemned(ok(0.8), (CHANGED,))
    assert (outcome.status, outcome.value, outcome.flags) == ("invalid", None, (CHANGED,))
    assert CHANGED in outcome.message


@pytest.mark.parametrize(
    "task, first, second, kept",
    [(ACCURACY, 0.99, 0.97, 0.97), (ACCURACY, 0.95, 0.98, 0.95), (LOSS, 0.1, 0.12, 0.12), (LOSS, 0.04, 0.17, 0.17)],
    ids=str,
)
def test_of_two_runs_the_worse_counts_and_the_flag_stays(task: Task, first: float, second: float, kept: float) -> None:
    outcome = settle(ok(first, fingerprint="a"), ok(second, fingerprint="b"), task, (JUMP,))
    assert (outcome.status, outcome.value, outcome.flags, outcome.fingerprint) == ("ok", kept, (JUMP,), "a")
    assert f"{first:g} and {second:g}" in outcome.message


@pytest.mark.parametrize(
    "second",
    [Outcome("failed", message="exit code 1"), Outcome("timeout"), ok(0.99, flags=(CHANGED,))],
    ids=["failed", "timeout", "changed"],
)
def test_a_second_run_that_ends_badly_settles_against_the_first(second: Outcome) -> None:
    outcome = settle(ok(0.99), second, ACCURACY, (JUMP,))
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert set(outcome.flags) >= {JUMP}


@pytest.mark.parametrize("seed", [0, 1, 2**30 - 1])
def test_the_seed_of_a_second_run_is_another_one_and_stays_the_searchs(seed: int) -> None:
    assert rerun_seed(seed) != seed
    assert 0 <= rerun_seed(seed) < 2**30
    assert rerun_seed(confirm_seed(seed, 0)) >= 2**30


def test_what_is_known_comes_from_trials_that_ended_well() -> None:
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0, "high": 1}})
    outcomes = [ok(0.5, 3.0), Outcome("failed", seconds=1.0), None, ok(0.7, 4.0)]
    trials = tuple(Trial(i, Proposal({"x": 0.5}, "random"), outcome) for i, outcome in enumerate(outcomes))
    assert Expectations.of(Context(LOSS, space, trials)) == Expectations((0.5, 0.7), (3.0, 4.0))

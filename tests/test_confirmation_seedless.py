"""Runs that do not use the seed tell nothing of chance, however many there are."""

from __future__ import annotations

from llmhpo.comparison import Confirmation, Reruns
from llmhpo.trial import Task


def made(best: tuple[float, ...], default: tuple[float, ...], code: str = "e" * 40) -> Confirmation:
    return Confirmation(Task("t", "loss"), (1, 2, 3), 4, Reruns({}, best, 0), Reruns({}, default, 0), code=code)


def test_an_edit_that_led_by_one_lucky_comparison_made_three_times_is_not_confirmed() -> None:
    found = made((0.4999999,) * 3, (0.5,) * 3)  # the null agent, whose edit moves the value by rounding
    assert found.verdict == "better"
    assert not found.confirmed
    assert "do not use the seed" in found.objection


def test_a_failed_run_of_the_code_as_it_stood_does_not_make_the_others_depend_on_the_seed() -> None:
    default = Reruns({}, (0.5, 0.5, None, 0.5), 1)
    found = Confirmation(Task("t", "loss"), (1, 2, 3, 4), 4, Reruns({}, (0.4999999,) * 4, 0), default, code="e" * 40)
    assert found.is_seedless
    assert "do not use the seed" in found.objection


def test_an_edit_is_confirmed_where_its_own_runs_depend_on_the_seed() -> None:
    assert made((0.1, 0.2, 0.15), (0.9, 0.9, 0.9)).confirmed


def test_an_edit_that_has_stopped_to_use_the_seed_is_not_confirmed() -> None:
    assert "the edit no longer uses the seed" in made((0.1,) * 3, (0.5, 0.6, 0.55)).objection
    assert made((0.1,) * 3, (0.5, 0.6, 0.55), code="").confirmed


def test_a_configuration_alone_is_told_better_as_before() -> None:
    assert made((0.1,) * 3, (0.5,) * 3, code="").confirmed

"""What of a space is searched after the person narrowed, froze, widened or added something."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.errors import ConfigError, SpaceError
from llmhpo.space import SearchSpace
from llmhpo.steering import Budget, Limit, Note, Steering
from llmhpo.usage import Caps, Usage
from llmhpo.view import View, steered

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True, "default": 0.1},
        "depth": {"type": "int", "low": 1, "high": 9, "default": 3},
        "drop": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
        "opt": {"type": "categorical", "choices": ["sgd", "adam", "lion"], "default": "sgd"},
        "mom": {"type": "float", "low": 0.0, "high": 0.9, "default": 0.5, "when": {"opt": ["sgd", "lion"]}},
    }
)
LIMITS = {"lr": Limit(1e-3, 3e-3), "depth": Limit(2, 4), "drop": Limit(0.15, 0.4), "opt": Limit(values=("adam", "sgd"))}
UNITS = st.lists(st.floats(0, 1), min_size=5, max_size=5)


@given(UNITS)
def test_every_point_of_the_cube_is_moved_to_a_configuration_of_the_view(units: list[float]) -> None:
    view = View(SPACE, LIMITS)
    params = view.from_unit(view.units(np.array([units]))[0])
    assert isinstance(SPACE.coerce(params), dict)
    assert 1e-3 <= params["lr"] <= 3e-3  # type: ignore[operator]
    assert params["depth"] in (2, 3, 4)
    assert params["drop"] in (0.2, 0.3, 0.4)
    assert params["opt"] in ("sgd", "adam")


@given(UNITS)
def test_what_lies_inside_stays_where_it_is(units: list[float]) -> None:
    view = View(SPACE, LIMITS)
    once = view.units(np.array([units]))
    assert np.allclose(view.units(once), once, atol=1e-12)


def test_a_frozen_number_is_met_exactly_on_a_logarithmic_scale() -> None:
    view = View(SPACE, {"lr": Limit(values=(0.003,))})
    assert {view.confine(SPACE.from_unit(u))["lr"] for u in np.random.default_rng(0).random((20, 5))} == {0.003}


def test_the_space_that_is_left_drops_what_can_no_longer_occur() -> None:
    left = View(SPACE, {"opt": Limit(values=("adam",))}).space
    assert left.names == ("lr", "depth", "drop", "opt")
    assert left["opt"].choices == ("adam",)
    assert not left["opt"].has_default


def test_the_space_that_is_left_keeps_conditions_that_can_still_hold() -> None:
    left = View(SPACE, {"opt": Limit(values=("adam", "lion"))}).space
    assert left["mom"].when[0].values == ("lion",)


def test_every_configuration_of_the_space_that_is_left_is_one_of_the_whole() -> None:
    view = View(SPACE, LIMITS)
    for params in view.space.sample(np.random.default_rng(1), 50):
        assert isinstance(SPACE.coerce(params), dict)
        assert view.allows(params)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("lr", Limit(2.0, 3.0)),
        ("depth", Limit(2.2, 2.8)),
        ("opt", Limit(values=("adagrad",))),
        ("lr", Limit(values=(5,))),
    ],
)
def test_a_limit_that_leaves_nothing_is_refused_with_what_there_is(name: str, limit: Limit) -> None:
    with pytest.raises(SpaceError, match=f"{name}.*(takes|one of|from)"):
        View(SPACE, {name: limit})


def test_an_early_trial_counts_as_run_with_the_default_of_what_was_added_later() -> None:
    steering = Steering(params={"wd": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.25}}, added=("wd",))
    now = steered(SPACE, steering)
    early = SPACE.default()
    assert now.key(early) == now.key({**early, "wd": 0.25})
    assert now.to_unit(early)[-1] == 0.25
    assert np.array_equal(now.encode([early]), now.encode([{**early, "wd": 0.25}]))


def test_a_model_that_leaves_out_what_was_added_is_told_so() -> None:
    steering = Steering(params={"wd": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.25}}, added=("wd",))
    assert "missing parameter 'wd'" in str(steered(SPACE, steering).coerce(SPACE.default()))


def test_what_joins_a_study_needs_the_value_that_was_used_so_far() -> None:
    with pytest.raises(SpaceError, match=r"'wd'.*default"):
        steered(SPACE, Steering(params={"wd": {"type": "float", "low": 0.0, "high": 1.0}}, added=("wd",)))


def test_a_wider_range_replaces_the_old_one_in_its_place() -> None:
    now = steered(SPACE, Steering(params={"depth": {"type": "int", "low": 1, "high": 20, "default": 3}}))
    assert now.names == SPACE.names
    assert now["depth"].check(20) is None
    assert now.late == ()


def test_steering_survives_json() -> None:
    whole = Steering(
        notes=(Note("stop trying large models", 2), Note("try lion")),
        limits={**LIMITS, "mom": Limit(low=0.2)},
        params={"wd": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.25}},
        added=("wd",),
        arguments="--wd {wd}",
        budget=Budget(n_trials=40, max_usd=2.5),
        talk=Usage(calls=2, input_tokens=100, output_tokens=10, usd=None),
    )
    assert Steering.from_dict(whole.to_dict()) == whole
    assert Steering.from_dict(Steering().to_dict()) == Steering()


@pytest.mark.parametrize("raw", [{"notes": [1]}, {"limits": {"lr": 3}}, {"budget": {"max": 1}}, {"talk": {"x": 1}}])
def test_what_is_no_steering_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="steering"):
        Steering.from_dict(raw)


def test_a_budget_replaces_only_what_it_names() -> None:
    assert Budget(max_usd=1.0).over(Caps(max_tokens=5, max_usd=9.0)) == Caps(max_tokens=5, max_usd=1.0)


def test_a_note_is_marked_with_what_had_been_asked_when_it_came() -> None:
    before = Steering(notes=(Note("a", 1),))
    assert Steering(notes=(Note("a"), Note("b"))).taken_in(3, before).notes == (Note("a", 1), Note("b", 3))

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from llmhpo.errors import SpaceError
from llmhpo.param import Param
from llmhpo.space import InvalidParams, SearchSpace

GOOD = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.9, "nesterov": True, "batch_size": 32, "layers": 2}

names = st.sampled_from(["a", "b", "c", "d", "e"])
finite = st.floats(-1e6, 1e6)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Random spaces of every parameter type, later parameters conditional on earlier categories."""
    table: dict[str, dict[str, object]] = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        kind = draw(st.sampled_from(["float", "log", "stepped", "int", "intlog", "categorical", "ordinal"]))
        if kind == "float":
            low = draw(finite)
            spec: dict[str, object] = {"type": "float", "low": low, "high": low + draw(st.floats(0, 1e6))}
        elif kind == "log":
            low = draw(st.floats(1e-9, 1.0))
            spec = {"type": "float", "low": low, "high": low * draw(st.floats(1, 1e9)), "log": True}
        elif kind == "stepped":
            spec = {"type": "float", "low": 0.0, "high": 0.1 * draw(st.integers(1, 20)), "step": 0.1}
        elif kind == "int":
            low_i = draw(st.integers(-1000, 1000))
            step = draw(st.integers(1, 5))
            spec = {"type": "int", "low": low_i, "high": low_i + step * draw(st.integers(0, 50)), "step": step}
        elif kind == "intlog":
            low_i = draw(st.integers(1, 100))
            spec = {"type": "int", "low": low_i, "high": low_i + draw(st.integers(0, 1000)), "log": True}
        else:
            values = st.one_of(st.booleans(), st.integers(-5, 5), st.text("xyz", max_size=3))
            choices = draw(st.lists(values, min_size=1, max_size=5, unique=True))  # True and 1 are one
            spec = {"type": kind, "choices": choices}
        parents = [n for n, s in table.items() if "choices" in s]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            spec["when"] = {parent: draw(st.sampled_from(table[parent]["choices"]))}
        table[name] = spec
    return SearchSpace.from_dict(table)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_every_sample_is_valid_as_it_stands(space: SearchSpace, seed: int) -> None:
    for params in space.sample(np.random.default_rng(seed), 5):
        assert space.coerce(params) == params


@given(spaces(), st.integers(0, 2**32 - 1))
def test_unit_coordinates_lead_back_to_the_same_configuration(space: SearchSpace, seed: int) -> None:
    for params in space.sample(np.random.default_rng(seed), 5):
        back = space.from_unit(space.to_unit(params))
        assert back.keys() == params.keys()
        for name, value in params.items():
            assert back[name] == (pytest.approx(value, rel=1e-9, abs=1e-6) if isinstance(value, float) else value)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_encoding_stays_in_the_unit_cube(space: SearchSpace, seed: int) -> None:
    X = space.encode(space.sample(np.random.default_rng(seed), 5))
    assert X.shape == (5, sum(len(g) for g in space.groups))
    assert ((X >= 0) & (X <= 1)).all()


@given(spaces())
def test_a_space_survives_json(space: SearchSpace) -> None:
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.revision == space.revision


@given(spaces(), st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_coerce_never_raises_and_never_lets_junk_through(space: SearchSpace, junk: object) -> None:
    raw = dict.fromkeys(space.names, junk)
    params = space.coerce(raw)
    if not isinstance(params, InvalidParams):
        for name, value in params.items():
            assert space[name].check(value) is None


def test_a_valid_configuration_is_returned_unchanged(space: SearchSpace) -> None:
    assert space.coerce(GOOD) == GOOD


def test_a_number_of_equal_value_gets_the_type_of_the_space(space: SearchSpace) -> None:
    params = space.coerce({**GOOD, "layers": 3.0, "momentum": 0})
    assert params == {**GOOD, "layers": 3, "momentum": 0.0}
    assert isinstance(params, dict)
    assert type(params["layers"]) is int
    assert type(params["momentum"]) is float


@pytest.mark.parametrize(
    "change, words",
    [
        ({"lr": 0.2}, ["lr = 0.2", "out of range", "0.1"]),
        ({"lr": "0.01"}, ["lr = '0.01'", "not a number"]),
        ({"lr": True}, ["lr = True", "not a number"]),
        ({"lr": math.nan}, ["lr = nan", "not finite"]),
        ({"lr": None}, ["lr = None"]),
        ({"layers": 2.5}, ["layers = 2.5", "not an integer"]),
        ({"layers": True}, ["layers = True"]),
        ({"layers": 10**400}, ["layers", "out of range"]),
        ({"momentum": 0.15}, ["momentum = 0.15", "grid", "steps of 0.1"]),
        ({"optimizer": "lion"}, ["optimizer = 'lion'", "'sgd', 'adam', 'rmsprop'"]),
        ({"nesterov": 1}, ["nesterov = 1", "True, False"]),
        ({"batch_size": 48}, ["batch_size = 48", "16, 32, 64"]),
        ({"dropout": 0.5}, ["unknown parameter 'dropout'", "lr"]),
        ({"optimizer": "adam"}, ["momentum = 0.9", "only when optimizer = 'sgd'"]),
    ],
)
def test_what_does_not_fit_is_named(space: SearchSpace, change: dict[str, object], words: list[str]) -> None:
    problems = space.coerce({**GOOD, **change})
    assert isinstance(problems, InvalidParams)
    for word in words:
        assert word in str(problems)


def test_a_missing_parameter_is_named(space: SearchSpace) -> None:
    problems = space.coerce({k: v for k, v in GOOD.items() if k != "lr"})
    assert "missing parameter 'lr'" in str(problems)


def test_all_violations_are_named_at_once(space: SearchSpace) -> None:
    problems = space.coerce({**GOOD, "lr": 7, "layers": 9, "x": 1})
    assert isinstance(problems, InvalidParams)
    assert len(problems.problems) == 3


def test_children_of_an_invalid_parent_are_not_blamed(space: SearchSpace) -> None:
    problems = space.coerce({**GOOD, "optimizer": "lion"})
    assert isinstance(problems, InvalidParams)
    assert len(problems.problems) == 1


def test_inactive_parameters_may_be_absent_or_null(space: SearchSpace) -> None:
    adam = {"lr": 0.01, "optimizer": "adam", "batch_size": 32, "layers": 2}
    assert space.coerce(adam) == adam
    assert space.coerce({**adam, "momentum": None, "nesterov": None}) == adam


def test_something_else_than_an_object_is_refused(space: SearchSpace) -> None:
    assert "list" in str(space.coerce([1, 2]))


def test_conditions_nest() -> None:
    space = SearchSpace.from_dict(
        {
            "a": {"type": "categorical", "choices": ["x", "y"]},
            "b": {"type": "int", "low": 1, "high": 3, "when": {"a": "x"}},
            "c": {"type": "float", "low": 0, "high": 1, "when": {"b": [2, 3]}},
        }
    )
    assert space.coerce({"a": "y"}) == {"a": "y"}
    assert space.coerce({"a": "x", "b": 1}) == {"a": "x", "b": 1}
    assert "missing parameter 'c'" in str(space.coerce({"a": "x", "b": 2}))
    assert "'c'" not in str(space.coerce({"a": "y"}))


def test_a_condition_may_stand_before_its_parent() -> None:
    space = SearchSpace.from_dict(
        {
            "c": {"type": "float", "low": 0, "high": 1, "when": {"a": "x"}},
            "a": {"type": "categorical", "choices": ["x", "y"]},
        }
    )
    assert space.coerce({"a": "x", "c": 0.5}) == {"c": 0.5, "a": "x"}


def test_the_default_uses_declared_values_and_middles(space: SearchSpace) -> None:
    default = space.default()
    assert space.coerce(default) == default
    assert default["lr"] == 0.01
    assert default["batch_size"] == 32
    assert default["momentum"] in (0.4, 0.5)


def test_the_revision_ignores_words_and_sees_ranges(space: SearchSpace) -> None:
    table = space.to_dict()
    table["lr"]["doc"] = "another text"
    table["lr"]["default"] = 0.02
    assert SearchSpace.from_dict(table).revision == space.revision
    table["lr"]["high"] = 0.2
    assert SearchSpace.from_dict(table).revision != space.revision


def test_distributions_go_to_optuna_and_back(space: SearchSpace) -> None:
    distributions = space.to_optuna()
    assert distributions["lr"] == FloatDistribution(1e-5, 0.1, log=True)
    assert distributions["momentum"] == FloatDistribution(0.0, 0.9, step=0.1)
    assert distributions["layers"] == IntDistribution(1, 4)
    assert distributions["batch_size"] == CategoricalDistribution([16, 32, 64])
    assert SearchSpace.from_optuna(distributions).to_optuna() == distributions


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize("table", ["space", ""])
def test_a_space_is_read_from_a_file(tmp_path: Path, suffix: str, table: str) -> None:
    spec = {"lr": {"type": "float", "low": 0.1, "high": 1.0}}
    path = tmp_path / f"space.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps({table: spec} if table else spec))
    else:
        path.write_text(f"[{table + '.' if table else ''}lr]\ntype = 'float'\nlow = 0.1\nhigh = 1.0\n")
    assert SearchSpace.from_file(path) == SearchSpace.from_dict(spec)


@pytest.mark.parametrize("content, suffix", [("{", "json"), ("a = ", "toml"), ("[1]", "json"), ("", "yaml")])
def test_a_bad_file_is_named(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"space.{suffix}"
    path.write_text(content)
    with pytest.raises(SpaceError, match=str(path)):
        SearchSpace.from_file(path)


FLOAT = {"type": "float", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    "table, words",
    [
        ({}, ["empty"]),
        ({"a": {"type": "real"}}, ["'a'", "'real'", "float, int"]),
        ({"a": {"type": "float", "low": 2.0, "high": 1.0}}, ["'a'", "2.0", "swap"]),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, ["low = 0.0", "low > 0"]),
        ({"a": {"type": "float", "low": -1, "high": 1.0, "log": True}}, ["low = -1", "low > 0"]),
        ({"a": {"type": "float", "low": 0.1, "high": 1.0, "log": True, "step": 0.1}}, ["step", "log"]),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.3}}, ["high = 1.0", "0.3"]),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "step": 0}}, ["step = 0"]),
        ({"a": {"type": "int", "low": 0.5, "high": 2}}, ["low = 0.5", "integer"]),
        ({"a": {"type": "float", "low": 0.0}}, ["'high' is missing"]),
        ({"a": {"type": "float", "low": math.inf, "high": 1}}, ["inf"]),
        ({"a": {**FLOAT, "default": 2.0}}, ["'a'", "default", "2.0"]),
        ({"a": {**FLOAT, "defualt": 0.5}}, ["'defualt'", "default"]),
        ({"a": {**FLOAT, "doc": 3}}, ["doc = 3"]),
        ({"a": {**FLOAT, "when": "b"}}, ["when = 'b'"]),
        ({"a": {**FLOAT, "when": {"b": "x"}}}, ["'a'", "'b'", "not in the space"]),
        ({"a": {**FLOAT, "when": {"b": []}}}, ["when.b"]),
        ({"a": {"type": "categorical", "choices": []}}, ["choices = []"]),
        ({"a": {"type": "categorical", "choices": ["x", "x"]}}, ["twice"]),
        ({"a": {"type": "categorical", "choices": [[1]]}}, ["[1]"]),
        ({"a": {"type": "categorical", "choices": [1, True]}}, ["1 and True", "as a string"]),
        ({"a": {"type": "ordinal", "choices": [0, 1, 1.0]}}, ["1 and 1.0", "as a string"]),
        ({"a": {"type": "categorical", "choices": [10**400]}}, ["1329 bits", "as a string"]),
        ({"a": {"type": ["float"]}}, ["['float']", "float, int"]),
        ({"a": {**FLOAT, 1: 2, "x": 3}}, ["'x', 1"]),
        ({"a": {**FLOAT, "low": None}}, ["'low' is missing"]),
        ({"a": {**FLOAT, "high": 10**400}}, ["high = an integer of 1329 bits", "1e+300"]),
        ({"a": {"type": "float", "low": -1e308, "high": 1e308}}, ["low = -1e+308", "give one from -1e+300"]),
        ({"a": {"type": "int", "low": 0, "high": 10**19}}, [f"high = {10**19}", "9.0072e+15"]),
        ({"a": {"type": "int", "low": 0, "high": 5, "step": 2}}, ["high = 5", "not reached", "steps of 2"]),
        ({"a": {**FLOAT, "step": 1e-12}}, ["step = 1e-12", "too fine", "leave it out"]),
        (
            {"a": {"type": "float", "low": 0.1234567890123456, "high": 100.1234567890123456, "step": 0.1}},
            ["low = 0.1234567890123456", "too many digits", "round"],
        ),
        ({"a": {**FLOAT, "default": None}}, ["default", "None"]),
        ({3: FLOAT}, ["3", "not a string"]),
        (None, ["NoneType", "table"]),
        ([FLOAT], ["list", "table"]),
        ({"a{b}": FLOAT}, ["a{b}", "rename"]),
        (
            {
                "a": {"type": "int", "low": 0, "high": 1, "when": {"b": 1}},
                "b": {"type": "int", "low": 0, "high": 1, "when": {"a": 1}},
            },
            ["'a'", "'b'", "cycle"],
        ),
        ({"a": {"type": "int", "low": 0, "high": 1, "when": {"a": 1}}}, ["'a'", "cycle"]),
        ({"p": FLOAT, "a": {**FLOAT, "when": {"p": 0.5}}}, ["'p'", "a float"]),
        (
            {"p": {"type": "categorical", "choices": ["x"]}, "a": {**FLOAT, "when": {"p": "z"}}},
            ["p = 'z'", "cannot take", "'x'"],
        ),
    ],
)
def test_a_contradictory_space_is_refused(table: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_dict(table)
    for word in words:
        assert word in str(error.value)


def test_a_space_of_something_else_than_params_is_refused() -> None:
    with pytest.raises(SpaceError, match="'lr' is not a Param"):
        SearchSpace({"lr": FLOAT})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "distribution, words",
    [
        (FloatDistribution(-1e308, 1e308), ["low = -1e+308", "1e+300"]),
        (FloatDistribution(0, math.inf), ["high = inf"]),
        (IntDistribution(0, 10**19), ["high = 1000"]),
        (FloatDistribution(0, 1, step=1e-12), ["step = 1e-12", "too fine"]),
        (CategoricalDistribution([1, True]), ["1 and True", "as a string"]),
        (CategoricalDistribution([math.nan]), ["nan", "as a string"]),
    ],
)
def test_an_optuna_distribution_that_cannot_be_recorded_is_refused(
    distribution: FloatDistribution, words: list[str]
) -> None:
    with pytest.raises(SpaceError) as error:
        Param("a", distribution)
    for word in words:
        assert word in str(error.value)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_objects_among_the_choices_of_optuna_are_refused() -> None:
    distribution = CategoricalDistribution([object()])  # type: ignore[list-item]
    with pytest.raises(SpaceError, match="write it as a string"):
        Param("a", distribution)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 1000), st.floats(0, 1))
def test_every_grid_value_is_one_for_optuna(low: float, step: float, count: int, u: float) -> None:
    try:
        param = SearchSpace.from_dict({"a": {"type": "float", "low": low, "high": low + count * step, "step": step}})[
            "a"
        ]
    except SpaceError:
        return
    value = param.from_unit(u)
    assert param.distribution._contains(cast("float", value))
    assert param.check(value) is None
    assert param.cast(value) == value


@given(st.integers(-999, 999), st.integers(1, 999), st.integers(0, 999), st.integers(0, 5), st.floats(0, 1))
def test_the_grid_of_short_decimals_is_exact(low: int, step: int, count: int, digits: int, u: float) -> None:
    first, width = Decimal(low).scaleb(-digits), Decimal(step).scaleb(-digits)
    table = {"type": "float", "low": float(first), "high": float(first + count * width), "step": float(width)}
    value = SearchSpace.from_dict({"a": table})["a"].from_unit(u)
    assert value in {float(first + k * width) for k in range(count + 1)}


def test_a_long_low_is_kept_to_its_last_digit() -> None:
    low = 0.1234567890123456
    space = SearchSpace.from_dict({"c": {"type": "float", "low": low, "high": 0.5234567890123456, "step": 0.1}})
    assert space.coerce({"c": low}) == {"c": low}


def test_rounding_noise_is_moved_to_the_grid() -> None:
    space = SearchSpace.from_dict({"c": {"type": "float", "low": 0, "high": 1, "step": 0.1}})
    assert space.coerce({"c": 0.1 * 3}) == {"c": 0.3}


def test_large_integers_are_compared_exactly() -> None:
    space = SearchSpace.from_dict({"n": {"type": "int", "low": 0, "high": 2**53}})
    assert space.coerce({"n": 2**53}) == {"n": 2**53}
    assert isinstance(space.coerce({"n": 2**53 + 1}), InvalidParams)


def test_integers_that_no_storage_keeps_exactly_are_refused() -> None:
    with pytest.raises(SpaceError, match=str(2**53 + 1)):
        SearchSpace.from_dict({"n": {"type": "int", "low": 0, "high": 2**53 + 1}})


@pytest.mark.parametrize("choices, value", [([0, 1], True), ([False, True], 1)])
def test_a_bool_and_an_equal_integer_do_not_stand_for_each_other(choices: list[object], value: object) -> None:
    space = SearchSpace.from_dict({"n": {"type": "categorical", "choices": choices}})
    assert "not one of its choices" in str(space.coerce({"n": value}))


def test_none_is_a_default_where_it_is_a_choice() -> None:
    table = {"schedule": {"type": "categorical", "choices": ["step", None, "cosine"], "default": None}}
    space = SearchSpace.from_dict(table)
    assert space.has_default
    assert space.default() == {"schedule": None}
    assert space.to_dict() == table


def test_no_default_is_not_a_default_of_none() -> None:
    table = {"schedule": {"type": "categorical", "choices": [None, "cosine"]}}
    space = SearchSpace.from_dict(table)
    assert not space.has_default
    assert not space["schedule"].has_default
    assert space.to_dict() == table


@pytest.mark.parametrize(
    "content",
    [
        '{"lr": {"type": "int", "low": 0, "high": 1}, "lr": {"type": "int", "low": 0, "high": 2}}',
        '{"space": {"a": {"type": "int", "low": 0, "high": 1, "doc": {"lr": 1, "lr": 2}}}}',
    ],
)
def test_a_key_that_stands_twice_in_a_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "space.json"
    path.write_text(content)
    with pytest.raises(SpaceError, match=r"space\.json.*'lr' stands twice"):
        SearchSpace.from_file(path)


def test_duplicate_names_are_refused() -> None:
    param = Param("a", FloatDistribution(0, 1))
    with pytest.raises(SpaceError, match="two parameters are named 'a'"):
        SearchSpace([param, param])


def test_uniform_coordinates_give_each_choice_its_share(space: SearchSpace) -> None:
    sampled = space.sample(np.random.default_rng(0), 3000)
    for name, values in [("layers", [1, 2, 3, 4]), ("batch_size", [16, 32, 64])]:
        counts = [sum(p[name] == v for p in sampled) for v in values]
        assert max(counts) / min(counts) < 1.25

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.agents.reply import read_reply, reply_keys, reply_schema, why_key
from llmhpo.space import SearchSpace

ADAM = {"lr": 0.01, "optimizer": "adam", "batch_size": 32, "layers": 2}
NULLS = {"momentum": None, "nesterov": None}
SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


def reply(*configurations: object) -> str:
    return json.dumps({"configurations": configurations})


def test_a_good_reply_gives_configurations_with_reasons(space: SearchSpace) -> None:
    reading = read_reply(reply({"why": "usual", **ADAM, **NULLS}), space)
    assert reading.configurations == ((ADAM, "usual"),)
    assert reading.problems == ()


def test_inactive_parameters_that_the_model_filled_in_are_left_out(space: SearchSpace) -> None:
    reading = read_reply(reply({**ADAM, "momentum": 0.5, "nesterov": True}), space)
    assert reading.configurations == ((ADAM, ""),)


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{}\n```",
        "Sure! Here you go:\n{}\nGood luck.",
        "<think>maybe {{ or not</think>{}",
        "  {}  ",
    ],
)
def test_prose_fences_and_thoughts_around_one_object_are_tolerated(text: str) -> None:
    body = reply({"x": 0.5})
    assert read_reply(text.replace("{}", body), SPACE).configurations == (({"x": 0.5}, ""),)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("I would rather not.", "no JSON object"),
        ('{"configurations": [{"x": NaN}]}', "NaN is not a JSON number"),
        ('{"configurations": [{"x": Infinity}]}', "Infinity is not a JSON number"),
        ('{"configurations": [{"x": 0.1, "x": 0.2}]}', "'x' stands twice"),
        ('{"configurations": [{"x": 0.1}', "not one JSON object"),
        ('{"configurations": []} {"configurations": []}', "not one JSON object"),
        ("```\n{}\n```\n```\n{}\n```", "2 fenced blocks"),
        ('{"configs": []}', "configurations"),
        ('{"configurations": {"x": 1}}', "configurations"),
        ('{"configurations": [1]}', "configurations.0"),
        ('{"configurations": [{"x": "0.5"}]}', "not a number"),
        ('{"configurations": [{"x": "1_000"}]}', "not a number"),
        ('{"configurations": [{"x": true}]}', "not a number"),
        ('{"configurations": [{"x": 1e999}]}', "x = inf"),
        ('{"configurations": [{"x": 1.5}]}', "out of range"),
        ('{"configurations": [{"х": 0.5}]}', "unknown parameter"),  # a Cyrillic look-alike
        ('{"configurations": [{}]}', "missing parameter 'x'"),
        ('{"configurations": [{"x": ' + "9" * 5000 + "}]}", ""),
        ("[" * 100_000, "no JSON object"),
        ('{"configurations": ' + "[" * 90_000 + "]" * 90_000 + "}", "nested too deeply"),
        ("{" + " " * 300_000 + "}", "300002 characters"),
    ],
)
def test_what_is_wrong_with_a_reply_is_said(text: str, words: str) -> None:
    reading = read_reply(text, SPACE)
    assert reading.configurations == ()
    assert words in " ".join(reading.problems)
    assert reading.problems


def test_the_good_ones_of_a_mixed_reply_are_kept() -> None:
    reading = read_reply(reply({"x": 0.5}, {"x": 7}, {"x": 0.25}), SPACE)
    assert [p["x"] for p, _ in reading.configurations] == [0.5, 0.25]
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("configuration 2: x = 7")


def test_the_list_of_problems_is_bounded() -> None:
    reading = read_reply(reply(*[{"x": 7} for _ in range(1000)]), SPACE)
    assert len(reading.problems) <= 8
    assert all(len(p) <= 200 for p in reading.problems)


def test_reasons_are_capped_and_on_one_line() -> None:
    reading = read_reply(reply({"x": 0.5, "why": "a\nb\x1b[31m" + "c" * 1000}), SPACE)
    (_, why) = reading.configurations[0]
    assert len(why) <= 160
    assert "\n" not in why
    assert "\x1b" not in why


def test_problems_show_choices_as_the_prompt_does() -> None:
    space = SearchSpace.from_dict(
        {
            "c": {"type": "categorical", "choices": ["<none>", "1", 1, None]},
            "d": {"type": "int", "low": 1, "high": 2, "when": {"c": "<none>"}},
        }
    )
    first, second = read_reply(reply({"c": "‹none›"}, {}), space).problems
    takes = r'it takes one of: "\u003cnone\u003e", "1", 1, null'
    assert first == f'configuration 1: c = "‹none›" is not one of its choices; {takes}'
    assert second == f"configuration 2: missing parameter 'c'; {takes}"


def test_a_lone_surrogate_does_no_harm() -> None:
    reading = read_reply('{"configurations": [{"x": 0.5, "why": "\\ud800"}]}', SPACE)
    assert reading.configurations[0][1].encode() is not None


def test_a_parameter_named_why_keeps_its_name() -> None:
    space = SearchSpace.from_dict({"why": {"type": "int", "low": 0, "high": 3}})
    assert why_key(space) == "why_"
    assert read_reply(reply({"why_": "because", "why": 2}), space).configurations == (({"why": 2}, "because"),)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    reading = read_reply(text, SPACE)
    assert reading.configurations == () or "x" in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "why", "y"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=4))
def test_only_valid_configurations_pass(values: list[object]) -> None:
    for params, _ in read_reply(json.dumps({"configurations": values}), SPACE).configurations:
        assert SPACE.coerce(params) == params


def test_the_schema_demands_every_key_and_allows_null_only_for_conditional_ones(space: SearchSpace) -> None:
    schema = json.loads(json.dumps(reply_schema(space, 3, reasons=True)))
    array = schema["properties"]["configurations"]
    item = array["items"]
    assert (array["minItems"], array["maxItems"]) == (3, 3)
    assert item["required"] == ["why", *space.names]
    assert item["additionalProperties"] is False
    assert item["properties"]["lr"] == {"type": "number", "minimum": 1e-5, "maximum": 0.1}
    assert item["properties"]["layers"] == {"type": "integer", "minimum": 1, "maximum": 4}
    assert item["properties"]["momentum"]["anyOf"][1] == {"type": "null"}
    assert item["properties"]["batch_size"] == {"enum": [16, 32, 64]}


def test_the_prompt_lists_the_keys_in_the_order_of_the_schema(space: SearchSpace) -> None:
    assert reply_keys(space, reasons=True) == "why, lr, optimizer, momentum, nesterov, batch_size, layers"

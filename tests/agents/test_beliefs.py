from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from schemas import every_node

from llmhpo.agents.beliefs import beliefs_form, beliefs_schema, read_beliefs
from llmhpo.agents.reply import read_reply, reply_schema
from llmhpo.llm.anthropic_api import supported
from llmhpo.llm.openai_api import strict
from llmhpo.prior import Belief
from llmhpo.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "layers": {"type": "int", "low": 1, "high": 40},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "lion", True]},
        "batch": {"type": "ordinal", "choices": [16, 32, 64, 128]},
        "fixed": {"type": "float", "low": 1.0, "high": 1.0},
    }
)
ADAM = {"lr": 0.01, "layers": 2, "optimizer": "adam", "batch": 32, "fixed": 1.0}


def about(name: str, **said: object) -> dict[str, object]:
    return {"parameter": name, "confidence": 0.8, **said}


def one(kind: str, entry: object) -> tuple[Belief | None, str]:
    """The belief and the problem that come of one entry."""
    prior, problems = read_beliefs({kind: [entry]}, SPACE)  # type: ignore[dict-item,list-item]
    return (prior.beliefs[0] if prior else None), "; ".join(problems)


GOOD = {
    "ranges": [about("lr", low=1e-4, high=1e-3), about("layers", low=2, high=4)],
    "choices": [about("optimizer", likely=["adam", "lion"])],
    "trends": [about("lr", better="lower")],
}


def test_good_beliefs_become_a_prior() -> None:
    stated = read_beliefs(GOOD, SPACE)  # type: ignore[arg-type]
    assert stated.problems == ()
    assert stated.prior is not None
    assert stated.prior.beliefs == (
        Belief("lr", 0.8, 1e-4, 1e-3),
        Belief("layers", 0.8, 2.0, 4.0),
        Belief("optimizer", 0.8, choices=("adam", "lion")),
        Belief("lr", 0.8, better="lower"),
    )


@pytest.mark.parametrize("raw", [None, {}, {"ranges": [], "choices": [], "trends": []}])
def test_no_beliefs_are_none_and_no_problem(raw: None) -> None:
    assert read_beliefs(raw, SPACE) == (None, ())


def test_a_range_is_clipped_to_its_parameter() -> None:
    belief, problem = one("ranges", about("lr", low=-5, high=1e-4))
    assert belief == Belief("lr", 0.8, 1e-5, 1e-4)
    assert problem == ""


def test_a_range_of_numbers_may_speak_about_choices_that_are_numbers() -> None:
    assert one("ranges", about("batch", low=30, high=1e9)) == (Belief("batch", 0.8, choices=(32, 64, 128)), "")


@pytest.mark.parametrize(
    "kind, entry",
    [
        ("ranges", about("lr", low=1e-5, high=0.1)),
        ("ranges", about("layers", low=2, high=40)),
        ("ranges", about("fixed", low=0, high=2)),
        ("trends", about("fixed", better="lower")),
        ("choices", about("batch", likely=[16, 32, 64, 128])),
        ("ranges", {"parameter": "lr", "low": 1e-4, "high": 1e-3, "confidence": 0}),
    ],
)
def test_what_says_nothing_is_left_out_in_silence(kind: str, entry: object) -> None:
    assert one(kind, entry) == (None, "")


@pytest.mark.parametrize(
    "kind, entry, words",
    [
        ("ranges", 7, "is not an object"),
        ("ranges", about("momentum", low=0, high=1), 'unknown parameter "momentum"'),
        ("ranges", {"low": 0, "high": 1}, "unknown parameter null"),
        ("ranges", about("lr", low=1e-3, high=1e-4), "low = 0.001 is above high = 0.0001"),
        ("ranges", about("lr", low=1, high=2), "lr from 1 to 2 holds no value of lr"),
        ("ranges", about("batch", low=1, high=2), "batch from 1 to 2 holds no value of batch"),
        ("ranges", about("optimizer", low=0, high=1), "holds no value of optimizer"),
        ("ranges", about("lr", low="0.1", high=1), 'low = "0.1" is not a finite number'),
        ("ranges", about("lr", low=True, high=1), "low = true is not a finite number"),
        ("ranges", about("lr", low=0), "high = null is not a finite number"),
        ("ranges", about("lr", low=0, high=float("inf")), "high = Infinity is not a finite number"),
        ("ranges", about("lr", low=float("nan"), high=1), "low = NaN is not a finite number"),
        ("ranges", about("lr", low=0, high=10**400), "high = a huge integer is not a finite number"),
        ("ranges", {**about("lr", low=0, high=1e-3), "confidence": 2}, "confidence = 2 is not a number from 0 to 1"),
        ("ranges", {**about("lr", low=0, high=1e-3), "confidence": "high"}, 'confidence = "high"'),
        ("choices", about("lr", likely=[0.1]), "lr is a number; give a range"),
        ("choices", about("optimizer", likely=[]), "likely is not a list of choices"),
        ("choices", about("optimizer", likely="adam"), "likely is not a list of choices"),
        ("choices", about("optimizer", likely=["adamw"]), '"adamw" is not a choice of optimizer'),
        ("choices", about("optimizer", likely=[1]), "1 is not a choice of optimizer"),
        ("choices", about("optimizer", likely=[["adam"]]), "a list is not a choice of optimizer"),
        ("trends", about("lr", better="both"), 'better = "both" is neither "lower" nor "higher"'),
        ("trends", about("optimizer", better="lower"), "the choices of optimizer have no order"),
    ],
)  # fmt: skip
def test_a_bad_entry_is_left_out_and_named(kind: str, entry: object, words: str) -> None:
    belief, problem = one(kind, entry)
    assert belief is None
    assert words in problem
    assert problem.startswith(f"beliefs: {kind} 1: ")


def test_an_unknown_choice_leaves_the_known_ones() -> None:
    belief, problem = one("choices", about("optimizer", likely=["adamw", "lion", "adam"]))
    assert belief == Belief("optimizer", 0.8, choices=("adam", "lion"))
    assert problem == 'beliefs: choices 1: "adamw" is not a choice of optimizer'


@pytest.mark.parametrize("raw", [[], "lr", {"ranges": {"lr": [0, 1]}}, {"priors": []}])
def test_another_form_is_named(raw: object) -> None:
    prior, problems = read_beliefs(raw, SPACE)  # type: ignore[arg-type]
    assert prior is None
    assert len(problems) == 1


def test_of_two_entries_at_odds_neither_counts() -> None:
    both = [about("lr", better="lower"), about("lr", better="higher"), about("layers", better="lower")]
    prior, problems = read_beliefs({"trends": both}, SPACE)  # type: ignore[dict-item]
    assert prior is not None
    assert [b.parameter for b in prior.beliefs] == ["layers"]
    assert problems == ("beliefs: trends: two different entries about lr; neither counts",)


def test_an_entry_that_stands_twice_counts_once() -> None:
    prior, problems = read_beliefs({"trends": [about("lr", better="lower")] * 3}, SPACE)  # type: ignore[dict-item]
    assert prior is not None
    assert len(prior.beliefs) == 1
    assert problems == ()


def test_the_list_of_problems_is_bounded() -> None:
    _, problems = read_beliefs({"ranges": ["x" * 5000] * 1000 + [about("y" * 5000)]}, SPACE)  # type: ignore[dict-item]
    assert len(problems) <= 4
    assert all(len(p) <= 200 for p in problems)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["adam", "lower", "lr", "¿"])
names = st.sampled_from([*SPACE.names, "¿"])
entries = st.fixed_dictionaries(
    {"parameter": names | scalars},
    optional={
        "low": scalars | st.floats(0, 50),
        "high": scalars | st.floats(0, 50),
        "likely": st.lists(scalars | st.sampled_from([16, 32]), max_size=4) | scalars,
        "better": scalars | st.sampled_from(["lower", "higher"]),
        "confidence": scalars | st.floats(0, 1),
    },
)
stated = st.dictionaries(
    st.sampled_from(["ranges", "choices", "trends", "other"]), st.lists(entries | scalars, max_size=5) | scalars
)


@settings(deadline=None)
@given(stated | scalars | st.lists(entries, max_size=3))
def test_no_beliefs_break_the_reader_and_all_that_it_reads_makes_a_density(raw: object) -> None:
    prior, _ = read_beliefs(raw, SPACE)  # type: ignore[arg-type]
    if prior is not None:
        U = np.random.default_rng(0).random((200, len(SPACE)))
        assert np.isfinite(prior.log_density(SPACE, U)).all()
        assert all(b.informs(SPACE[b.parameter]) for b in prior.beliefs)


@settings(deadline=None)
@given((stated | scalars).filter(lambda raw: "NaN" not in json.dumps(raw) and "Infinity" not in json.dumps(raw)))
def test_bad_beliefs_never_void_the_configurations(raw: object) -> None:
    text = json.dumps({"configurations": [ADAM], "beliefs": raw})
    assert read_reply(text, SPACE).configurations == ((ADAM, ""),)


# The schema


def test_the_schema_is_closed_and_knows_neither_optional_keys_nor_null() -> None:
    schema = beliefs_schema(SPACE)
    assert schema is not None
    for node in every_node(schema):
        assert "anyOf" not in node
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])  # type: ignore[call-overload]
            assert node["additionalProperties"] is False


def test_the_schema_offers_each_list_what_belongs_there() -> None:
    lists = json.loads(json.dumps(beliefs_schema(SPACE)))["properties"]
    of = {kind: node["items"]["properties"]["parameter"]["enum"] for kind, node in lists.items()}
    assert of == {"ranges": ["lr", "layers"], "choices": ["optimizer", "batch"], "trends": ["lr", "layers", "batch"]}
    assert lists["choices"]["items"]["properties"]["likely"]["items"]["enum"] == [
        "sgd",
        "adam",
        "lion",
        True,
        16,
        32,
        64,
        128,
    ]


def test_openai_is_sent_a_type_beside_every_enum() -> None:
    nodes = list(every_node(strict(reply_schema(SPACE, 2, reasons=True, beliefs=True))))
    assert all("type" in node for node in nodes)


def test_anthropic_is_sent_no_bounds() -> None:
    nodes = list(every_node(supported(reply_schema(SPACE, 2, reasons=True, beliefs=True))))
    assert not any({"minimum", "maximum", "maxItems"} & node.keys() for node in nodes)


def test_a_grammar_of_the_schema_takes_a_good_reply() -> None:
    schema = reply_schema(SPACE, 1, reasons=False, beliefs=True)
    tokens = LLTokenizer("byte")
    matcher = LLMatcher(tokens, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    text = json.dumps({"configurations": [{**ADAM, "fixed": 1}], "beliefs": GOOD_IN_ORDER})
    ids = tokens.tokenize_str(text)
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.is_accepting()


GOOD_IN_ORDER = {
    kind: [{"parameter": e["parameter"], **{k: e[k] for k in e if k not in ("parameter", "confidence")}, "confidence": 0.8} for e in entries]
    for kind, entries in GOOD.items()
}  # fmt: skip


def test_a_space_about_which_nothing_can_be_said_is_not_asked_about() -> None:
    space = SearchSpace.from_dict({"id": {"type": "categorical", "choices": [f"run {i}" for i in range(200)]}})
    assert beliefs_schema(space) is None


def test_the_form_shows_the_lists_of_the_schema() -> None:
    space = SearchSpace.from_dict({"c": {"type": "categorical", "choices": ["a", "b"]}})
    assert '"choices"' in beliefs_form(space)
    assert '"ranges"' not in beliefs_form(space)
    assert '"trends"' not in beliefs_form(space)

"""Knowledge cards: found by a task's words, quoted with their source, and evaluated."""

from __future__ import annotations

import math
import re

import pytest

from llmhpo.cards import Card, cards, find_cards, formulas, knowledge
from llmhpo.errors import ConfigError
from llmhpo.param import param_from_dict
from llmhpo.prompts import rough_tokens

CARDS = list(cards().values())


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
def test_a_card_names_its_source_and_reads_in_a_moment(card: Card) -> None:
    assert re.search(r"arXiv:\d{4}\.\d{5}|documentation|\d{4}", card.source)
    assert card.title
    assert len(card.words) >= 5
    assert all(line.startswith("- ") for line in card.text.splitlines())
    assert rough_tokens(card.text) < 400


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.name)
def test_a_card_s_ranges_are_parameters_of_a_space(card: Card) -> None:
    for name, table in card.ranges.items():
        assert table["low"] < table["high"]
        bounds = {key: value for key, value in table.items() if key != "default"}
        kind = "int" if isinstance(table["low"], int) and isinstance(table["high"], int) else "float"
        param_from_dict(name, {"type": kind, **bounds})


@pytest.mark.parametrize("name", formulas())
def test_a_formula_uses_its_inputs_and_no_other_names(name: str) -> None:
    card = cards()[name]
    used = {word for text in card.outputs.values() for word in re.findall(r"[a-z][a-z_0-9]*", text)}
    assert used - {"min", "max", "sqrt", "log"} == set(card.inputs)
    assert card.holds


def test_step_law_gives_the_figures_of_its_paper() -> None:
    found = cards()["step-law"].evaluate({"params": 1e9, "tokens": 1e11})
    assert math.isclose(found["learning_rate"], 1.79 * 1e9**-0.713 * 1e11**0.307)
    assert 1e6 < found["batch_tokens"] < 1.2e6


def test_power_lines_weight_decay_gives_back_its_own_timescale() -> None:
    given = {"params": 1e8, "tokens": 2e9, "batch_tokens": 4e5, "learning_rate": 1e-3}
    found = cards()["power-lines"].evaluate(given)
    timescale = given["batch_tokens"] / (given["learning_rate"] * found["weight_decay"] * given["tokens"])
    assert math.isclose(timescale, found["timescale"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"params": 1e9}, "needs tokens"),
        ({"params": 1e9, "tokens": 1e9, "heads": 4.0}, "'heads' is not an input"),
        ({"params": -1.0, "tokens": 1e9}, "params=-1.0 is not a positive number"),
        ({"params": math.nan, "tokens": 1e9}, "params=nan"),
    ],
)
def test_what_a_formula_cannot_use_is_named_with_the_remedy(values: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cards()["step-law"].evaluate(values)


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ConfigError, match="no finite value"):
        cards()["warmup"].evaluate({"beta2": 1.0, "steps": 100.0})


def test_a_card_without_a_formula_says_which_have_one() -> None:
    with pytest.raises(ConfigError, match="step-law"):
        cards()["xgboost"].evaluate({})


@pytest.mark.parametrize(
    ("task", "first"),
    [
        ("Tune an XGBoost classifier on a CSV of customer churn", "xgboost"),
        ("fine-tune BERT on MNLI", "transformer-finetuning"),
        ("train a small GPT language model from scratch on 2B tokens", "step-law"),
        ("an RBF SVM on breast cancer", "svm"),
        ("ResNet on CIFAR-10 with SGD", "cnn"),
        ("LoRA instruction tuning of Llama", "lora"),
        ("PPO on CartPole", "ppo"),
        ("throughput of vLLM under load", "inference-engine"),
        ("classify handwritten digits with a small neural network", "mlp"),
        ("lasso on gene expression", "elastic-net"),
        ("question answering with RAG over manuals", "rag"),
    ],
)
def test_a_task_finds_the_card_that_it_is_about(task: str, first: str) -> None:
    assert find_cards(task)[0].name == first


@pytest.mark.parametrize("task", ["", "a simulation of a chemical reactor", "\ud800 \x00", "die Ausbeute der Anlage"])
def test_a_task_about_something_else_finds_none(task: str) -> None:
    assert find_cards(task) == []


@pytest.mark.parametrize("max_tokens", [0, 60, 150, 300, 900])
def test_knowledge_keeps_to_its_tokens_and_quotes_whole_lines(max_tokens: int) -> None:
    text = knowledge("LoRA instruction tuning of Llama", max_tokens)
    assert rough_tokens(text) <= max_tokens
    card = cards()["lora"]
    lines = text.splitlines()
    assert lines[1:] == card.text.splitlines()[: max(0, len(lines) - 1)]
    assert not lines or card.source in lines[0]

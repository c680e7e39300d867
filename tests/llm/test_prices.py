"""The table of prices."""

from __future__ import annotations

import datetime
import tomllib
from importlib import resources

import pytest

from llmhpo.llm import ANTHROPIC_DEFAULT, OPENAI_DEFAULT
from llmhpo.llm.prices import price_of

TABLE = tomllib.loads(resources.files("llmhpo.llm").joinpath("prices.toml").read_text(encoding="utf-8"))
ROWS = [(p, m) for p, models in TABLE.items() if isinstance(models, dict) for m in models]


@pytest.mark.parametrize("name", [f"openai:{OPENAI_DEFAULT}", f"anthropic:{ANTHROPIC_DEFAULT}"])
def test_a_default_model_has_a_price(name: str) -> None:
    assert price_of(name) is not None


@pytest.mark.parametrize("name", ["openai:no-such-model", "nobody:gpt-5", "openai:", "gpt-5", "", "as_of:2", "local:x"])
def test_a_model_that_is_not_listed_has_no_known_price(name: str) -> None:
    assert price_of(name) is None


@pytest.mark.parametrize("name", ["openai:gpt-5-mini-2025-08-07", "anthropic:claude-haiku-4-5-20251001"])
def test_a_dated_snapshot_costs_what_its_model_costs(name: str) -> None:
    model = name.removesuffix("-2025-08-07").removesuffix("-20251001")
    assert price_of(name) == price_of(model) is not None


@pytest.mark.parametrize(("provider", "model"), ROWS)
def test_cached_input_costs_less_than_input_and_input_less_than_output(provider: str, model: str) -> None:
    price = price_of(f"{provider}:{model}")
    assert price is not None
    assert price.cached is not None
    assert 0 < price.cached < price.input < price.output


@pytest.mark.parametrize(("provider", "model"), ROWS)
def test_a_price_says_how_old_it_is_and_where_it_is_from(provider: str, model: str) -> None:
    row = TABLE[provider][model]
    assert datetime.date(2026, 1, 1) <= datetime.date.fromisoformat(row["as_of"]) <= datetime.date(2100, 1, 1)
    assert len(row["source"]) > 5


def test_a_million_tokens_of_each_kind_cost_what_the_table_says() -> None:
    price = price_of("openai:gpt-5-mini")
    assert price is not None
    assert price.usd(2_000_000, 1_000_000, 1_000_000) == pytest.approx(0.25 + 0.025 + 2.0)

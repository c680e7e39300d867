"""The dated table of prices."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from llmhpo.usage import Price


@cache
def _table() -> dict[str, dict[str, dict[str, float]]]:
    text = resources.files("llmhpo.llm").joinpath("prices.toml").read_text(encoding="utf-8")
    return {provider: models for provider, models in tomllib.loads(text).items() if isinstance(models, dict)}


def price_of(name: str) -> Price | None:
    """The price of "openai:MODEL" or "anthropic:MODEL" at the provider's own service; None where it is not known."""
    provider, _, model = name.partition(":")
    row = _table().get(provider, {}).get(model)
    return None if row is None else Price(row["input"], row["output"], row.get("cached"))

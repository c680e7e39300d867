"""The table of prices, each with its date and source."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from llmhpo.usage import Price

_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")  # gpt-4o-2024-08-06, claude-haiku-4-5-20251001


@cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    text = resources.files("llmhpo.llm").joinpath("prices.toml").read_text(encoding="utf-8")
    return {provider: models for provider, models in tomllib.loads(text).items() if isinstance(models, dict)}


def price_of(name: str) -> Price | None:
    """The price of "openai:MODEL" or "anthropic:MODEL" at the provider's own service; None where it is not known.

    A dated snapshot costs what its model costs.
    """
    provider, _, model = name.partition(":")
    models = _table().get(provider, {})
    row = models.get(model) or models.get(_SNAPSHOT.sub("", model))
    return None if row is None else Price(row["input"], row["output"], row.get("cached"))

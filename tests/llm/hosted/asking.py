"""Requests to the clients of hosted services, and the clients in their three protocols."""

from __future__ import annotations

import pytest

from llmhpo.errors import LLMError
from llmhpo.llm.anthropic_api import anthropic_model
from llmhpo.llm.base import Message, Request
from llmhpo.llm.client import HostedModel
from llmhpo.llm.openai_api import openai_model
from llmhpo.usage import Price

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "lr": {"type": "number", "minimum": 0.001, "maximum": 1.0},
        "maximum": {"type": "integer", "minimum": 1},
    },
    "required": ["lr", "maximum"],
    "additionalProperties": False,
}
MESSAGES = (Message("system", "You tune."), Message("user", "Propose one configuration, as JSON."))


def ask(schema: dict[str, object] | None = SCHEMA, **more: object) -> Request:
    return Request(MESSAGES, schema, **{"deadline_s": 60.0, **more})  # type: ignore[arg-type]


def make(
    style: str, base_url: str | None, model: str = "m", price: Price | None = None, **wishes: object
) -> HostedModel:
    if style == "anthropic":
        return anthropic_model(model, base_url=base_url, price=price, **wishes)
    return openai_model(model, base_url=base_url, price=price, api=style, **wishes)


def error_of(model: HostedModel, request: Request | None = None) -> LLMError:
    with pytest.raises(LLMError) as caught:
        model.complete(request or ask())
    return caught.value

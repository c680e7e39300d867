"""What tests of several models share: a key, the wires, a request, and a consultation about a space of two parameters."""

from __future__ import annotations

import secrets

from llmhpo.agents.consult import Consultant
from llmhpo.agents.questions import warmstart
from llmhpo.llm.base import LLM, Message, Request
from llmhpo.space import SearchSpace
from llmhpo.trial import Batch, Context, Task
from llmhpo.usage import Caps

KEY = "sk-" + secrets.token_urlsafe(24) + "/+a"
WIRES = {"responses": "openai", "chat": "openai", "anthropic": "anthropic"}
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-3, "high": 1.0, "log": True, "default": 0.1},
        "maximum": {"type": "int", "low": 1, "high": 8},
    }
)


def ask(**more: object) -> Request:
    messages = (Message("system", "You tune."), Message("user", "Propose lr and maximum, as JSON."))
    return Request(messages, **{"max_tokens": 12, "deadline_s": 100.0, **more})  # type: ignore[arg-type]


def consult(model: LLM, deadline_s: float = 100.0) -> Batch:
    context = Context(Task("a small network", "loss", "minimize"), SPACE, budget_left=8)
    return Consultant(model, caps=Caps(), deadline_s=deadline_s).consult(context, warmstart(context, 2, reasons=False))

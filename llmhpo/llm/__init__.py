"""Language models behind one protocol: hosted, local, scripted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from llmhpo.errors import ConfigError
from llmhpo.llm.base import LLM
from llmhpo.usage import Price

OPENAI_DEFAULT = "gpt-5-mini"
ANTHROPIC_DEFAULT = "claude-sonnet-4-5"

_Maker = Callable[[str, str | None, Price | None], LLM]


def make_llm(
    spec: str | LLM | None,
    *,
    base_url: str | None = None,
    price: Price | None = None,
    record: Path | None = None,
) -> LLM | None:
    """The model that `spec` names; None for "none".

    `openai:MODEL`, `anthropic:MODEL`, `local:PATH_OR_HUB_ID`, `smollm2`, `scripted:FILE`, `none`, or `auto` (see
    `resolve_auto`). An `LLM` is returned as it is. `base_url` points a hosted client at another server; `price`
    overrides the table; `record` keeps every exchange in a file.

    Raises: ConfigError for an unknown provider, a missing key, a missing extra, a model that is not there.
    """
    if spec is None:
        return None
    model: LLM | None = _make(spec, base_url, price) if isinstance(spec, str) else spec
    if model is not None and record is not None:
        from llmhpo.llm.scripted import RecordingModel

        return RecordingModel(model, record)
    return model


def _make(spec: str, base_url: str | None, price: Price | None) -> LLM | None:
    spec = resolve_auto() if spec == "auto" else spec
    if spec == "none":
        return None
    provider, _, rest = spec.partition(":")
    maker = _MAKERS.get(provider)
    if maker is None:
        close = difflib.get_close_matches(provider, [*_MAKERS, "none", "auto"], 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"llm = {spec!r}: unknown provider {provider!r}; {hint}known: openai:MODEL, anthropic:MODEL, "
            "local:PATH_OR_HUB_ID, smollm2, scripted:FILE, none, auto"
        )
    needs_name = provider != "smollm2"
    if needs_name != bool(rest):
        raise ConfigError(
            f"llm = {spec!r}: " + (f"name the model, as {provider}:NAME" if needs_name else "smollm2 takes no name")
        )
    return maker(rest, base_url, price)


def resolve_auto() -> str:
    """What "auto" stands for here: a hosted model whose key is set, else smollm2 where it is installed, else "none"."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return f"anthropic:{ANTHROPIC_DEFAULT}"
    if os.environ.get("OPENAI_API_KEY"):
        return f"openai:{OPENAI_DEFAULT}"
    from llmhpo.llm.smollm2 import installed_path

    return "smollm2" if installed_path() else "none"


def _openai(model: str, base_url: str | None, price: Price | None) -> LLM:
    from llmhpo.llm.openai_api import OpenAIModel

    return OpenAIModel(model, base_url=base_url, price=price)


def _anthropic(model: str, base_url: str | None, price: Price | None) -> LLM:
    from llmhpo.llm.anthropic_api import AnthropicModel

    return AnthropicModel(model, base_url=base_url, price=price)


def _local(path_or_id: str, base_url: str | None, price: Price | None) -> LLM:  # noqa: ARG001 - no server, no bill
    from llmhpo.llm.local import LocalModel

    return LocalModel(path_or_id, name=f"local:{path_or_id}")


def _smollm2(_: str, base_url: str | None, price: Price | None) -> LLM:  # noqa: ARG001
    from llmhpo.llm.local import LocalModel
    from llmhpo.llm.smollm2 import installed_path

    path = installed_path()
    if path is None:
        raise ConfigError("llm = 'smollm2': the model is not installed; run: llmhpo model install smollm2")
    return LocalModel(str(path), name="smollm2")


def _scripted(path: str, base_url: str | None, price: Price | None) -> LLM:  # noqa: ARG001
    from llmhpo.llm.scripted import ScriptedModel

    return ScriptedModel.from_file(path)


_MAKERS: dict[str, _Maker] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "local": _local,
    "smollm2": _smollm2,
    "scripted": _scripted,
}

"""Language models behind one protocol: hosted, local, scripted."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmhpo.errors import ConfigError, did_you_mean
from llmhpo.llm.base import LLM
from llmhpo.usage import Price

OPENAI_DEFAULT = "gpt-5.4-mini"
ANTHROPIC_DEFAULT = "claude-sonnet-5-5"

_log = logging.getLogger(__name__)


ModelSpec = str | LLM | Mapping[str, object] | Sequence[str | LLM | Mapping[str, object]] | None
"""A model, or several: its spec; an `LLM`; a mapping with the spec as "model" and options of `make_llm` beside it; a list of these."""


def make_llm(
    spec: ModelSpec,
    *,
    base_url: str | None = None,
    price: Price | None = None,
    record: Path | None = None,
    **options: Any,
) -> LLM | None:
    """The model that `spec` names; None for "none".

    `openai:MODEL`, `anthropic:MODEL`, `local:PATH_OR_HUB_ID`, `smollm2`, `scripted:FILE`, `replay:FILE`, `none`, or `auto` (see
    `resolve_auto`). An `LLM` is returned as it is. A mapping holds the spec as `model` and any of the other arguments, such as
    {"model": "openai:gpt-5-mini", "effort": "high"}. A list is an `Ensemble`: its models share each batch. `base_url` points a hosted client at another server; `price`
    overrides the table for hosted models; `record` keeps every exchange in a file, a
    cassette that `replay:FILE` plays back to the same questions and `scripted:FILE` to any; `options` go to the constructor
    (`default_headers`, `effort`, `thinking_tokens`, `api`, `requests_per_minute` and `tokens_per_minute` of hosted models,
    `device`, `dtype`, `threads`, `thinking_tokens` and `resident` of local ones).

    Raises: ConfigError for an unknown provider, a missing key, a missing extra, a model that is not there.
    """
    if isinstance(spec, Mapping):
        given = {"base_url": base_url, "price": price, "record": record, **options, **spec}
        return _from_mapping(given)
    if isinstance(spec, list | tuple):
        from llmhpo.llm.ensemble import Ensemble

        if base_url is not None or price is not None:
            raise ConfigError(
                "base_url and price are of one model, and llm is a list; give them beside their model, "
                "as {'model': 'openai:NAME', 'base_url': '...'}"
            )
        models = [make_llm(one, record=record, **options) for one in spec]
        if len(models) == 1:
            return models[0]
        return Ensemble([model for model in models if model is not None])
    assert not isinstance(spec, Sequence) or isinstance(spec, str)
    if isinstance(spec, str):
        spec = resolve_auto() if spec == "auto" else spec
        model = None if spec == "none" else _make(spec, base_url, price, options)
    else:
        model = spec
    if model is not None and record is not None:
        from llmhpo.llm.recording import recording

        return recording(model, record)
    return model


def _from_mapping(given: Mapping[str, Any]) -> LLM | None:
    options = {str(name): value for name, value in given.items()}
    spec, record, price = options.pop("model", None), options.pop("record"), options.pop("price")
    if not isinstance(spec, str):
        told = ", ".join(sorted(name for name, value in given.items() if value is not None and name != "model"))
        raise ConfigError(
            f"llm has {told or 'nothing'} and names no model; give its spec as model, such as 'openai:gpt-5-mini'"
        )
    if isinstance(price, Mapping):
        wrong = not {"input", "output"} <= price.keys() <= {"input", "output", "cached"}
        if wrong or not all(isinstance(usd, int | float) and usd >= 0 for usd in price.values()):
            raise ConfigError(
                f"llm: price={dict(price)!r} is not a price; give input and output, and cached if you like, in US dollars "
                "for a million tokens"
            )
        price = Price(**price)
    return make_llm(spec, price=price, record=None if record is None else Path(str(record)), **options)


def resolve_auto() -> str:
    """What "auto" stands for here: a hosted model whose key is set, else smollm2 where it is installed, else "none"."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return f"anthropic:{ANTHROPIC_DEFAULT}"
    if os.environ.get("OPENAI_API_KEY"):
        return f"openai:{OPENAI_DEFAULT}"
    from llmhpo.llm.smollm2 import installed_path

    if installed_path() and find_spec("torch") and find_spec("transformers"):
        return "smollm2"
    if installed_path():  # by another environment of the same user
        _log.warning(
            "llm = 'auto' found smollm2, but not what runs it (pip install 'llmhpo[local]'), and neither ANTHROPIC_API_KEY nor "
            "OPENAI_API_KEY; going on with the classical optimizer alone"
        )
        return "none"
    _log.warning(
        "llm = 'auto' found no model: neither ANTHROPIC_API_KEY nor OPENAI_API_KEY is set, and smollm2 is not installed "
        "(llmhpo model install smollm2); going on with the classical optimizer alone"
    )
    return "none"


def _make(spec: str, base_url: str | None, price: Price | None, options: dict[str, Any]) -> LLM:
    provider, _, rest = spec.partition(":")
    maker = _MAKERS.get(provider)
    if maker is None:
        hint = did_you_mean(provider.lower(), [*_MAKERS, "none", "auto"])
        raise ConfigError(
            f"llm = {spec!r}: unknown provider {provider!r}; {hint}{' ' if hint else ''}known: openai:MODEL, anthropic:MODEL, "
            "local:PATH_OR_HUB_ID, smollm2, scripted:FILE, replay:FILE, none, auto"
        )
    needs_name = provider != "smollm2"
    if needs_name != bool(rest):
        raise ConfigError(
            f"llm = {spec!r}: " + (f"name the model, as {provider}:NAME" if needs_name else "smollm2 takes no name")
        )
    if provider in ("openai", "anthropic"):
        options = {**options, "base_url": base_url, "price": price}
    elif base_url is not None:
        raise ConfigError(f"llm = {spec!r} takes no base_url; leave it out, or name openai:MODEL or anthropic:MODEL")
    _check_options(spec, provider, options)
    return maker(rest, **options)


def _check_options(spec: str, provider: str, options: Mapping[str, object]) -> None:
    known: set[str] = set()
    if provider in ("openai", "anthropic"):
        from llmhpo.llm.client import Wishes

        known = {"base_url", "price", "default_headers", "api_key", *Wishes.__dataclass_fields__}
    elif provider in ("local", "smollm2"):
        from llmhpo.llm.local import LocalModel

        known = set(inspect.signature(LocalModel).parameters) - {"path_or_id", "name"}
    for name in sorted(options.keys() - known):
        shown = ", ".join(sorted(known - {"api_key"})) or "none"  # keys belong into the environment
        hint = did_you_mean(name, known, f"it takes: {shown}")
        raise ConfigError(f"llm = {spec!r} takes no option {name!r}; {hint}")


def _openai(model: str, **options: Any) -> LLM:
    from llmhpo.llm.capabilities import Memory
    from llmhpo.llm.openai_api import openai_model

    return openai_model(model, memory=Memory.of_user(), **options)


def _anthropic(model: str, **options: Any) -> LLM:
    from llmhpo.llm.anthropic_api import anthropic_model
    from llmhpo.llm.capabilities import Memory

    return anthropic_model(model, memory=Memory.of_user(), **options)


def _local(path_or_id: str, **options: Any) -> LLM:
    from llmhpo.llm.local import LocalModel

    return LocalModel(path_or_id, name=f"local:{path_or_id}", **options)


def _smollm2(_: str, **options: Any) -> LLM:
    from llmhpo.llm.local import LocalModel
    from llmhpo.llm.smollm2 import installed_path

    path = installed_path()
    if path is None:
        raise ConfigError("llm = 'smollm2': the model is not installed; run: llmhpo model install smollm2")
    return LocalModel(str(path), name="smollm2", **options)


def _scripted(path: str) -> LLM:
    from llmhpo.llm.scripted import ScriptedModel

    return ScriptedModel.from_file(path)


def _replay(path: str) -> LLM:
    from llmhpo.llm.ensemble import Ensemble
    from llmhpo.llm.replay import replay_models

    models = replay_models(path)
    return models[0] if len(models) == 1 else Ensemble(models)


_MAKERS: dict[str, Callable[..., LLM]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "local": _local,
    "smollm2": _smollm2,
    "scripted": _scripted,
    "replay": _replay,
}

"""From a spec to a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.errors import ConfigError
from llmhpo.llm import ANTHROPIC_DEFAULT, OPENAI_DEFAULT, make_llm, resolve_auto
from llmhpo.llm.base import Message, Request
from llmhpo.llm.recording import RecordingModel
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.llm.smollm2 import GGUF_SHA256
from llmhpo.llm.weights import converted_folder
from llmhpo.usage import Price


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No keys, no servers, an empty cache."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMHPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _smollm2() -> None:
    converted_folder(GGUF_SHA256).mkdir(parents=True)


@pytest.mark.parametrize("spec", [None, "none"])
def test_no_model_is_none(spec: str | None) -> None:
    assert make_llm(spec) is None


def test_a_model_is_returned_as_it_is() -> None:
    model = ScriptedModel([])
    assert make_llm(model) is model


@pytest.mark.parametrize(("spec", "key"), [("openai:m", "OPENAI_API_KEY"), ("anthropic:m", "ANTHROPIC_API_KEY")])
def test_a_hosted_model_has_its_spec_as_name(spec: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key, "x" * 20)
    model = make_llm(spec)
    assert model is not None
    assert (model.name, model.price) == (spec, None)


@pytest.mark.parametrize(("spec", "key"), [("openai:m", "OPENAI_API_KEY"), ("anthropic:m", "ANTHROPIC_API_KEY")])
def test_a_hosted_model_without_a_key_names_the_variable(spec: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        make_llm(spec)


@pytest.mark.parametrize("spec", ["openai:m", "anthropic:m"])
def test_a_server_of_ones_own_needs_no_key_and_has_no_price(spec: str) -> None:
    model = make_llm(spec, base_url="http://127.0.0.1:9/v1")
    assert model is not None
    assert model.price is None


@pytest.mark.parametrize("spec", ["openai:m", "anthropic:m"])
def test_a_given_price_wins(spec: str) -> None:
    model = make_llm(spec, base_url="http://127.0.0.1:9/v1", price=Price(1.0, 2.0))
    assert model is not None
    assert model.price == Price(1.0, 2.0)


@pytest.mark.parametrize("spec", ["openai:gpt-5-mini", "anthropic:claude-haiku-4-5"])
def test_the_table_prices_a_hosted_model(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x" * 20)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x" * 20)
    model = make_llm(spec)
    assert model is not None
    assert model.price is not None


def test_a_scripted_model_answers_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text('"hello"\n')
    model = make_llm(f"scripted:{tmp_path / 'replies.jsonl'}")
    assert model is not None
    assert model.complete(Request((Message("user", "?"),))).text == "hello"


def test_a_recorded_model_writes_to_the_file(tmp_path: Path) -> None:
    model = make_llm(ScriptedModel(["a"]), record=tmp_path / "record.jsonl")
    assert isinstance(model, RecordingModel)
    model.complete(Request((Message("user", "?"),)))
    assert (tmp_path / "record.jsonl").exists()


def test_nothing_is_recorded_where_there_is_no_model(tmp_path: Path) -> None:
    assert make_llm("none", record=tmp_path / "record.jsonl") is None


# Options that cannot be

SERVER = {"base_url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "openai:m", **SERVER, "efort": "high"}, "'openai:m' takes no option 'efort'; did you mean 'effort'"),
        (
            {"model": "openai:m", **SERVER, "xyz": 1},
            "it takes: api, base_url, default_headers, effort, price, requests",
        ),
        ({"model": "smollm2", "efforts": "high"}, "'smollm2' takes no option 'efforts'; it takes: device, dtype,"),
        ({"model": "scripted:x", "effort": "high"}, "takes no option 'effort'; it takes: none"),
        ({"model": "openai:m", **SERVER, "effort": 3}, "effort=3 is no effort"),
        ({"model": "openai:m", **SERVER, "requests_per_minute": "60"}, "requests_per_minute='60' is not a limit"),
        (
            {"model": "openai:m", **SERVER, "price": {"input": "1", "output": 2}},
            "is not a price; give input and output",
        ),
        ({"model": "openai:m", **SERVER, "price": {"input": 1}}, "is not a price; give input and output"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_what_can(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_llm(options)
    assert words in str(caught.value)


@pytest.mark.parametrize("headers", [{"X-Token": 12345678}, "X-Token: 12345678", ["12345678"]])
def test_headers_that_are_none_are_refused_without_being_shown(headers: object) -> None:
    with pytest.raises(ConfigError, match="default_headers") as caught:
        make_llm({"model": "openai:m", **SERVER, "default_headers": headers})
    assert "12345678" not in str(caught.value)


# Specs that cannot be


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("opnai:m", "openai"), ("OpenAI:m", "openai"), ("antropic:m", "anthropic"), ("smolm2", "smollm2")],
)
def test_an_unknown_provider_is_answered_with_a_close_one(spec: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        make_llm(spec)


@pytest.mark.parametrize("spec", ["", ":", "gpt-5", "xyzzy:m"])
def test_an_unknown_provider_is_answered_with_all_of_them(spec: str) -> None:
    with pytest.raises(ConfigError, match="openai:MODEL, anthropic:MODEL") as caught:
        make_llm(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "local", "scripted"])
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_provider_without_a_model_asks_for_one(provider: str, colon: str) -> None:
    with pytest.raises(ConfigError, match="name the model"):
        make_llm(provider + colon)


def test_smollm2_takes_no_name() -> None:
    with pytest.raises(ConfigError, match="takes no name"):
        make_llm("smollm2:large")


def test_smollm2_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="llmhpo model install smollm2"):
        make_llm("smollm2")


@pytest.mark.parametrize("spec", ["local:x", "scripted:x"])
def test_a_model_without_a_server_takes_no_base_url(spec: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        make_llm(spec, base_url="http://127.0.0.1:9")


# auto


def test_auto_takes_anthropic_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x" * 20)
    monkeypatch.setenv("OPENAI_API_KEY", "y" * 20)
    assert resolve_auto() == f"anthropic:{ANTHROPIC_DEFAULT}"


def test_auto_takes_openai_where_only_its_key_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "y" * 20)
    assert resolve_auto() == f"openai:{OPENAI_DEFAULT}"


@pytest.mark.usefixtures("_smollm2")
def test_auto_takes_smollm2_where_there_is_no_key() -> None:
    assert resolve_auto() == "smollm2"


@pytest.mark.usefixtures("_smollm2")
def test_auto_prefers_a_key_to_smollm2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "y" * 20)
    assert resolve_auto() == f"openai:{OPENAI_DEFAULT}"


@pytest.mark.usefixtures("_smollm2")
def test_auto_leaves_a_model_that_nothing_here_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert resolve_auto() == "none"


def test_auto_takes_an_empty_key_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert resolve_auto() == "none"


def test_auto_without_key_and_model_is_no_model() -> None:
    assert make_llm("auto") is None


def test_auto_makes_the_model_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "y" * 20)
    model = make_llm("auto")
    assert model is not None
    assert model.name == f"openai:{OPENAI_DEFAULT}"


# Weight


def test_importing_the_package_loads_no_sdk() -> None:
    heavy = ("openai", "anthropic", "torch", "transformers", "httpx2", "pydantic")
    code = f"import sys, llmhpo.llm; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_resolving_auto_loads_no_sdk() -> None:
    code = "import sys, llmhpo.llm as l; l.resolve_auto(); print([m for m in ('openai', 'anthropic', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

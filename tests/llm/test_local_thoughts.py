"""Models that think before they answer: SmolLM2 under the chat templates of such models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llmhpo.errors import ConfigError
from llmhpo.llm import smollm2
from llmhpo.llm.base import Message, Request
from llmhpo.llm.local import LocalModel
from llmhpo.llm.local.chat import Chat

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = TURNS + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}{# </think> #}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + ASKED
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"optimizer": {"enum": ["adam", "sgd"]}},
    "required": ["optimizer"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def installed() -> Path:
    return smollm2.install(print)


@pytest.fixture(scope="module")
def folder(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with a template that opens a thought."""
    folder = tmp_path_factory.mktemp("thinker") / "model"
    shutil.copytree(installed, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(installed / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(str(installed))
    tokenizer.chat_template = ALWAYS
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def thinker(folder: Path) -> Iterator[LocalModel]:
    model = LocalModel(str(folder), name="thinker", device="cpu", thinking_tokens=12)
    yield model
    model.close()


def chat(installed: Path, template: str, *, thinks: bool) -> tuple[Chat, str, bool]:
    tokenizer = AutoTokenizer.from_pretrained(str(installed))
    tokenizer.chat_template = template
    found = Chat(tokenizer, thinks=thinks)
    prompt = found.prompt((Message("user", "Which?"),))
    return found, tokenizer.decode(prompt.ids), prompt.thinks


@pytest.mark.parametrize("template", [ASKED, ALWAYS])
def test_without_thinking_the_answer_begins_after_an_empty_thought(template: str, installed: Path) -> None:
    _, text, thinks = chat(installed, template, thinks=False)
    assert not thinks
    assert text.endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("template", [ASKED, ALWAYS])
def test_with_thinking_the_reply_begins_within_a_thought(template: str, installed: Path) -> None:
    _, text, thinks = chat(installed, template, thinks=True)
    assert thinks
    assert text.endswith("assistant\n<think>\n")


def test_a_template_without_thoughts_is_left_alone(installed: Path) -> None:
    found, text, thinks = chat(installed, TURNS + "<|im_start|>assistant:", thinks=True)
    assert (found.marks, thinks) == (None, False)
    assert text.endswith("<|im_start|>assistant:")


def test_a_template_that_refuses_a_system_turn_gets_it_in_the_users(installed: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(installed))
    tokenizer.chat_template = REFUSES
    prompt = Chat(tokenizer).prompt((Message("system", "Tune."), Message("user", "Which?")))
    assert "<|im_start|>user\nTune.\n\nWhich?<|im_end|>" in tokenizer.decode(prompt.ids)


def test_a_reply_begun_goes_on_where_it_ends(installed: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(installed))
    prompt = Chat(tokenizer).prompt((Message("user", "How good?"), Message("assistant", "Accuracy: ")))
    assert tokenizer.decode(prompt.ids).endswith("<|im_start|>assistant\nAccuracy: ")


def test_a_thought_at_the_beginning_of_a_free_reply_is_not_shown(installed: Path) -> None:
    found, _, _ = chat(installed, ASKED, thinks=False)
    assert found.without_thoughts("<think>Hm.</think>\n\nadam") == "adam"
    assert found.without_thoughts("adam, not <think>") == "adam, not <think>"


def test_a_thought_ends_with_its_tokens_and_the_answer_holds_the_schema(thinker: LocalModel) -> None:
    done = thinker.complete(Request((Message("user", "Which?"),), SCHEMA))
    assert json.loads(done.text)["optimizer"] in ("adam", "sgd")
    assert 1 <= done.usage.reasoning_tokens <= 12
    assert done.usage.output_tokens > done.usage.reasoning_tokens
    assert done.finish == "stop"


def test_thoughts_are_no_part_of_the_replies_limit(thinker: LocalModel) -> None:
    done = thinker.complete(Request((Message("user", "Tell a story."),), max_tokens=5))
    assert done.usage.output_tokens - done.usage.reasoning_tokens <= 5
    assert "</think>" not in done.text
    assert thinker.overhead_tokens == 12


def test_several_replies_think_each_for_itself(thinker: LocalModel) -> None:
    several = thinker.complete_many(Request((Message("user", "Which?"),), SCHEMA), 3)
    assert all(json.loads(text)["optimizer"] in ("adam", "sgd") for text in several.texts)
    assert 3 <= several.usage.reasoning_tokens <= 36


def test_a_negative_length_of_thought_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="thinking_tokens=-1"):
        LocalModel(str(folder), name="m", thinking_tokens=-1)

"""No key leaves the process in a text."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.llm.redact import Redactor

KEY = "dW5/k+nown~key=23456789"
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)


@given(keys, st.text(max_size=20), st.text(max_size=20))
def test_a_key_is_found_wherever_it_stands(key: str, before: str, after: str) -> None:
    assert key not in Redactor([key])(before + key + after)


@given(keys, st.binary(max_size=8), st.binary(max_size=8))
def test_a_key_inside_base64_leaves_no_more_than_its_ends(key: str, before: bytes, after: bytes) -> None:
    shown = Redactor([key])(base64.b64encode(before + key.encode() + after).decode())
    rest = "".join(re.findall(r"[A-Za-z0-9+/]+", shown.replace("[key]", " ")))
    assert len(rest) <= -(-4 * (len(before) + len(after)) // 3) + 6


@pytest.mark.parametrize(("key", "shown"), [("hunter22", "it is [key]"), ("hunter2", "it is hunter2")])
def test_a_key_so_short_that_it_may_be_a_word_of_the_text_stays(key: str, shown: str) -> None:
    assert Redactor([key])(f"it is {key}") == shown


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY, safe=""),
        quote_plus(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        f"Bearer {KEY}",
        repr({"Authorization": f"Bearer {KEY}"}),
    ],
)
def test_every_form_of_a_key_is_replaced(form: str) -> None:
    shown = Redactor([KEY])(f"before {form} after")
    assert "[key]" in shown
    assert form[8:20] not in shown
    assert shown.startswith("before ")


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcDEF1234567890abcdef",
        "sk-ant-api03-abcDEF1234567890",
        "sk-or-v1-0123456789abcdef",
        "hf_abcdefghijklmnopqrst",
        "gsk_abcdefghijklmnopqrst1",
        "xai-abcdefghijklmnopqrst1",
        "ghp_abcdefghijklmnopqrst1",
        "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "Bearer abc.def.ghi",
        "bearer 0123456789abcdef",
        "sk-abcd****************wxyz",
    ],
)
def test_what_looks_like_a_key_is_replaced_though_nobody_named_it(key: str) -> None:
    assert key.removeprefix("Bearer ").removeprefix("bearer ") not in Redactor()(f"no such key: {key}.")


@pytest.mark.parametrize(
    "text",
    ["learning rate 0.001", "task-sk", "ask-me", "HTTP 401: not allowed", "risk-averse-portfolio-search", "[key]"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor(["none", "EMPTY", ""])(text) == text


def test_a_short_value_is_no_secret() -> None:
    assert Redactor(["none"])("none of it") == "none of it"


def test_the_longer_of_two_keys_goes_whole() -> None:
    assert Redactor(["abcdefgh", "abcdefgh-ijklmnop"])("x abcdefgh-ijklmnop y") == "x [key] y"


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_secret", "DB_PASSWORD", "ANTHROPIC_AUTH_TOKEN"]
)
def test_the_keys_of_the_environment_are_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    assert Redactor.from_environment()(f"see {KEY}") == "see [key]"


def test_other_variables_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FOLDER", "/home/someone/models")
    assert Redactor.from_environment()("/home/someone/models") == "/home/someone/models"


def test_a_redactor_shows_no_key() -> None:
    assert KEY not in repr(Redactor([KEY]))

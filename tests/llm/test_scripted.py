"""Replies from a record, and the record of replies."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from llmhpo.errors import BudgetError, ConfigError, LLMError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.recording import RecordingModel
from llmhpo.llm.scripted import Reply, ScriptedModel
from llmhpo.usage import Price, Usage

QUESTION = (Message("system", "You tune."), Message("user", "Propose."))


def request(number: int = 0) -> Request:
    return Request(QUESTION, number=number)


def script(folder: Path, *lines: str) -> ScriptedModel:
    path = folder / "replies.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ScriptedModel.from_file(path)


# Lines


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"hello"', "hello"),
        ('{"text": "hello"}', "hello"),
        ('{"configurations": [{"lr": 0.1}]}', '{"configurations":[{"lr":0.1}]}'),
        ("{}", "{}"),
    ],
)
def test_a_line_is_a_text_or_a_reply_or_the_reply_itself(tmp_path: Path, line: str, text: str) -> None:
    assert script(tmp_path, line).complete(request()).text == text


def test_a_whole_reply_keeps_finish_usage_and_model(tmp_path: Path) -> None:
    usage = {"calls": 1, "input_tokens": 7, "cached_tokens": 2, "output_tokens": 3, "usd": None}
    line = json.dumps({"text": "t", "finish": "length", "model": "gpt", "usage": usage})
    completion = script(tmp_path, line).complete(request())
    assert completion == Completion("t", Usage(1, 7, 2, 3, None), "gpt", "length")


def test_an_error_line_stands_for_an_unreachable_service(tmp_path: Path) -> None:
    with pytest.raises(LLMUnavailableError, match="no server"):
        script(tmp_path, '{"error": "no server"}').complete(request())


@pytest.mark.parametrize(
    ("kind", "form"),
    [("unavailable", LLMUnavailableError), ("request", LLMRequestError), ("reply", LLMReplyError)],
)
def test_an_error_line_may_name_its_kind(tmp_path: Path, kind: str, form: type[LLMError]) -> None:
    with pytest.raises(LLMError) as caught:
        script(tmp_path, json.dumps({"error": "x", "kind": kind})).complete(request())
    assert type(caught.value) is form


def test_empty_lines_are_no_replies(tmp_path: Path) -> None:
    assert script(tmp_path, "", '"a"', "  ", '"b"').complete(request(1)).text == "b"


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    assert script(tmp_path, '"a\u2028b\x85c"').complete(request()).text == "a\u2028b\x85c"


def test_a_line_may_say_which_request_it_answers(tmp_path: Path) -> None:
    model = script(tmp_path, '{"number": 3, "text": "late"}', '"next"')
    assert [model.complete(request(n)).text for n in (3, 4)] == ["late", "next"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "nonsense",
        "3",
        "null",
        '["a"]',
        "[" * 100_000,
        '{"text": "t", "finish": "done"}',
        '{"text": "t", "finish": null}',
        '{"text": "t", "usage": 3}',
        '{"text": "t", "usage": {"tokens": 3}}',
        '{"text": "t", "usage": {"input_tokens": "many"}}',
        '{"text": "t", "usage": {"input_tokens": -3}}',
        '{"text": "t", "model": 3}',
        '{"text": null}',
        '{"text": "t", "number": -1}',
        '{"text": "t", "number": true}',
        '{"error": "x", "kind": "odd"}',
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        script(tmp_path, '"good"', line)
    assert "replies.jsonl:2" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl"):
        ScriptedModel.from_file(tmp_path / "nowhere.jsonl")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"image\.jsonl"):
        ScriptedModel.from_file(tmp_path / "image.jsonl")


# Replies


def test_the_reply_depends_on_the_number_alone() -> None:
    model = ScriptedModel(["a", "b", "c"])
    assert [model.complete(request(n)).text for n in (2, 0, 2)] == ["c", "a", "c"]


def test_past_its_end_a_script_is_unavailable() -> None:
    with pytest.raises(LLMUnavailableError, match="number 1"):
        ScriptedModel(["a"]).complete(request(1))


def test_an_exception_among_the_replies_is_raised() -> None:
    with pytest.raises(LLMRequestError, match="401"):
        ScriptedModel([LLMRequestError("401")]).complete(request())


def test_a_text_is_charged_by_its_length() -> None:
    usage = ScriptedModel(["x" * 40], price=Price(1.0, 1.0)).complete(request()).usage
    assert (usage.calls, usage.output_tokens) == (1, 10)
    assert usage.usd == pytest.approx(usage.tokens / 1e6)


# Records


@pytest.mark.parametrize(
    "reply",
    [
        "text",
        'U+2028: \u2028, a quote: ", a surrogate: \ud800',
        Completion("cut", Usage(1, 7, 2, 3, 0.5), "gpt", "length"),
        Completion("", Usage(1, 7, 0, 0, None), "gpt", "refusal"),
    ],
)
def test_a_recorded_reply_plays_back_as_it_was(tmp_path: Path, reply: Reply) -> None:
    recorder = RecordingModel(ScriptedModel([reply]), tmp_path / "sub" / "record.jsonl")
    first = recorder.complete(request())
    assert ScriptedModel.from_file(tmp_path / "sub" / "record.jsonl").complete(request()) == first


@pytest.mark.parametrize("form", [LLMUnavailableError, LLMRequestError, LLMReplyError])
def test_a_recorded_error_plays_back_as_it_was(tmp_path: Path, form: type[LLMError]) -> None:
    recorder = RecordingModel(ScriptedModel([form("no")]), tmp_path / "record.jsonl")
    with pytest.raises(form, match="no"):
        recorder.complete(request())
    with pytest.raises(LLMError, match="no") as caught:
        ScriptedModel.from_file(tmp_path / "record.jsonl").complete(request())
    assert type(caught.value) is form


def test_a_request_that_was_never_sent_is_not_played_back_as_a_reply(tmp_path: Path) -> None:
    recorder = RecordingModel(ScriptedModel([BudgetError("cap")]), tmp_path / "record.jsonl")
    with pytest.raises(BudgetError):
        recorder.complete(request())
    with pytest.raises(LLMUnavailableError):
        ScriptedModel.from_file(tmp_path / "record.jsonl").complete(request())


def test_a_resumed_recording_goes_on_at_its_number(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        RecordingModel(ScriptedModel(["a", "b", "c"]), tmp_path / "record.jsonl").complete(request(number))
    replay = ScriptedModel.from_file(tmp_path / "record.jsonl")
    assert [replay.complete(request(n)).text for n in range(3)] == ["a", "b", "c"]


def test_a_record_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = secrets.token_urlsafe(24)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    replies: list[Reply] = [f"my key is {key}", LLMRequestError(f"bad key {key}"), Completion(key, Usage(1), key)]
    recorder = RecordingModel(ScriptedModel(replies), tmp_path / "record.jsonl")
    recorder.complete(Request((Message("user", f"my key is {key}"),)))
    with pytest.raises(LLMRequestError):
        recorder.complete(request(1))
    recorder.complete(request(2))
    written = (tmp_path / "record.jsonl").read_text()
    assert key not in written


def test_a_record_that_cannot_be_written_is_refused_before_the_first_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="record"):
        RecordingModel(ScriptedModel([]), tmp_path / "file" / "record.jsonl")


def test_a_recorder_looks_like_the_model_it_records(tmp_path: Path) -> None:
    model = ScriptedModel(["a"], name="scripted:x", price=Price(1.0, 2.0))
    recorder = RecordingModel(model, tmp_path / "record.jsonl")
    assert (recorder.name, recorder.price, recorder.compact, recorder.overhead_tokens) == (
        model.name,
        model.price,
        model.compact,
        model.overhead_tokens,
    )
    assert recorder.count_tokens("x" * 9) == model.count_tokens("x" * 9)
    recorder.close()

"""Every exchange kept, and played back to the same questions."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import llmhpo
from llmhpo.errors import ConfigError, LLMError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm import make_llm
from llmhpo.llm.base import LLM, Completion, Message, Request, Sampler, Scorer, Scores, Several, TokenLogprob
from llmhpo.llm.ensemble import Ensemble
from llmhpo.llm.recording import RecordingModel, recording
from llmhpo.llm.scripted import Reply, ScriptedModel
from llmhpo.llm.streaming import OnText, Streaming
from llmhpo.usage import Price, Usage

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
QUESTION = "Tune the network.\nIts rate matters most.\nPropose."


def ask(text: str = QUESTION, number: int = 0, **more: object) -> Request:
    return Request((Message("system", "You tune."), Message("user", text)), number=number, **more)  # type: ignore[arg-type]


def record(path: Path, *replies: Reply, requests: int | None = None, name: str = "openai:m") -> None:
    """Ask for every reply once."""
    model = RecordingModel(ScriptedModel(replies, name=name, price=Price(1.0, 2.0, 0.5)), path)
    for number in range(len(replies) if requests is None else requests):
        try:
            model.complete(ask(number=number))
        except LLMError:
            continue


def play(path: Path) -> LLM:
    model = make_llm(f"replay:{path}")
    assert model is not None
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "cassette.jsonl"


@pytest.mark.parametrize(
    "reply",
    [
        "plain",
        'J\u2028S\x85ON {"a": 1}\n',
        Completion("cut", Usage(1, 900, 100, 50, 0.25, 20), "gpt-5-mini", "length", 3.25),
        Completion("", Usage(1, 7, 0, 0, None), "gpt", "refusal"),
        Completion(
            "{}", Usage(1, 7, 0, 2), "m", logprobs=(TokenLogprob("{", -0.25, (("[", -1.5),)), TokenLogprob("}", 0.0))
        ),
    ],
)
def test_a_reply_is_played_back_as_it_was(path: Path, reply: Reply) -> None:
    first = RecordingModel(ScriptedModel([reply]), path).complete(ask())
    assert play(path).complete(ask()) == first


@pytest.mark.parametrize(
    "error",
    [
        LLMUnavailableError("down", retry_after_s=60.0, was_cut_off=True),
        LLMUnavailableError("down"),
        LLMRequestError("no key"),
        LLMReplyError("HTML"),
    ],
)
def test_an_error_is_played_back_as_it_was(path: Path, error: LLMError) -> None:
    record(path, error)
    with pytest.raises(type(error)) as caught:
        play(path).complete(ask())
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


def test_the_player_passes_for_the_model_that_was_recorded(path: Path) -> None:
    record(path, "a")
    model = play(path)
    assert (model.name, model.price, model.compact) == ("openai:m", Price(1.0, 2.0, 0.5), False)


def test_limits_on_tokens_and_time_are_no_part_of_the_question(path: Path) -> None:
    record(path, "a")
    assert play(path).complete(ask(max_tokens=7, deadline_s=1.0)).text == "a"


def test_a_question_that_was_put_twice_is_answered_in_the_order_of_the_record(path: Path) -> None:
    for reply in ("a", "b"):
        record(path, reply)
    model = play(path)
    assert [model.complete(ask()).text for _ in range(3)] == ["a", "b", "b"]


def test_a_resumed_recording_is_one_cassette(path: Path) -> None:
    for number in range(3):
        RecordingModel(ScriptedModel({number: f"reply {number}"}), path).complete(ask(number=number))
    model = play(path)
    assert [model.complete(ask(number=n)).text for n in (2, 0, 1)] == ["reply 2", "reply 0", "reply 1"]


# Models that can do more


class Choir(ScriptedModel):
    """Writes several replies at once, and scores texts, each by what is asked."""

    def complete(self, request: Request) -> Completion:
        return Completion(self._text(request, 0), Usage(1, 90, 0, 9), self.name, seconds=0.25)

    def complete_many(self, request: Request, n: int) -> Several:
        return Several(tuple(self._text(request, k) for k in range(n)), Usage(1, 90, 0, 9 * n), 0.5)

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        rows = tuple((-0.5 * len(text), -request.number / 3) for text in candidates)
        return Scores(rows, Usage(1, 90 + len(candidates)), 0.125)

    def _text(self, request: Request, k: int) -> str:
        return json.dumps({"x": (len(request.messages[-1].content) * 0.618 + request.number * 0.1 + k * 0.37) % 1.0})


class Reader(ScriptedModel):
    """Shows its reply while it writes."""

    def stream(self, request: Request, on_text: OnText) -> Completion:
        on_text("half")
        return self.complete(request)


def test_several_replies_and_scores_are_played_back_as_they_were(path: Path) -> None:
    model = recording(Choir([]), path)
    assert isinstance(model, Sampler)
    assert isinstance(model, Scorer)
    first = (model.complete_many(ask(), 3), model.score(ask(number=1), ["a", "bcd"]), model.complete(ask(number=2)))
    again = play(path)
    assert isinstance(again, Sampler)
    assert isinstance(again, Scorer)
    assert (
        again.complete_many(ask(), 3),
        again.score(ask(number=1), ["a", "bcd"]),
        again.complete(ask(number=2)),
    ) == first


def test_a_streamed_reply_is_kept_as_any_other(path: Path) -> None:
    model = recording(Reader(["whole"]), path)
    assert isinstance(model, Streaming)
    heard: list[str] = []
    assert model.stream(ask(), heard.append).text == play(path).complete(ask()).text == "whole"
    assert heard == ["half"]


@pytest.mark.parametrize(
    "model", [ScriptedModel([]), Choir([]), Reader([]), RecordingModel(ScriptedModel([]), "/dev/null")]
)
def test_a_recorder_can_do_what_its_model_can_and_no_more(path: Path, model: LLM) -> None:
    abilities = [Sampler, Scorer, Streaming]
    kept = recording(model, path)
    assert [isinstance(kept, one) for one in abilities] == [isinstance(model, one) for one in abilities]


def test_other_candidates_and_another_count_are_other_questions(path: Path) -> None:
    model = recording(Choir([]), path)
    assert isinstance(model, Sampler)
    assert isinstance(model, Scorer)
    model.complete_many(ask(), 3)
    model.score(ask(number=1), ["a", "b"])
    again = play(path)
    assert isinstance(again, Sampler)
    assert isinstance(again, Scorer)
    with pytest.raises(LLMRequestError, match="n was 3, and is 4"):
        again.complete_many(ask(), 4)
    with pytest.raises(LLMRequestError, match="candidates was"):
        again.score(ask(number=1), ["a", "c"])
    with pytest.raises(LLMRequestError, match="n was 3, and is null"):
        again.complete(ask())


def test_several_replies_hold_no_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = secrets.token_urlsafe(24)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    model = recording(Choir([]), path)
    assert isinstance(model, Scorer)
    model.score(ask(f"my key is {key}"), [key, "b"])
    monkeypatch.setattr(Choir, "_text", lambda *_: key)
    assert isinstance(model, Sampler)
    model.complete_many(ask(number=1), 2)
    assert key not in path.read_text()


def test_what_only_a_replay_can_play_is_refused_where_it_is_played_loosely(path: Path) -> None:
    model = recording(Choir([]), path)
    assert isinstance(model, Sampler)
    model.complete_many(ask(), 3)
    with pytest.raises(ConfigError, match=r":2: several replies.*replay:FILE"):
        make_llm(f"scripted:{path}")


# What is not on it


def test_a_changed_prompt_is_refused_with_the_first_difference(path: Path) -> None:
    record(path, "a")
    with pytest.raises(LLMRequestError) as caught:
        play(path).complete(ask("Tune the network.\nIts depth matters most.\nPropose."))
    said = str(caught.value)
    assert "message 2 (user), line 2" in said
    assert "rate matters" in said.partition(" was recorded, ")[0]
    assert "depth matters" in said.partition(" was recorded, ")[2]
    assert f"scripted:{path}" in said


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (Request((Message("user", "?"),)), "messages"),
        (ask(schema={"type": "object"}), "schema"),
        (ask(temperature=0.5), "temperature"),
        (ask(temperature=0.0), "temperature"),
        (ask(top_logprobs=3), "top_logprobs"),
    ],
)
def test_another_question_is_refused_with_what_differs(path: Path, asked: Request, word: str) -> None:
    record(path, "a")
    with pytest.raises(LLMRequestError, match="another one than was recorded") as caught:
        play(path).complete(asked)
    assert word.removesuffix("s") in str(caught.value)


def test_a_changed_prompt_is_answered_where_it_is_played_loosely(path: Path) -> None:
    record(path, "a", "b")
    model = make_llm(f"scripted:{path}")
    assert model is not None
    assert [model.complete(ask("Something else.", n)).text for n in range(2)] == ["a", "b"]


def test_the_end_of_a_cassette_says_so(path: Path) -> None:
    record(path, "a", "b")
    with pytest.raises(LLMRequestError, match="it ends with request 1"):
        play(path).complete(ask(number=2))


# Files that are none


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl"):
        play(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_no_cassette(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="holds no exchange"):
        play(tmp_path / "c.jsonl")


def test_replies_alone_are_no_cassette(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match="scripted:FILE"):
        play(tmp_path / "c.jsonl")


def test_a_cassette_of_a_later_format_asks_for_an_upgrade(path: Path) -> None:
    record(path, "a")
    path.write_text(path.read_text().replace('{"cassette": 1', '{"cassette": 2'))
    with pytest.raises(ConfigError, match="upgrade"):
        play(path)


def test_a_line_without_its_header_is_refused(path: Path) -> None:
    record(path, "a")
    path.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(ConfigError, match=":1: no header"):
        play(path)


def test_a_cassette_that_was_cut_names_the_line(path: Path) -> None:
    record(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=":3: is damaged or cut"):
        play(path)


def test_no_damage_changes_a_reply_in_silence(path: Path) -> None:
    record(path, "the reply", LLMRequestError("no"))
    good, rng = path.read_bytes(), random.Random(1)
    for _ in range(300):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            reply = play(path).complete(ask())
        except (ConfigError, LLMRequestError):
            continue
        assert reply.text == "the reply"


# Whole studies


def loss(params: Mapping[str, Any]) -> float:
    return abs(float(params["x"]) - 0.3)


def proposals(k: int, at: float) -> Reply:
    text = json.dumps({"configurations": [{"why": f"guess {i}", "x": at + (k + i) / 100} for i in range(6)]})
    return Completion(text, Usage(1, 1000, 200, 100, 0.002), "m-1", seconds=0.5)


def run(llm: object, **more: object) -> llmhpo.Result:
    return llmhpo.optimize(loss, SPACE, llm=llm, n_trials=14, seed=3, progress=False, **more)  # type: ignore[arg-type]


def sense(result: llmhpo.Result) -> list[object]:
    return [(t.params, t.proposal.source, t.proposal.provenance) for t in result.trials]


def test_a_study_is_played_back_trial_by_trial_with_its_bill(path: Path) -> None:
    model = ScriptedModel([proposals(k, 0.4) for k in range(8)], name="openai:m", price=Price(1.0, 2.0))
    first = run(make_llm(model, record=path))
    again = run(f"replay:{path}")
    assert first.usage.calls >= 2
    assert sense(again) == sense(first)
    assert again.usage == first.usage


def test_a_study_whose_model_samples_and_scores_is_played_back(path: Path) -> None:
    advice = {"proposer": "llambo", "surrogate": "llambo:disc", "candidates": 6}
    first = run(make_llm(Choir([], name="choir"), record=path), advice=advice)
    kept = path.read_text()
    again = run(f"replay:{path}", advice=advice)
    assert '"texts"' in kept
    assert '"scores"' in kept
    assert sense(again) == sense(first)
    assert again.usage == first.usage


@pytest.mark.parametrize("cap", [{"max_tokens": 5500}, {"max_usd": 0.0105}])
def test_a_study_that_a_cap_silenced_is_played_back_to_the_same_end(path: Path, cap: dict[str, float]) -> None:
    model = ScriptedModel([proposals(k, 0.4) for k in range(8)], name="openai:m", price=Price(1.0, 2.0))
    model.overhead_tokens = 4000
    first = run(make_llm(model, record=path), **cap)
    again = run(f"replay:{path}", **cap)
    assert first.usage.calls == 1
    assert sense(again) == sense(first)
    assert again.usage == first.usage


def test_a_study_of_several_models_is_one_cassette(path: Path) -> None:
    models = [ScriptedModel([proposals(k, at) for k in range(9)], name=name) for name, at in (("a", 0.4), ("b", 0.6))]
    first = run(make_llm(models, record=path))
    assert isinstance(play(path), Ensemble)
    again = run(f"replay:{path}")
    assert sense(again) == sense(first)
    assert again.usage == first.usage


def test_a_study_whose_words_changed_goes_on_without_the_cassette_and_says_why(path: Path) -> None:
    run(make_llm(ScriptedModel([proposals(k, 0.4) for k in range(8)]), record=path))
    told: list[str] = []
    result = llmhpo.optimize(
        loss, SPACE, llm=f"replay:{path}", task="another task", n_trials=8, seed=3,
        on_event=lambda e: told.append(e.batch.error) if isinstance(e, llmhpo.events.Consulted) else None,
    )  # fmt: skip
    assert len(result.trials) == 8
    assert "another task" in told[0]

"""LLAMBO and Zhang's prompts as arms: they count what they ask, and go on whatever they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.arms import Arm, make_arm
from evals.arms.llambo import CANDIDATES, INITIAL, ORDERS, SAMPLES, LlamboArm, moments
from evals.arms.models import Meter
from evals.arms.zhang import ATTEMPTS, ZhangArm
from evals.record import Key
from evals.run import first_configuration, run_one
from evals.tasks import MINI, Task, load
from evals.tasks.base import Result
from llmhpo.errors import ConfigError
from llmhpo.llm import make_llm
from llmhpo.llm.base import Completion, Message, Request, Scores, Several
from llmhpo.llm.recording import recording
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.usage import Usage

NUMERIC, CONDITIONAL = "synthetic/branin", "hpob/5527_10101"
NAMES = ("llambo:disc", "llambo:gen", "zhang:chat", "zhang:compressed")
BUDGET = 8


class Conforming(ScriptedModel):
    """Answers every request with a random instance of its schema."""

    def __init__(self) -> None:
        super().__init__([])
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        assert request.schema is not None
        reply = self._instance(request.schema, np.random.default_rng([request.number, 5]))
        self._replies = {request.number: json.dumps(reply)}
        return super().complete(request)

    def _instance(self, schema: Any, rng: np.random.Generator) -> Any:
        if "anyOf" in schema:
            return self._instance(schema["anyOf"][0], rng)
        if "enum" in schema:
            return schema["enum"][rng.integers(len(schema["enum"]))]
        match schema["type"]:
            case "object":
                return {name: self._instance(value, rng) for name, value in schema["properties"].items()}
            case "array":
                return [self._instance(schema["items"], rng) for _ in range(schema["minItems"])]
            case "integer":
                return int(rng.integers(schema["minimum"], schema["maximum"] + 1))
        return float(rng.uniform(schema.get("minimum", -1), schema.get("maximum", 1)))


def task(id_: str) -> Task:
    return load(MINI, "mini", pattern=id_)[0]


def key(id_: str, arm: str, **changes: Any) -> Key:
    fields: dict[str, Any] = {"task": id_, "arm": arm, "seed": 0, "start": "unseeded", "batch": 1, "budget": BUDGET}
    return Key(**{**fields, "anonymous": False, **changes})


def made(name: str, t: Task, model: ScriptedModel) -> Arm:
    kind: Callable[..., Arm] = LlamboArm if name.startswith("llambo") else ZhangArm
    return kind(t, Meter(model, t), name.split(":")[1], 0, BUDGET)


def go(arm: Arm, t: Task, trials: int = BUDGET - 1) -> list[str]:
    """The first configuration is given, the others are asked for. Returns their sources."""
    arm.tell(None, t.evaluate(first_configuration(t, "unseeded", 0)))
    sources = []
    for _ in range(trials):
        asked = arm.ask()
        assert t.space.coerce(asked.params) == asked.params
        arm.tell(asked, t.evaluate(asked.params))
        sources.append(asked.source)
    return sources


@pytest.mark.parametrize("id_", [NUMERIC, CONDITIONAL])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_conforming_model_proposes_is_tried(name: str, id_: str) -> None:
    t = task(id_)
    assert set(go(made(name, t, Conforming()), t)) <= {"warmstart", "llambo", "zhang"}


@pytest.mark.parametrize("name", NAMES)
def test_requests_and_completions_are_counted(name: str) -> None:
    t, model = task(NUMERIC), Conforming()
    arm = made(name, t, model)
    go(arm, t)
    assert arm.usage.calls == arm.completions == len(model.requests)
    assert arm.usage.input_tokens > 0
    expected = BUDGET - 1
    if name.startswith("llambo"):  # one warm start, then candidates, and samples of each
        expected = 1 + (BUDGET - INITIAL) * (CANDIDATES + CANDIDATES * SAMPLES)
    assert len(model.requests) == expected


@pytest.mark.parametrize("id_", [NUMERIC, CONDITIONAL])
@pytest.mark.parametrize("name", NAMES)
def test_garbage_is_survived_by_random_configurations_that_say_so(name: str, id_: str, tmp_path: Path) -> None:
    lines = ["I cannot help with that", '{"configurations": [{"x": 1}, 3]}', '{"score": "high"}', "[]", '{"top": 1}']
    path = tmp_path / "garbage.jsonl"
    path.write_text("\n".join(json.dumps(lines[i % 5]) for i in range(2000)))
    run = run_one(task(id_), key(id_, f"{name}@scripted:{path}"))
    assert run.sources == ["start", *["random"] * (BUDGET - 1)]
    assert not any(run.repeat)
    assert run.requests > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_never_answers_is_survived(name: str) -> None:
    t = task(NUMERIC)
    arm = made(name, t, ScriptedModel([]))
    assert set(go(arm, t)) == {"random"}
    assert arm.completions == 0
    assert arm.usage.calls > 0


@pytest.mark.parametrize("name", NAMES)
def test_failures_and_batches_are_survived(name: str) -> None:
    t = task(NUMERIC)
    arm = made(name, t, Conforming())
    arm.tell(None, Result(None, t.space.default()))
    batch = [arm.ask() for _ in range(3)]
    for asked in batch:
        arm.tell(asked, Result(None, asked.params))
    batch = [arm.ask() for _ in range(2)]
    assert len({t.space.key(a.params) for a in batch}) == 2


def test_llambo_tries_nothing_twice_and_knows_the_rows_of_a_pool() -> None:
    t = task(CONDITIONAL)
    run = made("llambo:gen", t, Conforming())
    first = t.evaluate(first_configuration(t, "unseeded", 0))
    run.tell(None, first)
    rows = [t.space.key(first.params)]
    for _ in range(BUDGET - 1):
        asked = run.ask()
        result = t.evaluate(asked.params)
        assert result.params == asked.params
        rows.append(t.space.key(result.params))
        run.tell(asked, result)
    assert len(set(rows)) == len(rows)


def test_samples_of_a_model_that_writes_several_at_once_are_one_request_on_a_cassette_too(tmp_path: Path) -> None:
    class Choir(Conforming):
        def complete_many(self, request: Request, n: int) -> Several:
            return Several(tuple(f"reply {k}" for k in range(n)), Usage(1, 90, 0, 9))

        def score(self, request: Request, candidates: Sequence[str]) -> Scores:
            raise AssertionError("not asked for")

    request = Request((Message("user", "?"),))
    path = tmp_path / "c.jsonl"
    for make in (Choir, lambda: recording(Choir(), path), lambda: make_llm(f"replay:{path}")):
        model = make()
        assert model is not None
        meter = Meter(model, task(NUMERIC))
        assert meter.sample(request, 3) == ["reply 0", "reply 1", "reply 2"]
        assert meter.usage == Usage(1, 90, 0, 9)


def test_llambos_target_lies_a_tenth_of_the_range_behind_the_best() -> None:
    t = task(NUMERIC)  # to be minimized
    arm = LlamboArm(t, Meter(Conforming(), t), "disc", 0, BUDGET)
    for value, params in zip((3.0, 1.0, 2.0), t.space.sample(np.random.default_rng(0), 3), strict=True):
        arm.tell(None, Result(value, params))
    assert arm._target() == pytest.approx(1.2)


def test_llambo_prefers_the_candidate_of_highest_expected_improvement() -> None:
    t = task(NUMERIC)
    candidates = t.space.sample(np.random.default_rng(0), 4)

    class Sure(Conforming):
        def complete(self, request: Request) -> Completion:
            place = next(i for i, c in enumerate(candidates) if f'"x1": {c["x1"]:.4g}' in _query(request))
            return Completion(json.dumps({"score": [5.0, 4.0, 0.5, 3.0][place]}), super().complete(request).usage, "")

    arm = LlamboArm(t, Meter(Sure(), t), "disc", 0, BUDGET)
    arm.tell(None, Result(2.0, t.space.default()))
    assert int(np.argmax(arm._improvement(candidates))) == 2


def _query(request: Request) -> str:
    return request.messages[0].content.rpartition("Configuration:")[2]


def test_a_candidate_without_predictions_counts_as_average() -> None:
    mean, std = moments([[1.0, 3.0], [], [5.0]])
    assert mean.tolist() == [2.0, 3.5, 5.0]
    assert std.tolist() == [1.0, 0.5, pytest.approx(1e-5)]


def test_llambo_shows_the_observations_in_several_orders() -> None:
    t, model = task(NUMERIC), Conforming()
    arm = made("llambo:disc", t, model)
    go(arm, t, INITIAL)
    seen = {r.messages[0].content.partition("Observations:")[2].rpartition("Predict")[0] for r in model.requests}
    assert len({s for s in seen if s}) == ORDERS


def test_zhangs_chat_grows_by_turns_and_the_compressed_list_does_not() -> None:
    t = task(NUMERIC)
    turns = {}
    for name in ("zhang:chat", "zhang:compressed"):
        model = Conforming()
        go(made(name, t, model), t, 3)
        turns[name] = [len(r.messages) for r in model.requests]
        assert {r.temperature for r in model.requests} == {0.0}
    assert turns == {"zhang:chat": [3, 5, 7], "zhang:compressed": [1, 1, 1]}


def test_zhangs_errors_are_fed_back() -> None:
    t = task(NUMERIC)

    class Stubborn(Conforming):
        def complete(self, request: Request) -> Completion:
            self.requests.append(request)
            return Completion('{"x1": 1000, "x2": 0}', Conforming().complete(request).usage, "")

    model = Stubborn()
    arm = made("zhang:compressed", t, model)
    assert go(arm, t, 1) == ["random"]
    assert [len(r.messages) for r in model.requests] == [1, 3, 5][:ATTEMPTS]
    assert "out of range" in model.requests[-1].messages[-1].content


@pytest.mark.parametrize("name", ["llambo:disc", "zhang:chat@", "llambo:both@scripted:x", "zhang:@none"])
def test_an_arm_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text('"hello"')
    with pytest.raises(ConfigError, match=name.partition("@")[0]):
        make_arm(name.replace("scripted:x", f"scripted:{tmp_path / 'x'}"), task(NUMERIC), 0, BUDGET)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_smollm2_plays_every_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmhpo.llm import smollm2

    smollm2.install(print)
    monkeypatch.setattr("evals.arms.llambo.CANDIDATES", 4)
    monkeypatch.setattr("evals.arms.llambo.ENOUGH", 1)
    monkeypatch.setattr("evals.arms.llambo.SAMPLES", 4)
    run = run_one(task(NUMERIC), key(NUMERIC, f"{name}@smollm2", budget=6))
    assert set(run.sources[1:]) & {"llambo", "zhang"}
    assert run.completions >= run.requests > 0


@pytest.mark.parametrize("batch", [1, 4])
def test_recorded_proposals_are_tried_first_and_handed_to_the_other_arm(batch: int) -> None:
    (task,) = load(MINI, "mini", pattern="hpob/5859_9977")
    run = run_one(task, Key(task.id, "recorded_tpe", 0, "seeded", batch, 16, False))
    tried = run.sources.count("recorded")
    assert run.sources == ["start", *["recorded"] * tried, *["tpe"] * (15 - tried)]
    assert 5 <= tried <= 9  # the first one is where a seeded run starts
    assert not any(run.seen[1 : 1 + tried])


@pytest.mark.parametrize("id_", [NUMERIC, CONDITIONAL])
@pytest.mark.parametrize("way", ["llambo", "llambo-gen", "llambo-ranked", "critic"])
def test_llmhpo_with_advice_is_an_arm_like_others(id_: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Conforming()
    monkeypatch.setattr("evals.arms.shared_model", lambda *_: model)
    done = run_one(task(id_), key(id_, f"{way}@conforming", budget=8))
    assert len(done.values) == 8
    assert done.requests == len(model.requests) > 0
    batch_first = "configurations" in (model.requests[0].schema or {})["properties"]  # type: ignore[operator]
    assert batch_first == (way in ("llambo-ranked", "critic"))
    assert "llm" in done.sources

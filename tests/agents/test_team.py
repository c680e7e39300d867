"""Several models that share the slots of a batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import llmhpo
from llmhpo.agents.quality import needs_short, qualities
from llmhpo.agents.team import _own, records, shared_out
from llmhpo.errors import ConfigError, LLMRequestError, LLMUnavailableError
from llmhpo.llm import make_llm
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.ensemble import Ensemble
from llmhpo.space import SearchSpace
from llmhpo.store import load_study
from llmhpo.store.ledger import batch_from_dict, batch_record
from llmhpo.trial import Batch, Context, Outcome, Part, Proposal, Provenance, Tally, Task, Trial
from llmhpo.usage import Price, Usage

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}


class Voice:
    """A model that proposes x = 0.5 +- what `aim` gives for each configuration, and counts what it is asked."""

    compact = False
    overhead_tokens = 0
    price: Price | None = Price(1.0, 1.0)

    def __init__(self, name: str, aim: Callable[[int], float], *, tokens: int = 100, error: Exception | None = None):
        self.name, self._aim, self._tokens, self._error = name, aim, tokens, error
        self.asked = self._given = 0

    def complete(self, request: Request) -> Completion:
        self.asked += 1
        if self._error is not None:
            raise self._error
        schema = request.schema or {}
        n = schema["properties"]["configurations"]["maxItems"]  # type: ignore[index]
        found = []
        for _ in range(n):
            found.append({"why": "", "x": self._aim(self._given)})
            self._given += 1
        text = json.dumps({"configurations": found})
        return Completion(text, Usage(1, self._tokens * n, 0, 10, 0.001), self.name)

    def count_tokens(self, text: str) -> int:
        return len(text) // 4

    def close(self) -> None:
        return None


def spread(k: int) -> float:
    """Another point each time, none of them good."""
    return 0.6 + 0.3 * ((k * 0.618) % 1.0)


def closer(k: int) -> float:
    """Ever nearer to 0.3."""
    return 0.3 + 0.25 * 0.8**k


def loss(params: Mapping[str, float]) -> float:
    return abs(params["x"] - 0.3)


def run(*voices: Voice, n_trials: int = 16, **more: object) -> llmhpo.Result:
    return llmhpo.optimize(loss, SPACE, llm=list(voices), n_trials=n_trials, seed=1, progress=False, **more)  # type: ignore[arg-type]


def proposers(result: llmhpo.Result) -> set[str]:
    return {p.model for t in result.trials if (p := t.proposal.provenance) is not None}


def test_the_slots_of_a_batch_go_to_different_models(tmp_path: Path) -> None:
    result = run(Voice("a", closer), Voice("b", spread), study_name="s", cwd=tmp_path)
    assert proposers(result) == {"a", "b"}
    context = load_study(str(result.storage), "s")
    assert {part.name for part in context.batches[0].parts} == {"a", "b"}
    assert {p.provenance.model for p in context.batches[0].proposals if p.provenance} == {"a", "b"}
    tallied = {q.origin.model: q for q in qualities(context) if q.origin.model}
    assert set(tallied) == {"a", "b"}
    assert sum(q.usage.tokens for q in tallied.values()) == context.usage.tokens


def test_one_that_is_down_does_not_stop_the_others() -> None:
    down = Voice("down", spread, error=LLMUnavailableError("nothing listens there"))
    result = run(down, Voice("up", closer))
    assert proposers(result) == {"up"}
    assert down.asked > 0


def test_one_that_never_answered_has_a_row_of_its_own(tmp_path: Path) -> None:
    wrong, good = Voice("wrong", spread, error=LLMRequestError("the key is wrong")), Voice("good", closer)
    result = run(wrong, good, study_name="s", cwd=tmp_path)
    context = load_study(str(result.storage), "s")
    (silent,) = [q for q in qualities(context) if q.origin.model == "wrong"]
    assert (silent.consultations, silent.usage.calls, silent.trials, silent.shares["valid"]) == (1, 1, 0, None)
    assert sum(q.usage.calls for q in qualities(context)) == context.usage.calls


def test_one_with_a_wrong_key_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    wrong, good = Voice("wrong", spread, error=LLMRequestError("the key is wrong")), Voice("good", closer)
    run(wrong, good, n_trials=24)
    assert wrong.asked == 1
    assert good.asked > 1


def test_the_slots_of_one_that_fails_go_to_the_next() -> None:
    voice = Voice("up", closer)
    with llmhpo.Study(SPACE, llm=[Voice("down", spread, error=LLMUnavailableError("no")), voice], n_trials=12) as study:
        for _ in range(2):  # the first trial is the default
            study.tell(study.ask()[0], 1.0)
    assert voice.asked == 1


@pytest.mark.parametrize("cap", [{"max_requests": 3}, {"max_tokens": 1500}, {"max_usd": 0.004}])
def test_the_caps_hold_over_all(cap: dict[str, float]) -> None:
    result = run(Voice("a", closer), Voice("b", spread), n_trials=30, **cap)
    usage = result.usage
    assert usage.calls <= cap.get("max_requests", 99)
    assert usage.tokens <= cap.get("max_tokens", 10**6)
    assert (usage.usd or 0) <= cap.get("max_usd", 99)


def test_a_sampler_takes_several(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(
        sampler=llmhpo.LLMSampler([Voice("a", closer), Voice("b", spread)], search_space=SPACE, n_trials=8, seed=1)
    )
    study.optimize(lambda trial: loss({"x": trial.suggest_float("x", 0.0, 1.0)}), n_trials=8)
    assert len(study.trials) == 8


def test_a_study_file_names_several(tmp_path: Path) -> None:
    from llmhpo.config import read_study_file

    (tmp_path / "study.toml").write_text(
        'command = "true {x}"\nmetric = "v"\ndirection = "minimize"\n'
        'llm = ["scripted:a.jsonl", {model = "openai:m", base_url = "http://127.0.0.1:9/v1", effort = "high"}]\n'
        '[space.x]\ntype = "float"\nlow = 0.0\nhigh = 1.0\n'
    )
    config = read_study_file(tmp_path / "study.toml")
    (tmp_path / "a.jsonl").write_text("")
    model = make_llm(config.llm)
    assert isinstance(model, Ensemble)
    assert [m.name for m in model.members] == [f"scripted:{tmp_path / 'a.jsonl'}", "openai:m"]


def test_how_a_model_is_asked_follows_from_its_own_replies() -> None:
    class Asked(Voice):
        def __init__(self, name: str, aim: Callable[[int], float]) -> None:
            super().__init__(name, aim)
            self.forms: list[bool] = []

        def complete(self, request: Request) -> Completion:
            item = (request.schema or {})["properties"]["configurations"]["items"]  # type: ignore[index]
            self.forms.append("why" in item["properties"])
            return super().complete(request)

    able, wrong = Asked("able", closer), Asked("wrong", lambda _: 7.0)  # out of bounds, all of it
    run(wrong, able, n_trials=40)
    assert len(able.forms) > 2
    assert all(able.forms)  # with reasons, as one that can give them


def test_a_fast_model_is_not_slow_beside_a_slow_one_and_one_that_failed_has_not_answered() -> None:
    tally = Tally("fast", "propose.v1", asked=4, offered=4, inside=4, valid=4)
    parts = (
        Part("fast", 0, Usage(1, 10, output_tokens=400), tally, seconds=4.0),
        Part("down", 1, Usage(1), error="no reply", seconds=60.0),
    )
    batches = (
        Batch("propose", 0, 4, seconds=64.0, usage=Usage(2, 10, output_tokens=400), tally=tally, parts=parts),
    ) * 3
    context = Context(Task("", "v", "minimize"), SearchSpace.from_dict(SPACE), (), batches=batches)
    assert not needs_short(_own(context, "fast"), compact=True)
    assert all(batch.error for batch in _own(context, "down").batches)
    assert all(batch.error for batch in _own(context, "never asked").batches)


# Pay-off


def history(hits: Mapping[str, int], tokens: Mapping[str, int]) -> Context:
    """Ten proposals of each model, tried in turn; every hit improves."""
    batches, trials, best = [], [Trial(0, Proposal({"x": 0.9}, "default"), Outcome("ok", 100.0))], 100.0
    for call, name in enumerate(hits):
        found = [
            Proposal({"x": k / 100 + call / 1000}, "llm", "", Provenance("same name", "p.v1", "h", call))
            for k in range(10)
        ]
        used = Usage(1, tokens[name])
        batches.append(Batch("propose", len(trials), 10, tuple(found), used, parts=(Part(name, call, used),)))
        for k, proposal in enumerate(found):
            best -= k < hits[name]
            value = best if k < hits[name] else 100.0
            trials.append(Trial(len(trials), proposal, Outcome("ok", value)))
    return Context(Task("", "v", "minimize"), SearchSpace.from_dict(SPACE), tuple(trials), batches=tuple(batches))


def test_hits_tokens_and_proposals_are_credited_to_who_was_asked_whatever_it_calls_itself() -> None:
    known = records(history({"a": 7, "b": 2}, {"a": 500, "b": 900}), ["a", "b"])
    assert [(r.hits, r.misses, r.proposals, r.tokens) for r in known.values()] == [(7, 3, 10, 500), (2, 8, 10, 900)]


def test_who_improves_more_gets_more_slots() -> None:
    slots = shared_out(history({"a": 9, "b": 0}, {"a": 4000, "b": 4000}), ["a", "b"], 40)
    assert slots["a"] > 30


def test_of_two_that_improve_alike_the_cheaper_gets_more_slots() -> None:
    slots = shared_out(history({"a": 5, "b": 5}, {"a": 40000, "b": 4000}), ["a", "b"], 40)
    assert slots["b"] > 30


def test_who_was_never_asked_gets_a_slot() -> None:
    assert shared_out(history({"a": 9}, {"a": 100}), ["a", "b", "c"], 4)["c"] == 1


def test_the_same_record_gives_the_same_slots() -> None:
    context = history({"a": 5, "b": 5}, {"a": 4000, "b": 4000})
    assert shared_out(context, ["a", "b"], 8) == shared_out(context, ["a", "b"], 8)


def test_a_study_learns_to_ask_who_pays_off() -> None:
    good, bad = Voice("good", closer), Voice("bad", spread, tokens=4000)
    run(good, bad, n_trials=30)
    assert good._given > bad._given


def test_parts_come_back_from_the_store_as_they_were() -> None:
    batch = history({"a": 1}, {"a": 10}).batches[0]
    assert batch_from_dict(batch_record(batch)) == batch


# Lists that cannot be


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        make_llm([Voice("a", closer), Voice("a", closer)])


def test_a_list_of_one_is_that_one() -> None:
    voice = Voice("a", closer)
    assert make_llm([voice]) is voice


def test_base_url_beside_a_list_says_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="beside their model"):
        make_llm(["openai:a", "openai:b"], base_url="http://127.0.0.1:9/v1")


def test_a_mapping_without_a_model_says_so() -> None:
    with pytest.raises(ConfigError, match=r"llm has effort and names no model; give its spec as model"):
        make_llm({"effort": "high"})


def test_a_study_file_without_its_model_says_so(tmp_path: Path) -> None:
    from llmhpo.config import read_study_file

    (tmp_path / "study.toml").write_text(
        'command = "true {x}"\nmetric = "v"\ndirection = "minimize"\n'
        '[llm]\neffort = "high"\n[space.x]\ntype = "float"\nlow = 0.0\nhigh = 1.0\n'
    )
    with pytest.raises(ConfigError, match=r"llm has effort and names no model"):
        make_llm(read_study_file(tmp_path / "study.toml").llm)


def test_an_option_that_a_model_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="loudness"):
        make_llm({"model": "openai:m", "base_url": "http://127.0.0.1:9/v1", "loudness": 3})


def test_a_price_may_stand_in_a_table() -> None:
    model = make_llm({"model": "openai:m", "base_url": "http://127.0.0.1:9/v1", "price": {"input": 1.0, "output": 2.0}})
    assert model is not None
    assert model.price == Price(1.0, 2.0)


# Faces


def test_the_log_of_a_study_with_several_models_replays(tmp_path: Path) -> None:
    from llmhpo.audit import replay, verify
    from llmhpo.store.journal import journal_path

    result = run(Voice("a", closer), Voice("b", spread), study_name="s", cwd=tmp_path)
    log = journal_path(result.storage, "s")
    assert log is not None
    assert list(replay(log).problems) == []
    assert list(verify(log, load_study(str(result.storage), "s"), "s").problems) == []


def test_the_command_line_takes_several_and_show_names_them(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from llmhpo.cli import app

    for name, at in (("a", 0.4), ("b", 0.6)):
        replies = [{"configurations": [{"why": "", "x": at + (k + i) / 100} for i in range(6)]} for k in range(6)]
        lines = (json.dumps({"text": json.dumps(reply), "model": f"model {name}"}) for reply in replies)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "train.py").write_text("import sys; from llmhpo.job import result; result(float(sys.argv[1]))\n")
    (tmp_path / "study.toml").write_text(
        'command = "python train.py {x}"\nmetric = "value"\ndirection = "minimize"\nn_trials = 5\n'
        '[space.x]\ntype = "float"\nlow = 0.0\nhigh = 1.0\ndefault = 0.9\n'
    )
    study, runner = str(tmp_path / "study.toml"), CliRunner()
    specs = [part for name in "ab" for part in ("--llm", f"scripted:{tmp_path / name}.jsonl")]
    done = runner.invoke(app, ["run", study, *specs, "--seed", "1", "--plain"])
    assert done.exit_code == 0, done.output
    shown = runner.invoke(app, ["show", study]).output
    assert "llm, model a" in shown
    assert "llm, model b" in shown

"""LLAMBO's proposers and ranking, on models that answer by rule: what is asked, what counts, and what it costs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmhpo import optimize
from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Question
from llmhpo.agents.consult import Consultant
from llmhpo.agents.llambo import target_value
from llmhpo.agents.questions import propose, warmstart
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError, LLMUnavailableError
from llmhpo.history import show_number
from llmhpo.llm.base import Completion, Request, Scores, Several, TokenLogprob
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.store import load_study
from llmhpo.trial import Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Caps, Usage

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "doc": "the secret of the job"},
        "y": {"type": "float", "low": 0.0, "high": 1.0},
    }
)


def loss(x: float) -> float:
    return (x - 0.4) ** 2


def context(n: int, sense: str = "minimize") -> Context:
    sign = 1.0 if sense == "minimize" else -1.0
    trials = []
    for i, params in enumerate(SPACE.sample(np.random.default_rng(0), n)):
        trials.append(Trial(i, Proposal(params, "gp"), Outcome("ok", sign * loss(float(params["x"])))))  # type: ignore[arg-type]
    return Context(Task("Fold proteins", "error", sense), SPACE, tuple(trials), 20)  # type: ignore[arg-type]


class Ruled(ScriptedModel):
    """Answers each kind of question by a rule: a new point, the mark by the loss, whether it is low."""

    def __init__(self, **rules: Callable[[int], str]) -> None:
        super().__init__([], name="ruled")
        self.asked: list[Request] = []
        self._rules = rules

    def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        self._replies = {request.number: self.answer(request)}
        return super().complete(request)

    def answer(self, request: Request) -> str:
        text = request.messages[-1].content
        if "Predict the score" in text:
            return json.dumps({"score": self.mark(text)})
        if "among the best" in text:
            return json.dumps({"top": "yes" if loss(self.asked_for(text)) < 0.03 else "no"})
        rule = self._rules.get("configuration")
        k = len(self.asked)
        return rule(k) if rule else json.dumps({"x": round((0.37 * k) % 1.0, 4), "y": 0.5})

    def asked_for(self, text: str) -> float:
        return float(json.loads(text.split("<data>")[-1].split("</data>")[0])["x"])

    def mark(self, text: str) -> int:
        return round(max(10.0, 99.0 - 200.0 * loss(self.asked_for(text))))


class Telling(Ruled):
    """With log-probabilities: the mark's digits are certain."""

    def complete(self, request: Request) -> Completion:
        completion = super().complete(request)
        if not request.top_logprobs:
            return completion
        return replace(completion, logprobs=tuple(TokenLogprob(c, 0.0, ((c, 0.0),)) for c in completion.text))


class Scoring(Ruled):
    """As the local engine: many replies to one request, and scores of given texts."""

    def complete_many(self, request: Request, n: int) -> Several:
        texts = tuple(super(Scoring, self).complete(request).text for _ in range(n))
        return Several(texts, Usage(1, 100, 0, 10 * n))

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        self.asked.append(request)
        text = request.messages[-2].content
        if candidates[0] == "yes":
            p = 0.9 if loss(self.asked_for(text)) < 0.03 else 0.1
            return Scores(((math.log(p),), (math.log(1 - p),)), Usage(1, 100, 0, 0))
        mark = str(self.mark(text))
        return Scores(tuple((0.0,) if mark.startswith(c) else (-9.0,) for c in candidates), Usage(1, 100, 0, 0))


def ask(model: ScriptedModel, about: Context, advice: Advice, n: int = 4, caps: Caps | None = None) -> Batch:
    question: Question = propose(about, n, reasons=True) if about.finished else warmstart(about, n, reasons=True)
    return Consultant(model, caps=caps or Caps(), advice=advice).consult(about, question)


LLAMBO = Advice(proposer="llambo", candidates=8)


@pytest.mark.parametrize("model", [Ruled(), Telling(), Scoring()])
def test_a_first_batch_is_sampled_configuration_by_configuration(model: Ruled) -> None:
    batch = ask(model, context(0), LLAMBO)
    assert len(batch.proposals) == 4
    assert batch.tally is not None
    assert (batch.tally.prompt, batch.tally.asked) == ("llambo-warmstart.v1", 4)
    assert {p.provenance.prompt for p in batch.proposals if p.provenance} == {"llambo-warmstart.v1"}


@pytest.mark.parametrize(
    "detail, told, untold",
    [
        ("none", ["x: float"], ["proteins", "error", "secret"]),
        ("partial", ["minimize error", "secret"], ["proteins"]),
        ("full", ["Fold proteins", "minimize error", "secret"], []),
    ],
)
def test_the_warm_start_tells_as_much_as_it_is_told_to(detail: str, told: list[str], untold: list[str]) -> None:
    model = Ruled()
    ask(model, context(0), replace(LLAMBO, context=detail))  # type: ignore[arg-type]
    text = model.asked[0].messages[-1].content
    assert [word for word in told if word not in text] == []
    assert [word for word in untold if word in text] == []


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
@pytest.mark.parametrize("alpha", [-0.2, 0.0, 0.5])
def test_the_target_lies_alpha_times_the_range_beyond_the_best(sense: str, alpha: float) -> None:
    known = context(9, sense)
    values = sorted(t.value for t in known.finished if t.value is not None)
    if sense == "minimize":
        assert target_value(known, alpha) == pytest.approx(values[0] - alpha * (values[-1] - values[0]))
    else:
        assert target_value(known, alpha) == pytest.approx(values[-1] + alpha * (values[-1] - values[0]))


def test_candidates_are_asked_for_at_the_target() -> None:
    model, known = Ruled(), context(6)
    ask(model, known, LLAMBO)
    assert len(model.asked) == LLAMBO.candidates
    text = model.asked[0].messages[-1].content
    assert f"reaches error = {show_number(target_value(known, -0.1))}?" in text


def test_the_examples_stand_in_two_orders() -> None:
    model = Ruled()
    ask(model, context(8), LLAMBO)
    bodies = {r.messages[-1].content for r in model.asked}
    assert len(bodies) == 2


@pytest.mark.parametrize("model", [Ruled(), Telling(), Scoring()])
@pytest.mark.parametrize("surrogate", ["llambo:disc", "llambo:gen"])
def test_a_model_that_knows_ranks_its_best_candidate_first(model: Ruled, surrogate: str) -> None:
    batch = ask(model, context(8), replace(LLAMBO, surrogate=surrogate), n=8)  # type: ignore[arg-type]
    losses = [loss(float(p.params["x"])) for p in batch.proposals]  # type: ignore[arg-type]
    assert losses[0] < 0.03
    assert losses[0] < np.median(losses)
    assert batch.problems == ()


def test_log_probabilities_spare_the_samples() -> None:
    advice = replace(LLAMBO, surrogate="llambo:disc", samples=5)
    asked = []
    for model in (Ruled(), Telling()):
        ask(model, context(8), advice)
        asked.append(sum("Predict the score" in r.messages[-1].content for r in model.asked))
    assert asked[0] == 5 * asked[1]


def test_a_batch_of_one_request_can_be_ranked_by_the_model_too() -> None:
    xs = [0.95, 0.9, 0.41, 0.05]
    reply = json.dumps({"configurations": [{"why": "", "x": x, "y": 0.5} for x in xs]})
    batch = ask(Telling(configuration=lambda _: reply), context(8), Advice(surrogate="llambo:disc"))
    assert batch.proposals[0].params["x"] == 0.41
    assert len(batch.proposals) == 4


def test_repeats_and_invalid_samples_are_counted_and_left_out() -> None:
    known = context(5)
    tried = json.dumps(known.trials[0].params)
    replies = ['{"x": 7, "y": 0}', "no", tried, '{"x": 0.2, "y": 0.2}']
    batch = ask(Ruled(configuration=lambda k: replies[(k - 1) % 4]), known, LLAMBO)
    assert [p.params for p in batch.proposals] == [{"x": 0.2, "y": 0.2}]
    t = batch.tally
    assert t is not None
    assert (t.asked, t.offered, t.inside, t.valid, t.repeated) == (8, 6, 4, 4, 3)


def test_every_request_is_on_the_bill_and_shared_by_what_is_kept() -> None:
    model = Ruled()
    batch = ask(model, context(8), replace(LLAMBO, surrogate="llambo:disc"))
    assert batch.usage.calls == len(model.asked)
    assert sum(p.provenance.tokens for p in batch.proposals if p.provenance) == pytest.approx(batch.usage.tokens)


def test_requests_are_numbered_on() -> None:
    model = Ruled()
    ask(model, replace(context(8), elsewhere=Usage(calls=5)), LLAMBO)
    assert [r.number for r in model.asked] == list(range(5, 5 + len(model.asked)))


def test_a_cap_ends_the_sampling_and_keeps_what_was_paid_for() -> None:
    model = Ruled()
    batch = ask(model, context(8), replace(LLAMBO, surrogate="llambo:disc"), caps=Caps(max_requests=10))
    assert batch.usage.calls <= 10
    assert len(batch.proposals) == 4
    assert "max_requests=10" in batch.problems[0]


@pytest.mark.parametrize("finished", [0, 8])
def test_samples_that_were_paid_for_before_the_end_are_kept_and_the_end_is_told(finished: int) -> None:
    batch = ask(Ruled(), context(finished), LLAMBO, caps=Caps(max_requests=3))
    assert (batch.usage.calls, len(batch.proposals)) == (3, 3)
    assert batch.problems[0].startswith("the sampling ended early: max_requests=3")
    assert [p.provenance.request for p in batch.proposals if p.provenance] == [0, 1, 2]
    assert batch.tally is not None
    assert batch.tally.asked == 3


def test_many_short_requests_end_at_the_deadline_of_them_all() -> None:
    def slowly(k: int) -> str:
        time.sleep(2.5 if k == 5 else 0.0)
        return json.dumps({"x": k / 100, "y": 0.5})

    about, advice = context(8), replace(LLAMBO, candidates=60)
    consultant = Consultant(Ruled(configuration=slowly), caps=Caps(), deadline_s=2.0, advice=advice)
    batch = consultant.consult(about, propose(about, 4, reasons=True))
    assert 1 <= batch.usage.calls <= 9
    assert "deadline_s" in batch.problems[0]


def test_a_service_that_is_down_costs_no_more_than_a_request() -> None:
    def down(_: int) -> str:
        raise LLMUnavailableError("down")

    batch = ask(Ruled(configuration=down), context(8), LLAMBO)
    assert batch.proposals == ()
    assert "down" in batch.error
    assert batch.usage.calls == 1
    assert not batch.fatal


def test_the_same_context_and_replies_give_the_same_batch() -> None:
    first, second = (ask(Ruled(), context(8), replace(LLAMBO, surrogate="llambo:gen")) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


@pytest.mark.parametrize(
    "raw, words",
    [
        ({"proposer": "lambo"}, "proposer = 'lambo'"),
        ({"propser": "llambo"}, "did you mean 'proposer'"),
        ({"samples": 0}, "samples = 0"),
        ({"alpha": 7}, "alpha = 7"),
        ({"critic": "yes"}, "critic = 'yes'"),
        ("llambo", "is not a table"),
    ],
)
def test_wrong_settings_are_named(raw: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Advice.of(raw)  # type: ignore[arg-type]


def test_by_default_the_model_is_asked_for_batches_and_nothing_else() -> None:
    assert Advice.of({}) == Advice.of(None) == Advice()
    assert (Advice().proposer, Advice().surrogate, Advice().critic) == ("batch", "none", False)


def test_a_study_file_names_the_way_its_model_is_used(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    head = 'command = "true {x}"\nmetric = "m"\ndirection = "minimize"\n'
    space = '[space.x]\ntype = "float"\nlow = 0.0\nhigh = 1.0\n'
    path.write_text(f'{head}[advice]\nproposer = "llambo"\nsurrogate = "llambo:gen"\n{space}')
    assert read_study_file(path).advice == Advice(proposer="llambo", surrogate="llambo:gen")
    path.write_text(f'{head}[advice]\nsurogate = "llambo:gen"\n{space}')
    with pytest.raises(ConfigError, match=r"study.toml: advice has no key 'surogate'; did you mean 'surrogate'"):
        read_study_file(path)


def test_a_whole_study_runs_with_it(tmp_path: Path) -> None:
    result = optimize(
        lambda params: {"error": loss(float(params["x"]))},
        SPACE,
        metric="error",
        n_trials=12,
        seed=0,
        llm=Telling(),
        advice={"proposer": "llambo", "surrogate": "llambo:disc", "candidates": 4},
        storage=f"sqlite:///{tmp_path / 's.db'}",
        progress=False,
    )
    prompts = {t.proposal.provenance.prompt for t in result.trials if t.proposal.provenance}
    assert "llambo-warmstart.v1" in prompts
    assert result.sources["llm"] >= 2
    assert result.usage.calls == sum(
        b.usage.calls for b in load_study(f"sqlite:///{tmp_path / 's.db'}", result.study_name).batches
    )

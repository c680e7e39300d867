"""The bill stays within its caps: over sessions, with requests that nobody saw the end of, and whatever the service says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

import llmhpo
from llmhpo.agents import questions
from llmhpo.agents.consult import Consultant
from llmhpo.errors import BudgetError, ConfigError, LLMUnavailableError
from llmhpo.events import Consulted, Event
from llmhpo.llm.base import Completion, Message, Request, most_it_costs
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.trial import Context, Task
from llmhpo.usage import Caps, Price, Usage

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}}


def reply(*xs: float) -> str:
    return json.dumps({"configurations": [{"why": "", "x": x} for x in xs]})


def loss(p: dict[str, float]) -> float:
    return (p["x"] - 0.3) ** 2


def run(folder: Path, model: ScriptedModel, n_trials: int, **caps: float) -> tuple[llmhpo.Result, list[Event]]:
    events: list[Event] = []
    result = llmhpo.optimize(
        loss, SPACE, llm=model, n_trials=n_trials, seed=1, study_name="s", cwd=folder, on_event=events.append, **caps,
    )  # type: ignore[arg-type]  # fmt: skip
    return result, events


def test_a_cap_on_requests_holds_over_sessions(tmp_path: Path) -> None:
    replies = [reply(0.1 + 0.01 * i, 0.2 + 0.01 * i) for i in range(40)]
    for n_trials in (8, 14, 25):
        result, _ = run(tmp_path, ScriptedModel(replies), n_trials, max_requests=2)
        assert len(result.trials) == n_trials
        assert result.usage.calls <= 2


def test_a_spent_cap_is_told_once_a_session(tmp_path: Path) -> None:
    _, events = run(tmp_path, ScriptedModel([reply(0.1)] * 40), 25, max_requests=1)
    told = [e.batch.error for e in events if isinstance(e, Consulted) and e.batch.error]
    assert len(told) == 1
    assert "max_requests=1" in told[0]


@pytest.mark.parametrize("caps", [{"max_tokens": 3000}, {"max_usd": 0.003}])
def test_a_cap_is_never_passed(tmp_path: Path, caps: dict[str, float]) -> None:
    model = ScriptedModel([reply(0.1 + 0.01 * i) for i in range(40)], price=Price(1.0, 1.0))
    result, _ = run(tmp_path, model, 25, **caps)
    assert result.usage.calls >= 1
    assert result.usage.tokens <= 3000
    assert (result.usage.usd or 0.0) <= 0.003


def test_money_cannot_be_capped_where_its_price_is_unknown_unless_tokens_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_usd=1"):
        run(tmp_path, ScriptedModel([], price=None), 3, max_usd=1.0)
    result, _ = run(tmp_path, ScriptedModel([reply(0.1)] * 9, price=None), 3, max_usd=1.0, max_tokens=5000)
    assert len(result.trials) == 3


# --- requests that nobody saw the end of ------------------------------------------------------------------------------

SLOW = """
import json, sys, time
import llmhpo
from llmhpo.llm.scripted import ScriptedModel
class Slow(ScriptedModel):
    def complete(self, request):
        print("asked", flush=True)
        time.sleep(60)
llmhpo.optimize(lambda p: time.sleep(0.2) or p["x"], {SPACE}, llm=Slow([]), n_trials=9, seed=1, study_name="s", cwd={folder!r}, progress=False)
"""


def test_a_request_that_a_crash_cut_off_counts_with_the_most_that_it_may_have_cost(tmp_path: Path) -> None:
    code = SLOW.replace("{SPACE}", repr(SPACE)).replace("{folder!r}", repr(str(tmp_path)))
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"
        time.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    folder = tmp_path / "runs" / "s"
    store = Store(
        f"sqlite:///{folder / 'study.db'}", "s", SearchSpace.from_dict(SPACE), Task(), log=folder / "events.jsonl"
    )
    lost = store.context().lost
    store.close()
    assert lost.calls == 2
    assert lost.tokens > 500
    result, events = run(tmp_path, ScriptedModel([reply(0.1, 0.2)] * 9), 9, max_requests=2)
    assert len(result.trials) == 9
    assert result.usage.calls == 0
    assert any("max_requests" in e.batch.error for e in events if isinstance(e, Consulted))


def test_a_request_that_was_answered_is_not_lost(tmp_path: Path) -> None:
    run(tmp_path, ScriptedModel([reply(0.1, 0.2)] * 9), 9)
    folder = tmp_path / "runs" / "s"
    store = Store(
        f"sqlite:///{folder / 'study.db'}", "s", SearchSpace.from_dict(SPACE), Task(), log=folder / "events.jsonl"
    )
    assert store.context().lost == Usage()
    store.close()


def test_a_request_that_the_deadline_cut_off_counts_with_the_most_that_it_may_have_cost() -> None:
    context = Context(Task("", "loss"), SearchSpace.from_dict(SPACE))
    question = questions.warmstart(context, 2, reasons=True)
    late = ScriptedModel([LLMUnavailableError("late", was_cut_off=True)])
    prompt = most_it_costs(late, [Message("system", question.system), Message("user", question.user)], 0)
    assert Consultant(late, caps=Caps()).consult(context, question).usage.tokens > prompt.tokens
    dead = ScriptedModel([LLMUnavailableError("nobody there")])
    assert Consultant(dead, caps=Caps()).consult(context, question).usage == Usage(calls=1)


def test_two_workers_of_one_study_do_not_pass_a_cap_together(tmp_path: Path) -> None:
    asked: list[int] = []

    class Slow(ScriptedModel):
        def complete(self, request: Request) -> Completion:
            asked.append(request.number)
            time.sleep(1.0)
            return super().complete(request)

    where = f"sqlite:///{tmp_path / 's.db'}"
    optuna.create_study(storage=where, study_name="s")

    def work() -> None:
        sampler = llmhpo.LLMSampler(Slow([reply(0.1, 0.2)] * 9), search_space=SPACE, seed=1, max_requests=1)
        study = optuna.load_study(storage=where, study_name="s", sampler=sampler)
        study.optimize(lambda t: t.suggest_float("x", 0.0, 1.0), n_trials=3)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(asked) <= 1
    assert len(optuna.load_study(storage=where, study_name="s").trials) == 6


def test_a_request_of_a_sampler_that_died_goes_on_to_count() -> None:
    class Dying(ScriptedModel):
        def complete(self, request: Request) -> Completion:
            raise KeyboardInterrupt

    study = optuna.create_study(sampler=llmhpo.LLMSampler(Dying([]), search_space=SPACE, seed=1))
    with contextlib.suppress(KeyboardInterrupt):
        study.optimize(lambda t: t.suggest_float("x", 0.0, 1.0), n_trials=3)
    model = ScriptedModel([reply(0.1, 0.2)] * 9)
    study.sampler = llmhpo.LLMSampler(model, search_space=SPACE, seed=1, max_requests=1)
    study.optimize(lambda t: t.suggest_float("x", 0.0, 1.0), n_trials=8)
    assert not any(t.user_attrs.get("source") == "llm" for t in study.trials)


def test_what_may_have_been_lost_counts_against_the_cap() -> None:
    context = Context(Task("", "loss"), SearchSpace.from_dict(SPACE), lost=Usage(1, 900, 0, 0))
    batch = Consultant(ScriptedModel([reply(0.1)]), caps=Caps(max_tokens=1000)).consult(
        context, questions.warmstart(context, 2, reasons=True)
    )
    assert batch.fatal
    assert "max_tokens=1000" in batch.error


def test_a_cap_of_nothing_asks_nothing() -> None:
    with pytest.raises(BudgetError):
        Caps(max_requests=0).check(Usage(), Usage(calls=1))

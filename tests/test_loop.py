from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

import llmhpo
from llmhpo.agents.portfolio import Portfolio, make_portfolio
from llmhpo.errors import LLMRequestError, LLMUnavailableError
from llmhpo.events import Consulted, Event, Finished, Launched, Opened, Stopped
from llmhpo.executors.function import InProcessExecutor
from llmhpo.llm.base import LLM
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.loop import Loop
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.trial import Batch, Outcome, Proposal, Task
from llmhpo.usage import Caps

pytestmark = pytest.mark.usefixtures("patient")
SPACE = {
    "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
    "k": {"type": "categorical", "choices": ["a", "b"], "default": "a"},
    "y": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9, "when": {"k": "b"}},
}


def loss(p: dict[str, object]) -> float:
    return (float(p["x"]) - 0.3) ** 2 + float(p.get("y", 0.5))  # type: ignore[arg-type]


def replies(seed: int, batches: int = 12, n: int = 10) -> list[str]:
    """What a model that knows a little would answer, for every request of a study."""
    rng = random.Random(seed)
    out = []
    for _ in range(batches):
        configurations = [{"why": "w", "x": rng.uniform(0.1, 0.5), "k": "b", "y": rng.random()} for _ in range(n)]
        out.append(json.dumps({"configurations": configurations}))
    return out


def trials(result: llmhpo.Result) -> list[tuple[object, ...]]:
    return [(t.number, t.proposal.source, t.params, t.value) for t in result.trials]


def study(llm: LLM | str | None, n: int = 15, **kw: object) -> llmhpo.Result:
    return llmhpo.optimize(loss, SPACE, llm=llm, n_trials=n, seed=3, progress=False, **kw)  # type: ignore[arg-type]


def test_the_default_comes_first_and_every_trial_names_its_source() -> None:
    result = study(ScriptedModel(replies(0)))
    assert result.trials[0].params == {"x": 0.9, "k": "a"}
    assert result.trials[0].proposal.source == "default"
    assert result.default is result.trials[0]
    assert sum(result.sources.values()) == 15
    assert result.sources["llm"] >= 3


def test_events_tell_the_whole_story() -> None:
    events: list[Event] = []
    study(ScriptedModel(replies(0)), on_event=events.append)
    assert isinstance(events[0], Opened)
    assert isinstance(events[-1], Stopped)
    assert [e.trial.number for e in events if isinstance(e, Launched)] == list(range(15))
    assert [e.trial.number for e in events if isinstance(e, Finished)] == list(range(15))
    assert any(isinstance(e, Consulted) for e in events)


def test_two_runs_with_the_same_seed_and_replies_are_identical() -> None:
    assert trials(study(ScriptedModel(replies(0)))) == trials(study(ScriptedModel(replies(0))))


def test_another_seed_gives_other_trials() -> None:
    a = llmhpo.optimize(loss, SPACE, llm=None, n_trials=6, seed=1, progress=False)
    b = llmhpo.optimize(loss, SPACE, llm=None, n_trials=6, seed=2, progress=False)
    assert trials(a)[1:] != trials(b)[1:]


@pytest.mark.parametrize("stop_after", [0, 1, 4, 5, 9])
def test_a_study_that_was_stopped_goes_on_as_one_that_never_was(tmp_path: Path, stop_after: int) -> None:
    whole = study(ScriptedModel(replies(0)))

    def stop(event: Event) -> None:
        if isinstance(event, Finished) and event.trial.number == stop_after:
            raise KeyboardInterrupt

    where = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "s", "cwd": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        study(ScriptedModel(replies(0)), on_event=stop, **where)
    again = study(ScriptedModel(replies(0)), **where)
    assert trials(again) == trials(whole)
    assert again.usage.calls == whole.usage.calls


def test_a_finished_study_runs_nothing_more(tmp_path: Path) -> None:
    where = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "s", "cwd": tmp_path}
    first = study(None, n=5, **where)
    events: list[Event] = []
    assert trials(study(None, n=5, on_event=events.append, **where)) == trials(first)
    assert [type(e) for e in events] == [Opened, Stopped]


def test_ctrl_c_in_a_terminal_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "tune.py"
    script.write_text(
        "import os, time, sys, llmhpo\n"
        "def f(p):\n    time.sleep(float(os.environ.get('NAP', 0)) if os.environ['LLMHPO_TRIAL'] == '3' else 0)\n    return p['x']\n"
        "r = llmhpo.optimize(f, {'x': {'type': 'float', 'low': 0.0, 'high': 1.0}}, llm='none', n_trials=8, seed=1,\n"
        "    study_name='s', on_event=lambda e: print(type(e).__name__, flush=True))\n"
        "print('DONE', len(r.trials), [t.number for t in r.trials], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"NAP": "60"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout is not None
    finished = 0
    for line in process.stdout:
        finished += line.strip() == "Finished"
        if finished == 3:
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=30)
    assert process.returncode != 0
    again = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "DONE 8 [0, 1, 2, 3, 4, 5, 6, 7]" in again.stdout
    assert again.stdout.count("Finished") <= 5


GARBAGE: dict[str, Sequence[str | Exception]] = {
    "prose": ["I am a language model."] * 40,
    "out of range": ['{"configurations": [{"x": 99, "k": "z"}]}'] * 40,
    "unreachable": [LLMUnavailableError("no server")] * 40,
    "wrong key": [LLMRequestError("401: wrong key")] * 40,
    "empty": [""] * 40,
    "exhausted": [],
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_all_of_the_budget_runs_whatever_the_model_says(kind: str) -> None:
    events: list[Event] = []
    result = study(ScriptedModel(list(GARBAGE[kind])), on_event=events.append)
    assert len(result.trials) == 15
    assert all(t.value is not None for t in result.trials)
    assert "llm" not in result.sources
    consulted = [e.batch for e in events if isinstance(e, Consulted)]
    assert consulted
    assert all(b.error or b.problems for b in consulted)


def test_a_useless_model_changes_no_trial() -> None:
    plain = study(None)
    useless = study(ScriptedModel([LLMUnavailableError("no server")] * 40))
    assert [t.params for t in useless.trials] == [t.params for t in plain.trials]


def test_a_wrong_key_is_tried_once() -> None:
    assert study(ScriptedModel([LLMRequestError("401")] * 40)).usage.calls == 1


def test_a_dead_server_is_left_alone_more_and_more() -> None:
    assert study(ScriptedModel([LLMUnavailableError("no server")] * 40), n=40).usage.calls <= 5


def test_failing_trials_are_recorded_and_the_study_goes_on() -> None:
    def flaky(p: dict[str, object]) -> float:
        if p["k"] == "b":
            raise RuntimeError("no b here")
        return float(p["x"])  # type: ignore[arg-type]

    result = llmhpo.optimize(flaky, SPACE, llm=ScriptedModel(replies(0)), n_trials=15, seed=0, progress=False)
    failed = [t for t in result.trials if t.value is None]
    assert failed
    assert all(t.outcome is not None and "no b here" in t.outcome.message + t.outcome.log_tail for t in failed)
    assert len(failed) < 10
    assert result.best is not None


def test_no_configuration_is_tried_twice() -> None:
    space = {"k": {"type": "categorical", "choices": list("abcdefgh")}, "n": {"type": "int", "low": 0, "high": 3}}
    result = llmhpo.optimize(lambda p: p["n"], space, llm=None, n_trials=30, seed=0, progress=False)  # type: ignore[arg-type, return-value]
    assert len({json.dumps(t.params) for t in result.trials}) == 30


def test_an_exhausted_space_ends_nothing() -> None:
    space = {"k": {"type": "categorical", "choices": ["a", "b"]}}
    result = llmhpo.optimize(lambda p: len(str(p["k"])), space, llm=None, n_trials=6, seed=0, progress=False)
    assert len(result.trials) == 6


def test_jobs_run_side_by_side(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import os, sys, time; open('up' + os.environ['LLMHPO_TRIAL'], 'w').close()\nfor _ in range(6000):\n"
        "    if sum(n.startswith('up') for n in os.listdir()) > 1:\n"
        "        sys.exit(open(os.environ['LLMHPO_RESULT'], 'w').write('1') - 1)\n    time.sleep(0.01)",
    ]
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    result = llmhpo.optimize(command, space, llm=None, n_trials=4, n_workers=2, cwd=tmp_path, progress=False)
    assert [t.value for t in result.trials] == [1.0] * 4  # the first found the second beside it
    assert (tmp_path / "runs").exists()


class Slow(ScriptedModel):
    """Answers after a while, so that a request is in flight when the run is stopped."""

    def complete(self, request):  # type: ignore[no-untyped-def]
        time.sleep(0.4)
        return super().complete(request)


def test_a_study_that_was_stopped_while_the_model_was_asked_asks_the_same_again(tmp_path: Path) -> None:
    whole = study(Slow(replies(0)))

    def stop(event: Event) -> None:
        if isinstance(event, Finished) and event.trial.number == 0:
            raise KeyboardInterrupt

    where = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "s", "cwd": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        study(Slow(replies(0)), on_event=stop, **where)
    assert trials(study(Slow(replies(0)), **where)) == trials(whole)


def test_what_had_ended_when_the_run_was_interrupted_is_on_record(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Finished):
            time.sleep(0.5)  # the other job ends meanwhile
            raise KeyboardInterrupt

    where = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "s", "cwd": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        study(None, n=2, n_workers=2, isolated=False, on_event=stop, **where)
    with llmhpo.Study(SPACE, storage=where["storage"], study_name="s", llm=None) as again:  # type: ignore[arg-type]
        assert [t.value is None for t in again.trials] == [False, False]


class Broken(ScriptedModel):
    """Somebody's own model with a bug of its own."""

    def complete(self, request):  # type: ignore[no-untyped-def]
        raise ValueError("a bug")


def test_a_bug_in_a_model_ends_no_study() -> None:
    events: list[Event] = []
    result = study(Broken([]), on_event=events.append)
    assert len(result.trials) == 15
    assert [e.batch.error for e in events if isinstance(e, Consulted)] == ["ValueError: a bug"]


def test_a_late_result_of_a_dead_attempt_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "s" / "trials" / "00000"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"value": 111}')
    result = study(None, n=1, study_name="s", cwd=tmp_path, isolated=True)
    assert result.trials[0].value == loss({"x": 0.9, "k": "a"})
    assert (tmp_path / "runs" / "s" / "trials" / "00000.2" / "result.json").exists()


def test_a_bug_in_a_model_puts_no_key_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-0123456789abcdef")

    class Leaky(ScriptedModel):
        def complete(self, request):  # type: ignore[no-untyped-def]
            raise ValueError("refused: canary-0123456789abcdef")

    events: list[Event] = []
    study(Leaky([]), n=3, on_event=events.append)
    assert [e.batch.error for e in events if isinstance(e, Consulted)] == ["ValueError: refused: [key]"]


@pytest.mark.parametrize(("answers", "waits"), [((), True), ((1.0, 1.5), True), ((5.0, 1.0, 6.0), False)])
def test_no_worker_waits_for_a_model_that_will_most_likely_be_late(
    answers: tuple[float, ...], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmhpo.loop._PATIENCE_S", (2.0, 60.0))
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    store = Store(None, "s", space, Task(), seed=0)
    idea = Proposal({"x": 0.5}, "llm")
    store.finish(store.begin(idea).number, Outcome("ok", 1.0, seconds=3.0))
    for seconds in answers:
        store.record(Batch("propose", 0, 1, (idea,), seconds=seconds))
    executor = InProcessExecutor(lambda _: 1.0)
    loop = Loop(store, Portfolio(), executor, n_trials=5, directory=Path())
    assert (loop._patience_s() > 0) == waits
    store.close()


@pytest.mark.parametrize(("answers", "waits_s"), [((), 0.5), ((1.0,), 2.0)])
def test_a_service_that_has_not_answered_yet_is_waited_for_less(
    answers: tuple[float, ...], waits_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmhpo.loop._PATIENCE_S", (2.0, 60.0))
    monkeypatch.setattr("llmhpo.loop._STRANGER_S", 0.5)
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    store, idea = Store(None, "s", space, Task(), seed=0), Proposal({"x": 0.5}, "llm")
    store.finish(store.begin(idea).number, Outcome("ok", 1.0, seconds=3.0))
    for seconds in answers:
        store.record(Batch("propose", 0, 1, (idea,), seconds=seconds))
    search = make_portfolio("openai:m", base_url="http://127.0.0.1:9/v1", price=None, caps=Caps(), deadline_s=1.0)
    loop = Loop(store, search, InProcessExecutor(lambda _: 1.0), n_trials=5, directory=Path())
    assert loop._patience_s() == waits_s
    assert search.model is not None
    search.model.close()
    store.close()


def test_while_nothing_runs_and_no_trial_has_told_its_length_a_stranger_is_worth_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmhpo.loop._STRANGER_S", 0.5)
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")
    store = Store(None, "s", SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}}), Task(), seed=0)
    search = make_portfolio("openai:m", base_url="http://127.0.0.1:9/v1", price=None, caps=Caps(), deadline_s=1.0)
    loop = Loop(store, search, InProcessExecutor(lambda _: 1.0), n_trials=5, directory=Path())
    assert search.model is not None
    search.model.health.ask()  # type: ignore[attr-defined]
    search.model.health.hear()  # type: ignore[attr-defined]
    loop._consultation = Future()
    assert 0.0 < loop._patience_left() <= 0.5
    loop._running[Future()] = store.begin(Proposal({"x": 0.5}, "random"))
    assert loop._patience_left() > 5.0
    search.model.close()
    store.close()


class Hanging(ScriptedModel):
    """Takes a request, and says nothing."""

    def complete(self, request):  # type: ignore[no-untyped-def]
        time.sleep(20.0)
        return super().complete(request)


def test_a_model_that_never_answered_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmhpo.loop._PATIENCE_S", (0.2, 0.2))
    times: list[float] = []
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        times.append(time.monotonic())

    study(Hanging(replies(0)), n=3, on_event=note)
    assert [e.batch.kind for e in events if isinstance(e, Consulted)] == ["unused"]
    last = max(k for k, e in enumerate(events) if isinstance(e, Finished))
    assert times[-1] - times[last] < 10.0  # the model would have taken 20


def test_trials_that_turn_out_short_shorten_the_wait_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmhpo.loop._PATIENCE_S", (0.2, 60.0))
    events: list[Event] = []
    study(Hanging(replies(0)), n=3, n_workers=2, isolated=False, on_event=events.append)
    assert [e.batch.kind for e in events if isinstance(e, Consulted)] == ["unused"]

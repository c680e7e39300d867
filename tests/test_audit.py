from __future__ import annotations

import json
import logging
from pathlib import Path

import optuna
import pytest

import llmhpo
from llmhpo.audit import replay, verify
from llmhpo.errors import StoreError
from llmhpo.events import Event, Finished
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.store import Store, load_study
from llmhpo.store.journal import read_journal
from llmhpo.trial import Context, Outcome, Proposal, Task

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
REPLY = json.dumps({"configurations": [{"why": "w", "x": x} for x in (0.1, 0.2, 0.9)]})


def study(folder: Path, n: int = 9, *, stop_after: int | None = None) -> Path:
    """Run a study, perhaps in two sessions; where its log lies."""

    def stop(event: Event) -> None:
        if isinstance(event, Finished) and event.trial.number == stop_after:
            raise KeyboardInterrupt

    def go(on_event: object) -> None:
        llmhpo.optimize(
            lambda p: (float(p["x"]) - 0.3) ** 2,  # type: ignore[arg-type]
            SPACE, llm=ScriptedModel([REPLY] * 9), n_trials=n, seed=3, study_name="s", cwd=folder, on_event=on_event,  # type: ignore[arg-type]
        )  # fmt: skip

    if stop_after is not None:
        with pytest.raises(KeyboardInterrupt):
            go(stop)
    go(lambda _: None)
    return folder / "runs" / "s" / "events.jsonl"


def context(log: Path) -> Context:
    return load_study(f"sqlite:///{log.parent / 'study.db'}", "s")


def kinds(log: Path) -> list[str]:
    return [e.kind for e in read_journal(log).entries]


@pytest.mark.parametrize("stop_after", [None, 4])
def test_the_decisions_of_a_log_come_out_the_same(tmp_path: Path, stop_after: int | None) -> None:
    log = study(tmp_path, stop_after=stop_after)
    found = replay(log)
    assert found.problems == ()
    assert found.checked == 9
    assert verify(log, context(log), "s").problems == ()


def test_the_log_tells_requests_drops_decisions_launches_and_results(tmp_path: Path) -> None:
    log = study(tmp_path, n=5)
    assert {
        "open",
        "session",
        "question",
        "asking",
        "request",
        "consulted",
        "decision",
        "launch",
        "result",
        "stop",
    } == set(kinds(log))
    entries = read_journal(log).entries
    request = next(e for e in entries if e.kind == "request")
    assert request.data["reply"] == REPLY
    assert "x" in request.data["messages"][1]["content"]
    batch = next(e for e in entries if e.kind == "consulted").data["batch"]
    assert any("repeats" in problem for problem in batch["problems"])  # 0.9 is the default, which was tried
    order = [e.kind for e in entries if e.data.get("number") == 1 and e.kind in ("decision", "launch", "result")]
    assert order == ["decision", "launch", "result"]


def test_a_decision_that_does_not_follow_is_named(tmp_path: Path) -> None:
    from llmhpo.store.journal import Journal

    log = study(tmp_path, n=5)
    entries = read_journal(log).entries
    forged = Journal(tmp_path / "forged.jsonl")
    for entry in entries:
        data = entry.data
        if entry.kind == "decision" and data["number"] == 4:
            data = {**data, "proposal": {**data["proposal"], "params": {"x": 0.123}}}
        forged.append(entry.kind, data)
    forged.close()
    assert [p.split(" was ")[0] for p in replay(forged.path).problems] == ["trial 4"]
    assert verify(forged.path, context(log), "s").problems == (
        "proposal of trial 4 is another in the log than in the store",
    )


def test_a_value_that_was_changed_in_the_store_is_seen(tmp_path: Path) -> None:
    log = study(tmp_path, n=3)
    storage = optuna.storages.RDBStorage(f"sqlite:///{log.parent / 'study.db'}")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_values SET value = 0.0 WHERE trial_id = 2")
    storage.remove_session()
    storage.engine.dispose()
    assert verify(log, context(log), "s").problems == ("result of trial 1 is another in the log than in the store",)


def test_events_that_a_crash_kept_from_the_log_are_taken_from_the_store(tmp_path: Path) -> None:
    log = study(tmp_path, n=3)
    lines = log.read_bytes().splitlines(keepends=True)
    assert kinds(log)[-2:] == ["result", "stop"]
    log.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])  # torn in the midst of the last result
    study(tmp_path, n=4)
    found = verify(log, context(log), "s")
    assert found.problems == ()
    assert any("taken from the store" in note for note in found.notes)
    assert replay(log).problems == ()


def test_a_log_that_lost_its_end_is_set_aside_and_the_study_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = study(tmp_path, n=5)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:8]))
    assert verify(log, context(log), "s").problems
    with caplog.at_level(logging.WARNING):
        study(tmp_path, n=7)
    assert "set aside" in caplog.text
    assert kinds(log)[:2] == ["set_aside", "snapshot"]
    assert verify(log, context(log), "s").problems == ()
    found = replay(log)
    assert (found.problems, found.checked) == ((), 2)


def test_a_study_without_a_log_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no event log"):
        replay(tmp_path / "events.jsonl")


def test_ask_and_tell_keep_a_log_too(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'all.db'}"
    with llmhpo.Study(SPACE, storage=storage, study_name="s", llm=None, seed=3, n_trials=9) as asked:
        for _ in range(3):
            for trial in asked.ask(2):
                asked.tell(trial, float(trial.params["x"]))  # type: ignore[arg-type]
    log = tmp_path / "all.db.s.events.jsonl"
    assert verify(log, load_study(storage, "s"), "s").problems == ()
    found = replay(log)
    assert (found.problems, found.checked) == ((), 6)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("question", {"asked": 7}, "question 0 asked the model for 7"),
        (
            "decision",
            {"declined": {"service": None}},
            "before trial 1 the model was not asked; decided again it is asked for",
        ),
    ],
)
def test_a_request_to_the_model_that_does_not_follow_is_named(
    tmp_path: Path, kind: str, change: dict[str, object], says: str
) -> None:
    from llmhpo.store.journal import Journal

    forged = Journal(tmp_path / "forged.jsonl")
    for entry in read_journal(study(tmp_path, n=9)).entries:
        hit = entry.kind == kind and (kind == "question" or entry.data["number"] == 1)
        if kind == "question" or entry.kind not in ("question", "consulted"):
            forged.append(entry.kind, {**entry.data, **change} if hit else entry.data)
        if hit:
            break
    forged.close()
    assert any(p.startswith(says) for p in replay(forged.path).problems)


def test_decisions_not_to_ask_are_in_the_log(tmp_path: Path) -> None:
    entries = read_journal(study(tmp_path, n=9)).entries
    assert [e.data["asked"] for e in entries if e.kind == "question"][:1] == [3]
    assert any("declined" in e.data for e in entries if e.kind == "decision")


def test_asking_and_telling_can_be_replayed(tmp_path: Path) -> None:
    with llmhpo.Study(
        SPACE, llm=ScriptedModel([REPLY] * 9), n_trials=12, seed=3, storage=f"sqlite:///{tmp_path / 'study.db'}"
    ) as asked:
        for n in (1, 4, 4, 3):
            for trial in asked.ask(n):
                asked.tell(trial, float(trial.params["x"]))  # type: ignore[arg-type]
    (log,) = tmp_path.glob("*.events.jsonl")
    assert "question" in kinds(log)
    assert replay(log).problems == ()


def test_a_crash_may_keep_all_events_of_one_commit_from_the_log(tmp_path: Path) -> None:
    log, storage = tmp_path / "log.jsonl", f"sqlite:///{tmp_path / 'study.db'}"
    space = SearchSpace.from_dict(SPACE)

    def opened() -> Store:
        return Store(storage, "s", space, Task(), seed=0, log=log)

    store = opened()
    trials = store.begin_all([Proposal({"x": k / 10}, "gp") for k in range(9)], 20)
    store.finish_all({t.number: Outcome("ok", float(t.number)) for t in trials})
    store.close()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-9]))  # the results
    again = opened()
    assert [t.value for t in again.trials] == [float(k) for k in range(9)]
    again.close()
    found = read_journal(log).entries
    assert [e.data["number"] for e in found if e.kind == "result" and e.data.get("recovered")] == list(range(9))
    assert "set_aside" not in {e.kind for e in found}

"""The person changes a study while it runs: by a file that its controller looks at, kept in its store, told by its log."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import llmhpo
from llmhpo.audit import replay, verify
from llmhpo.errors import StudyMismatchError
from llmhpo.events import Event, Finished, Opened, Stopped
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.steering import Budget, Limit, Note, Steering
from llmhpo.store import Store, load_study
from llmhpo.store.wishes import Wishes
from llmhpo.trial import Context, Task
from llmhpo.view import undone

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {
    "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
    "kind": {"type": "categorical", "choices": ["a", "b"]},
}
Change = Callable[[Steering], Steering]
WD = {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}


def bowl(params: dict[str, object]) -> float:
    return (float(params["x"]) - 0.3) ** 2 + float(params.get("wd", 0.5))  # type: ignore[arg-type]


def run(
    folder: Path, n_trials: int, on_event: Callable[[Event], None] = lambda _: None, space: Mapping[str, object] = SPACE
) -> llmhpo.Result:
    return llmhpo.optimize(
        bowl, space, n_trials=n_trials, llm="none", study_name="s", cwd=folder, seed=1, on_event=on_event, n_workers=1
    )


def wishes(folder: Path) -> Wishes:
    return Wishes(folder / "runs" / "s")


def ask(folder: Path, change: Change, what: str = "/x") -> None:
    wishes(folder).add(what, change, Steering())


def after(n: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """An act of the person, when trial `n` has ended."""

    def on_event(event: Event) -> None:
        if isinstance(event, Finished) and event.trial.number == n:
            act()

    return on_event


def context(folder: Path) -> Context:
    return load_study(f"sqlite:///{folder / 'runs' / 's' / 'study.db'}", "s")


def narrow(steering: Steering) -> Steering:
    return replace(steering, limits={"x": Limit(0.0, 0.4)})


def widen(steering: Steering) -> Steering:
    return replace(steering, params={"kind": {"type": "categorical", "choices": ["a", "b", "c"]}})


def add(steering: Steering) -> Steering:
    return replace(steering, params={"wd": WD}, added=("wd",))


def test_limits_hold_from_the_next_trial_on_and_after_a_restart(tmp_path: Path) -> None:
    run(tmp_path, 6, after(2, lambda: ask(tmp_path, narrow)))
    run(tmp_path, 9)
    assert [t.params["x"] <= 0.4 for t in context(tmp_path).trials[3:]] == [True] * 6  # type: ignore[operator]


def test_a_replay_decides_the_same_after_all_that_the_person_changed(tmp_path: Path) -> None:
    run(tmp_path, 8, after(1, lambda: ask(tmp_path, narrow)))
    ask(tmp_path, lambda s: widen(replace(s, notes=(Note("try c"),))))
    run(tmp_path, 11, after(8, lambda: ask(tmp_path, add)))
    log = tmp_path / "runs" / "s" / "events.jsonl"
    assert verify(log, context(tmp_path), "s").problems == ()
    found = replay(log)
    assert (found.problems, found.checked) == ((), 11)


def test_a_choice_that_was_not_in_the_space_is_tried_once_it_is(tmp_path: Path) -> None:
    run(tmp_path, 4)
    ask(tmp_path, widen)
    run(tmp_path, 16)
    assert "c" in {t.params["kind"] for t in context(tmp_path).trials[4:]}


def test_a_parameter_that_is_added_while_the_study_runs_is_in_the_next_trials(tmp_path: Path) -> None:
    result = run(tmp_path, 8, after(2, lambda: ask(tmp_path, add)))
    assert ["wd" in t.params for t in context(tmp_path).trials] == [False] * 3 + [True] * 5
    assert result.stopped == "budget"


def test_a_larger_number_of_trials_is_run_by_the_session_that_hears_of_it(tmp_path: Path) -> None:
    ended = run(tmp_path, 4, after(1, lambda: ask(tmp_path, lambda s: replace(s, budget=Budget(n_trials=6)))))
    assert len(ended.trials) == 6


def test_a_session_that_is_asked_to_pause_ends_after_its_running_trials_and_the_next_goes_on(tmp_path: Path) -> None:
    seen: list[Event] = []

    def on_event(event: Event) -> None:
        seen.append(event)
        after(1, lambda: wishes(tmp_path).ask_to_pause(1, "drain"))(event)

    assert run(tmp_path, 5, on_event).stopped == "paused"
    assert isinstance(seen[-1], Stopped)
    assert len(context(tmp_path).trials) == 2
    assert len(run(tmp_path, 5).trials) == 5


def test_a_pause_that_is_asked_for_while_a_parameter_is_added_is_kept(tmp_path: Path) -> None:
    def both() -> None:
        ask(tmp_path, add)
        wishes(tmp_path).ask_to_pause(1, "drain")

    assert run(tmp_path, 6, after(1, both)).stopped == "paused"
    assert len(context(tmp_path).trials) == 2


def test_a_pause_that_was_asked_of_the_session_before_it_began_anew_is_kept(tmp_path: Path) -> None:
    def on_event(event: Event) -> None:
        after(1, lambda: ask(tmp_path, add))(event)
        after(2, lambda: wishes(tmp_path).ask_to_pause(1, "drain"))(event)

    assert run(tmp_path, 6, on_event).stopped == "paused"
    assert len(context(tmp_path).trials) == 3


def test_a_request_to_pause_holds_for_the_session_it_names_alone(tmp_path: Path) -> None:
    wishes(tmp_path).ask_to_pause(7, "now")
    assert len(run(tmp_path, 3).trials) == 3


def test_what_does_not_fit_the_study_changes_nothing_and_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path, lambda s: replace(s, limits={"x": Limit(5.0, 9.0)}))
    assert len(run(tmp_path, 3).trials) == 3
    assert "does not fit the study" in caplog.text
    assert context(tmp_path).steering == Steering()


def test_of_wishes_that_come_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    def note(text: str) -> None:
        ask(tmp_path, lambda s: replace(s, notes=(*s.notes, Note(text))))

    with ThreadPoolExecutor(8) as people:
        list(people.map(note, map(str, range(24))))
    last = wishes(tmp_path).last
    assert last is not None
    assert {n.text for n in last.notes} == set(map(str, range(24)))


def test_lines_that_were_cut_off_or_damaged_are_left_out(tmp_path: Path) -> None:
    ask(tmp_path, narrow)
    path = tmp_path / "runs" / "s" / "wishes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"what": "\xff\xfe\n[1]\n{"what":"/narrow x 0 0.1","steering":{"lim')
    assert [w.what for w in wishes(tmp_path).all] == ["/x"]
    ask(tmp_path, narrow, "/again")
    assert [w.what for w in wishes(tmp_path).all] == ["/x", "/again"]


def test_keys_in_a_note_stay_out_of_storage_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef0123456789")
    where, space = f"sqlite:///{tmp_path / 'study.db'}", llmhpo.SearchSpace.from_dict(SPACE)
    store = Store(where, "s", space, Task(), log=tmp_path / "events.jsonl")
    store.steer(Steering(notes=(Note("my key is sk-canary-0123456789abcdef0123456789"),)))
    store.close()
    assert b"sk-canary" not in (tmp_path / "events.jsonl").read_bytes()
    assert b"sk-canary" not in (tmp_path / "study.db").read_bytes()


def test_steering_is_undone_without_a_trial_that_no_longer_fits(tmp_path: Path) -> None:
    run(tmp_path, 5, after(1, lambda: ask(tmp_path, add)))
    began = llmhpo.SearchSpace.from_dict(SPACE)
    ask(tmp_path, lambda s: undone(began, s, Steering()))
    run(tmp_path, 9)
    trials = context(tmp_path).trials
    assert {t.params["wd"] for t in trials[5:]} == {0.5}


def test_opening_tells_how_many_trials_there_are_to_be_now(tmp_path: Path) -> None:
    ask(tmp_path, lambda s: replace(s, budget=Budget(n_trials=2)))
    seen: list[Event] = []
    run(tmp_path, 5, seen.append)
    assert [e.n_trials for e in seen if isinstance(e, Opened)] == [2]


def test_a_study_that_is_asked_and_told_keeps_to_what_was_said_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with llmhpo.Study(SPACE, study_name="s", llm="none", seed=1) as study:
        study.tell(study.ask()[0], 1.0)
        ask(tmp_path, narrow)
        assert all(float(t.params["x"]) <= 0.4 for t in study.ask(3))  # type: ignore[arg-type]


def test_the_log_tells_each_change(tmp_path: Path) -> None:
    run(tmp_path, 3, after(0, lambda: ask(tmp_path, narrow)))
    lines = [json.loads(line) for line in (tmp_path / "runs" / "s" / "events.jsonl").read_text().splitlines()]
    told = [line["data"]["steering"] for line in lines if line["kind"] == "steered"]
    assert told == [{"limits": {"x": {"low": 0.0, "high": 0.4}}}]


def test_what_was_added_reaches_the_command_of_trials_and_of_their_confirmation(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import json, os, sys\nopen('argv.txt', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "json.dump({'value': float(sys.argv[2])}, open(os.environ['LLMHPO_RESULT'], 'w'))\n"
    )
    command = f"{sys.executable} t.py --x {{x}}"
    ask(tmp_path, lambda s: replace(add(s), arguments="--wd {wd}"))
    result = llmhpo.optimize(command, SPACE, n_trials=2, llm="none", study_name="s", cwd=tmp_path, seed=1)
    llmhpo.confirm(command, result, 1, cwd=tmp_path)
    lines = (tmp_path / "argv.txt").read_text().splitlines()
    assert len(lines) == 4
    assert all("--wd 0" in line or "--wd 1" in line for line in lines), lines


def test_each_confirmation_follows_the_space_as_it_was_changed_before(tmp_path: Path) -> None:
    first = llmhpo.confirm(bowl, run(tmp_path, 2), 1, cwd=tmp_path)
    ask(tmp_path, lambda s: replace(add(widen(s)), params={**widen(s).params, **add(s).params}))
    second = llmhpo.confirm(bowl, run(tmp_path, 3), 1, cwd=tmp_path)
    ask(tmp_path, lambda s: replace(s, params={**s.params, "wd2": WD}, added=(*s.added, "wd2")))
    third = llmhpo.confirm(bowl, run(tmp_path, 4), 1, cwd=tmp_path)
    assert [c.complete for c in (first, second, third)] == [True, True, True]


def test_runs_of_an_earlier_confirmation_count_as_run_with_the_default_of_what_was_added_since(tmp_path: Path) -> None:
    before = llmhpo.confirm(bowl, run(tmp_path, 2), 1, cwd=tmp_path)
    ask(tmp_path, add)
    told: list[Event] = []
    again = llmhpo.confirm(bowl, run(tmp_path, 2), 1, cwd=tmp_path, on_event=told.append)
    assert (again.best.values, told) == (before.best.values, [])


def test_a_file_that_says_what_was_said_in_a_chat_is_of_the_same_study(tmp_path: Path) -> None:
    run(tmp_path, 2, after(0, lambda: ask(tmp_path, add)))
    result = run(tmp_path, 3, space=SPACE | {"wd": WD})
    assert len(result.trials) == 3


def test_a_file_that_contradicts_the_study_is_refused_with_what_differs(tmp_path: Path) -> None:
    run(tmp_path, 2, after(0, lambda: ask(tmp_path, add)))
    other = SPACE | {"x": {"type": "float", "low": 0.0, "high": 2.0, "default": 0.9}}
    with pytest.raises(StudyMismatchError, match=r"changed x.*another study_name or go back to that space"):
        run(tmp_path, 3, space=other)


def requests(folder: Path) -> list[str]:
    """The prompts that were sent, as the log has them."""
    lines = (folder / "runs" / "s" / "events.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["kind"] == "request"]


def with_model(folder: Path, n_trials: int, on_event: Callable[[Event], None], **caps: int) -> None:
    llmhpo.optimize(
        bowl, SPACE, n_trials=n_trials, task="a bowl", llm=ScriptedModel(["{}"] * 9), study_name="s", cwd=folder, seed=1,
        on_event=on_event, n_workers=1, **caps,
    )  # fmt: skip


def test_other_words_for_the_task_are_in_the_next_prompt(tmp_path: Path) -> None:
    def say(steering: Steering) -> Steering:
        return replace(steering, task="the rim of a crater", notes=(Note("look"),))

    with_model(tmp_path, 4, after(1, lambda: ask(tmp_path, say)))
    first, *_, last = requests(tmp_path)
    assert ("a bowl" in first, "a bowl" in last, "the rim of a crater" in last) == (True, False, True)
    assert context(tmp_path).task.text == "the rim of a crater"


def test_a_model_whose_cap_was_reached_is_asked_again_once_the_person_gives_more(tmp_path: Path) -> None:
    def more(steering: Steering) -> Steering:
        return replace(steering, budget=Budget(max_requests=8), notes=(Note("look"),))

    with_model(tmp_path, 8, after(5, lambda: ask(tmp_path, more)), max_requests=1)
    assert 1 < len(requests(tmp_path)) <= 8
    assert replay(tmp_path / "runs" / "s" / "events.jsonl").problems == ()

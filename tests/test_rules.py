"""What ends a study before its last trial."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

import llmhpo
from llmhpo.audit import replay
from llmhpo.errors import ConfigError
from llmhpo.events import Event, Finished, Launched, Stopped
from llmhpo.rules import StopRules, Stopwatch, check, expected_gain
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


def context(values: list[float | None], direction: Any = "minimize", *, noisy: bool = False) -> Context:
    """Trials at growing x; a value of None is a failure."""
    made = [
        Trial(
            i,
            Proposal({"x": (i + 0.5) / len(values)}, "random"),
            Outcome("failed") if value is None else Outcome("ok", value),
        )
        for i, value in enumerate(values)
    ]
    return Context(Task("", "loss", direction, noisy=noisy), SPACE, tuple(made))


def reason(rules: StopRules, known: Context) -> str | None:
    stop = check(rules, known)
    return None if stop is None else stop.reason


def test_without_rules_nothing_ends_a_study() -> None:
    assert check(StopRules(), context([1.0] * 50)) is None


@pytest.mark.parametrize(
    ("direction", "values", "ends"),
    [
        ("minimize", [0.3, 0.2], True),
        ("minimize", [0.3, 0.21], False),
        ("maximize", [0.1, 0.2], True),
        ("maximize", [0.1, 0.19], False),
        ("minimize", [None, None], False),
        ("minimize", [], False),
    ],
)
def test_a_value_as_good_as_the_target_ends_it(direction: str, values: list[float | None], ends: bool) -> None:
    assert (reason(StopRules(stop_at=0.2), context(values, direction)) == "target") is ends


def test_one_lucky_run_of_a_noisy_job_is_no_target_reached() -> None:
    lucky = context([5.0, 4.9, 5.1, 1.0, 5.0, 5.1, 4.9, 5.0], noisy=True)
    assert lucky.best is not None
    assert lucky.best.value == 1.0
    assert check(StopRules(stop_at=1.0), lucky) is None


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.1, 0.2, 0.3], False),
        ([0.1, 0.2, 0.3, 0.1], True),  # an equal is no improvement
        ([0.5, 0.2, 0.3, 0.4], False),
        ([0.1, None, None, None], True),
        ([None, None, None], True),
        ([None, None], False),
    ],
)
def test_so_many_trials_without_a_better_one_end_it(values: list[float | None], ends: bool) -> None:
    assert (reason(StopRules(stop_stale=3), context(values)) == "stale") is ends


def test_one_trial_without_a_better_one_may_end_it() -> None:
    assert reason(StopRules(stop_stale=1), context([0.1, 0.2])) == "stale"


def test_trials_that_still_run_are_not_stale() -> None:
    known = context([0.1, 0.2, 0.3])
    running = tuple(Trial(3 + i, Proposal({"x": 0.01 * i}, "gp")) for i in range(5))
    assert check(StopRules(stop_stale=3), Context(known.task, SPACE, (*known.trials, *running))) is None


def test_what_is_expected_of_another_trial_is_in_the_units_of_the_metric() -> None:
    curve = [(i + 0.5 - 6) ** 2 / 144 for i in range(12)]
    gain = expected_gain(context(curve))
    assert 0 <= gain < 0.01
    scaled = expected_gain(context([1000 * v for v in curve]))
    assert scaled == pytest.approx(1000 * gain, rel=0.05)


def test_a_gain_is_the_same_whether_losses_fall_or_scores_rise() -> None:
    curve = [abs(i - 5.2) for i in range(12)]
    assert expected_gain(context(curve)) == pytest.approx(expected_gain(context([-v for v in curve], "maximize")))


def test_little_to_gain_ends_it_and_much_does_not() -> None:
    known = context([(i - 6.0) ** 2 for i in range(14)])
    gain = expected_gain(known)
    assert reason(StopRules(stop_gain=1.01 * gain + 1e-12), known) == "gain"
    assert check(StopRules(stop_gain=0.99 * gain + 1e-15), known) is None


def test_a_few_trials_are_too_few_to_say_that_nothing_can_be_gained() -> None:
    assert check(StopRules(stop_gain=1e9), context([1.0] * 9)) is None
    assert expected_gain(context([1.0])) == math.inf


def test_nothing_can_be_gained_where_all_was_tried() -> None:
    space = SearchSpace.from_dict({"x": {"type": "categorical", "choices": ["a", "b", "c", "d"]}})
    trials = tuple(Trial(i, Proposal({"x": "abcd"[i % 4]}, "random"), Outcome("ok", float(i % 4))) for i in range(12))
    assert expected_gain(Context(Task(), space, trials)) == 0.0


@pytest.mark.parametrize(
    "rule",
    [
        {"stop_at": math.nan},
        {"stop_at": "0.5"},
        {"stop_at": True},
        {"stop_stale": 0},
        {"stop_stale": 2.5},
        {"stop_gain": 0.0},
        {"stop_gain": math.inf},
        {"max_wall_s": -1},
        {"max_wall_s": "1h"},
    ],
)
def test_a_rule_that_makes_no_sense_is_named(rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(rule))):
        StopRules(**rule)


# --- time -------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_of_earlier_sessions_counts() -> None:
    clock, kept = Clock(), list[float]()
    watch = Stopwatch(100.0, 70.0, kept.append, clock)
    clock.now += 29.0
    assert watch.stop is None
    clock.now += 1.5
    assert watch.stop is not None
    assert "max_wall_s=100" in watch.stop.message
    watch.save()
    assert kept == [30.5]


def test_the_time_is_kept_every_ten_seconds() -> None:
    clock, kept = Clock(), list[float]()
    watch = Stopwatch(None, 0.0, kept.append, clock)
    for _ in range(100):
        clock.now += 1.0
        assert 0 < watch.save_if_due() <= 10
    assert len(kept) == 10
    assert watch.left_s == math.inf


# --- whole studies ----------------------------------------------------------------------------------------------------


def parabola(p: dict[str, Any]) -> float:
    return (float(p["x"]) - 0.3) ** 2


def run(folder: Path, events: list[Event], objective: Any = parabola, **kw: Any) -> llmhpo.Result:
    where = {"storage": f"sqlite:///{folder / 's.db'}", "study_name": "s", "cwd": folder}
    return llmhpo.optimize(objective, SPACE, llm=None, seed=1, progress=False, on_event=events.append, **where, **kw)


def stopped(events: list[Event]) -> Stopped:
    assert isinstance(events[-1], Stopped)
    return events[-1]


@pytest.mark.parametrize(
    ("rule", "why"), [({"stop_at": 1e-3}, "target"), ({"stop_stale": 6}, "stale"), ({"stop_gain": 1e-3}, "gain")]
)
def test_a_rule_ends_a_study_and_ends_it_again_at_once(tmp_path: Path, rule: dict[str, Any], why: str) -> None:
    events: list[Event] = []
    first = run(tmp_path, events, n_trials=60, **rule)
    assert first.stopped == why
    assert 1 <= len(first.trials) < 60
    again: list[Event] = []
    assert [t.value for t in run(tmp_path, again, n_trials=60, **rule).trials] == [t.value for t in first.trials]
    assert stopped(again).reason == why
    assert "goes on" in stopped(again).message
    assert not any(isinstance(e, Launched) for e in again)
    longer = run(tmp_path, [], n_trials=len(first.trials) + 2)
    assert len(longer.trials) == len(first.trials) + 2


def test_a_rule_changes_no_trial_before_it_ends_the_study(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    free = run(tmp_path, [], n_trials=25)
    ruled = run(tmp_path / "a", [], n_trials=60, stop_gain=1e-4)
    n = min(len(ruled.trials), 25)
    assert n >= 10
    assert [t.params for t in ruled.trials[:n]] == [t.params for t in free.trials[:n]]


def test_jobs_that_run_when_the_target_is_reached_go_on_to_their_end(tmp_path: Path) -> None:
    def job(p: dict[str, Any]) -> float:
        time.sleep(0.1 if p["x"] < 0.5 else 0.3)
        return float(p["x"])

    events: list[Event] = []
    result = run(tmp_path, events, job, n_trials=40, n_workers=4, isolated=False, stop_at=0.5)
    assert result.stopped == "target"
    assert all(t.value is not None for t in result.trials)
    assert len([e for e in events if isinstance(e, Finished)]) == len(result.trials) < 40


def test_when_the_time_is_up_running_jobs_are_ended_and_run_again_later(tmp_path: Path) -> None:
    command = ["sh", "-c", "test -e quick || sleep 60; echo '{{\"value\": {x}}}' > $LLMHPO_RESULT"]
    began = time.monotonic()
    events: list[Event] = []
    result = run(tmp_path, events, command, n_trials=5, n_workers=2, max_wall_s=4.0)
    assert time.monotonic() - began < 40
    assert result.stopped == "wall"
    assert len(result.trials) == 2
    assert [t.value for t in result.trials] == [None, None]
    again: list[Event] = []
    run(tmp_path, again, command, n_trials=5, n_workers=2, max_wall_s=4.0)
    assert stopped(again).reason == "wall"
    assert not any(isinstance(e, Launched) for e in again)
    (tmp_path / "quick").touch()
    more = run(tmp_path, [], command, n_trials=2, n_workers=2)
    assert [t.number for t in more.trials] == [0, 1]
    assert all(t.value is not None for t in more.trials)


def test_a_replay_finds_a_study_that_its_rules_ended_as_it_was(tmp_path: Path) -> None:
    run(tmp_path, [], n_trials=60, stop_stale=6)
    log = next(tmp_path.glob("*.jsonl"))
    assert replay(log).problems == ()


def test_a_replay_tells_a_stop_that_no_rule_explains(tmp_path: Path) -> None:
    from llmhpo.store import Store

    run(tmp_path, [], n_trials=60, stop_stale=6)
    log = next(tmp_path.glob("*.jsonl"))
    store = Store(f"sqlite:///{tmp_path / 's.db'}", "s", SPACE, Task(), log=log)
    store.log("stop", {"reason": "target", "budget_left": 30})
    store.close()
    assert any("target" in problem for problem in replay(log).problems)


def test_a_study_that_is_asked_says_when_it_is_over() -> None:
    with llmhpo.Study(SPACE, llm=None, seed=1, stop_stale=4) as study:
        for _ in range(20):
            if study.stop is not None:
                break
            (trial,) = study.ask()
            study.tell(trial, 1.0)
        assert study.stop is not None
        assert study.stop.reason == "stale"
        assert len(study.trials) == 5


def test_a_study_that_is_asked_knows_its_time(tmp_path: Path) -> None:
    where = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "s"}
    with llmhpo.Study(SPACE, llm=None, max_wall_s=60.0, **where) as study:  # type: ignore[arg-type]
        assert study.stop is None
        time.sleep(0.25)
    with llmhpo.Study(SPACE, llm=None, max_wall_s=0.25, **where) as study:  # type: ignore[arg-type]
        assert study.stop is not None
        assert study.stop.reason == "wall"

from __future__ import annotations

import json
import random
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

import llmhpo
from llmhpo import Study, job
from llmhpo.comparison import Confirmation, Reruns, interval
from llmhpo.confirmation import kept_confirmation
from llmhpo.errors import ConfigError
from llmhpo.events import Confirmed, Event
from llmhpo.trial import Outcome, Task, Trial, confirm_seed

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
PLAIN = {"x": {"type": "float", "low": 0.0, "high": 1.0}}


def noisy(p: dict[str, object]) -> float:
    return (float(p["x"]) - 0.3) ** 2 + 0.02 * random.Random(job.seed()).gauss(0.0, 1.0)  # type: ignore[arg-type]


def search(n: int = 12, space: object = SPACE, **kw: object) -> llmhpo.Result:
    return llmhpo.optimize(noisy, space, llm="none", n_trials=n, seed=1, noisy=True, progress=False, **kw)  # type: ignore[arg-type]


def made(best: list[float | None], default: list[float | None], direction: str = "minimize") -> Confirmation:
    task = Task(direction=direction)  # type: ignore[arg-type]
    seeds = tuple(range(len(best)))
    return Confirmation(task, seeds, 3, Reruns({}, tuple(best), best.count(None)), Reruns({}, tuple(default), 0))


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found is not None
    assert found.low is not None
    assert found.mean == 3.0
    assert found.mean - found.low == pytest.approx(2.7764 * statistics.stdev([1, 2, 3, 4, 5]) / 5**0.5, rel=1e-4)


def test_one_value_has_a_mean_and_no_interval() -> None:
    assert interval([2.0]) == (2.0, None, None)
    assert interval([]) is None


@pytest.mark.parametrize(
    "best, default, direction, verdict",
    [
        ([1.0, 1.1, 0.9], [2.0, 2.2, 1.9], "minimize", "better"),
        ([1.0, 1.1, 0.9], [2.0, 2.2, 1.9], "maximize", "worse"),
        ([1.0, 3.0, 0.0], [2.0, 1.0, 1.9], "minimize", "not distinguishable"),
        ([1.0, None, None], [2.0, 2.0, 2.0], "minimize", "not distinguishable"),
        ([None, None, None], [2.0, 2.0, 2.0], "minimize", "not distinguishable"),
        # the seeds move both alike: only the pairs tell
        ([0.0, 10.0, 20.0], [1.0, 11.1, 20.9], "minimize", "better"),
    ],
)
def test_the_verdict_follows_from_the_pairs(
    best: list[float | None], default: list[float | None], direction: str, verdict: str
) -> None:
    assert made(best, default, direction).verdict == verdict


GOOD, BAD = [1.0, 1.1, 0.9], [2.0, 2.2, 1.9]


@pytest.mark.parametrize(
    "found, words",
    [
        (made(GOOD, BAD), ""),
        (made([1.0, 1.1, None], BAD), "1 of its 3 runs failed"),
        (made(BAD, GOOD), "on 3 new seeds it is worse than the code as it stood"),
        (made([1.0, 3.0, 0.0], BAD), "on 3 new seeds it is not distinguishable from the code as it stood"),
        (replace(made(GOOD, BAD), default=Reruns({}, (2.0, 2.2, None), 1)), "only 2 runs of the code as it stood"),
        (replace(made(GOOD, BAD), default=Reruns({}, (2.0, 2.2, None), 0)), "not all runs have ended"),
        (replace(made(GOOD, BAD), self_reported=True), "it computed its values itself"),
    ],
)
def test_an_edit_is_confirmed_by_runs_that_all_ended_well_were_measured_from_outside_and_are_better(
    found: Confirmation, words: str
) -> None:
    found = replace(found, code="a" * 40)
    assert found.objection.startswith(words)
    assert found.confirmed == (not words)


def test_winner_and_default_run_on_the_same_new_seeds() -> None:
    seeds: list[int] = []

    def f(p: dict[str, object]) -> float:
        seeds.append(job.seed())
        return noisy(p)

    result = search()
    found = llmhpo.confirm(f, result, 4)
    assert found.default is not None
    assert sorted(seeds) == sorted(2 * found.seeds)
    assert not set(found.seeds) & {result.task.job_seed(result.seed, n) for n in range(10_000)}
    assert found.verdict == "better"
    assert found.best.params == result.best_params
    assert found.complete


def test_optimize_confirms_at_the_end_and_tells_of_every_run() -> None:
    events: list[Event] = []
    result = search(confirm=3, on_event=events.append)
    assert result.confirmation is not None
    assert [(e.done, e.total) for e in events if isinstance(e, Confirmed)] == [(i + 1, 6) for i in range(6)]
    assert len(result.trials) == 12


def test_what_was_confirmed_is_read_again_for_the_same_winner_and_for_no_other(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/s.db"
    result = search(confirm=3, storage=storage, study_name="s")
    assert kept_confirmation(storage, "s", result.context) == result.confirmation
    assert kept_confirmation(storage, "s", result.context, "test") is None
    better = replace(result.trials[0].proposal, params={"x": 0.123})
    context = replace(
        result.context, trials=(*result.trials, *(Trial(12 + k, better, Outcome("ok", -9.0)) for k in range(9)))
    )
    found = kept_confirmation(storage, "s", context)
    assert found is None or found.best.values == (None, None, None)  # the default was run, the new winner was not


@pytest.mark.parametrize(
    "values, is_seedless", [([1.0, 1.0], True), ([1.0, 1.1], False), ([1.0], False), ([None, 1.0], False)]
)
def test_runs_that_are_all_alike_are_told_from_such_as_differ(values: list[float | None], is_seedless: bool) -> None:
    assert made(values, [2.0] * len(values)).is_seedless == is_seedless


def test_failures_are_counted() -> None:
    def f(p: dict[str, object]) -> float:
        if p["x"] == 0.9:
            raise RuntimeError("diverged")
        return noisy(p)

    found = llmhpo.confirm(f, search(), 3)
    assert found.default is not None
    assert (found.best.failed, found.default.failed, found.default.interval) == (0, 3, None)


def test_without_a_default_the_winner_stands_alone_and_it_is_said() -> None:
    found = llmhpo.confirm(noisy, search(space=PLAIN), 3)
    assert found.default is None
    assert found.verdict is None
    assert "no default" in found.note


def test_a_default_that_won_is_not_compared_with_itself() -> None:
    found = llmhpo.confirm(noisy, search(n=1), 2)
    assert found.default is None
    assert "is the winner" in found.note


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "5"])
def test_the_number_of_runs_is_checked_before_the_search(k: object) -> None:
    with pytest.raises(ConfigError, match="confirm="):
        search(n=10_000, confirm=k)


def test_a_study_without_a_good_trial_has_nothing_to_confirm() -> None:
    result = llmhpo.optimize(lambda p: 1 / 0, SPACE, llm="none", n_trials=1, progress=False)
    with pytest.raises(ConfigError, match="nothing to confirm"):
        llmhpo.confirm(noisy, result)


def test_a_confirmation_that_was_killed_goes_on_and_leaves_the_search_alone(tmp_path: Path) -> None:
    result = search(study_name="s", cwd=tmp_path)
    ran: list[int] = []

    def f(p: dict[str, object]) -> float:
        if len(ran) == 3:
            ran.append(-1)
            raise KeyboardInterrupt
        ran.append(job.seed())
        return noisy(p)

    with pytest.raises(KeyboardInterrupt):
        llmhpo.confirm(f, result, 3, cwd=tmp_path)
    found = llmhpo.confirm(f, result, 3, cwd=tmp_path)
    assert len(ran) == 7  # the fourth twice
    assert found.complete
    again = search(study_name="s", cwd=tmp_path)
    assert [(t.number, t.params, t.value) for t in again.trials] == [
        (t.number, t.params, t.value) for t in result.trials
    ]
    assert optuna.load_study(study_name="s:confirm", storage=result.storage).user_attrs["llmhpo:seed"] == result.seed


def test_more_rounds_run_only_what_is_missing(tmp_path: Path) -> None:
    result = search(study_name="s", cwd=tmp_path)
    ran: list[int] = []

    def f(p: dict[str, object]) -> float:
        ran.append(job.seed())
        return noisy(p)

    llmhpo.confirm(f, result, 2, cwd=tmp_path)
    llmhpo.confirm(f, result, 3, cwd=tmp_path)
    assert sorted(ran) == sorted(2 * [confirm_seed(result.seed, r) for r in range(3)])


def test_a_command_gets_the_seed_and_a_number_that_no_trial_has(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os, sys\njson.dump({'value': float(sys.argv[1]), 'trial': int(sys.argv[3]), 'seed': int(sys.argv[2])}, "
        "open(os.environ['LLMHPO_RESULT'], 'w'))\n"
    )
    command = f"{sys.executable} train.py {{x}} {{seed}} {{trial}}"
    result = llmhpo.optimize(command, SPACE, llm="none", n_trials=3, cwd=tmp_path, progress=False)
    found = llmhpo.confirm(command, result, 2, cwd=tmp_path)
    files = sorted(
        (Path(str(result.storage).removeprefix("sqlite:///")).parent / "confirm").glob("trials/*/result.json")
    )
    told = [json.loads(path.read_text()) for path in files]
    assert [t["trial"] for t in told] == [1_000_000 + i for i in range(4)]
    assert [t["seed"] for t in told] == [found.seeds[0]] * 2 + [found.seeds[1]] * 2


def test_asked_and_told_a_confirmation_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Study(SPACE, llm="none", storage=url, seed=0) as study:
        for _ in range(3):
            (trial,) = study.ask()
            study.tell(trial, float(trial.params["x"]))  # type: ignore[arg-type]
        plan = study.confirm_plan(3)
        assert len(plan) == 6
        study.confirm_tell(plan[0], 0.1)
        assert not study.confirmation(3).complete
    with Study(SPACE, llm="none", storage=url) as again:
        left = again.confirm_plan(3)
        assert left == plan[1:]
        for rerun in left:
            again.confirm_tell(rerun, 0.1 if rerun.which == "best" else 0.8)
        assert again.confirmation(3).verdict == "better"
        assert again.confirm_plan(3) == []
        assert len(again.trials) == 3


def test_a_run_that_is_not_open_cannot_be_told() -> None:
    with Study(SPACE, llm="none") as study:
        study.tell(study.ask()[0], 0.5)
        study.tell(study.ask()[0], 0.2)
        (first, *_) = study.confirm_plan(1)
        study.confirm_tell(first, failed="no power")
        with pytest.raises(ConfigError, match="no open run"):
            study.confirm_tell(first, 0.1)

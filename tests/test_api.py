from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path

import pytest

import llmhpo
from llmhpo import Outcome, Price, Study, job
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.llm.scripted import ScriptedModel

pytestmark = pytest.mark.usefixtures("patient")

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}}


def f(p: dict[str, object]) -> float:
    return float(p["x"])  # type: ignore[arg-type]


def test_a_callable_needs_nothing_but_a_space() -> None:
    result = llmhpo.optimize(f, SPACE, llm="none", n_trials=8, seed=0, progress=False)
    assert result.best_value is not None
    assert result.best_value < 0.5
    assert result.best_params is not None
    assert result.best_value == result.best_params["x"]
    assert result.storage is None


def test_an_objective_that_always_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    result = llmhpo.optimize(lambda p: f(p) / 0, SPACE, llm="none", n_trials=2, progress=False)
    assert result.best_params is None
    assert "no trial has ended well; trial 0: failed: ZeroDivisionError" in caplog.text


def test_a_frame_has_a_row_for_each_trial() -> None:
    frame = llmhpo.optimize(
        lambda p: {"value": f(p), "size": 3.0}, SPACE, llm="none", n_trials=4, progress=False
    ).to_frame()
    assert list(frame["number"]) == [0, 1, 2, 3]
    assert {"value", "status", "source", "params_x", "metrics_size"} <= set(frame.columns)


def test_a_study_with_a_name_is_kept_and_goes_on(tmp_path: Path) -> None:
    kw = {"llm": "none", "study_name": "mine", "cwd": tmp_path, "progress": False}
    llmhpo.optimize(f, SPACE, n_trials=3, **kw)  # type: ignore[arg-type]
    assert (tmp_path / "runs" / "mine" / "study.db").exists()
    seen = []

    def g(p: dict[str, object]) -> float:
        seen.append(p)
        return f(p)

    assert len(llmhpo.optimize(g, SPACE, n_trials=5, **kw).trials) == 5  # type: ignore[arg-type]
    assert len(seen) == 2


def test_a_command_is_tuned(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys\nprint('loss', float(sys.argv[1]) ** 2)\n")
    result = llmhpo.optimize(
        f"{sys.executable} train.py {{x}}", SPACE, llm="none", n_trials=4, metric="loss", metric_pattern=r"loss ([\d.e-]+)",
        cwd=tmp_path, progress=False,
    )  # fmt: skip
    assert [t.value for t in result.trials] == [pytest.approx(f(t.params) ** 2) for t in result.trials]  # type: ignore[arg-type]


def test_a_callable_with_a_time_limit_is_cut(tmp_path: Path) -> None:
    def slow(p: dict[str, object]) -> float:
        import time

        time.sleep(30)
        return 0.0

    result = llmhpo.optimize(slow, SPACE, llm="none", n_trials=1, timeout_s=0.5, progress=False)
    outcome = result.trials[0].outcome
    assert outcome is not None
    assert outcome.status == "timeout"
    assert result.best is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"llm": "opnai:gpt"}, ["'opnai'", "openai"]),
        ({"direction": "up"}, ["'up'", "maximize"]),
        ({"n_trials": 0}, ["n_trials=0"]),
        ({"n_trials": 2.5}, ["n_trials=2.5"]),
        ({"n_workers": -1}, ["n_workers=-1"]),
        ({"isolated": False, "timeout_s": 1.0}, ["isolated=False", "timeout_s"]),
        ({"metric_pattern": "x"}, ["metric_pattern='x'"]),
        ({"max_tokens": -1}, ["max_tokens=-1"]),
        ({"deadline_s": "a"}, ["deadline_s='a'"]),
        ({"gpus": "0"}, ["gpus='0'", "list"]),
        ({"objective": None}, ["objective=None", "command"]),
        ({"objective": []}, ["objective=[]"]),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        llmhpo.optimize(**{"objective": f, "space": SPACE, "llm": "none", "progress": False, **change})  # type: ignore[arg-type]
    for word in words:
        assert word in str(error.value)


def test_a_placeholder_without_a_parameter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lr"):
        llmhpo.optimize([sys.executable, "{lr}"], SPACE, llm="none", cwd=tmp_path, progress=False)
    assert not (tmp_path / "runs").exists()


def test_a_bad_space_is_a_space_error() -> None:
    with pytest.raises(SpaceError):
        llmhpo.optimize(f, {"x": {"type": "float"}}, llm="none", progress=False)


def test_a_cap_on_money_needs_a_price() -> None:
    model = ScriptedModel([], price=None)
    with pytest.raises(ConfigError, match=r"max_usd=1\.0.*price"):
        llmhpo.optimize(f, SPACE, llm=model, max_usd=1.0, progress=False)


def test_a_cap_on_tokens_stands_in_for_an_unknown_price() -> None:
    reply = json.dumps({"configurations": [{"why": "", "x": 0.1}]})
    model = ScriptedModel([reply] * 9, price=None)
    result = llmhpo.optimize(f, SPACE, llm=model, max_usd=1.0, max_tokens=10**6, n_trials=5, progress=False)
    assert result.sources["llm"] == 1
    assert result.usage.usd is None


def test_caps_hold_over_a_whole_study() -> None:
    reply = json.dumps({"configurations": [{"why": "", "x": 0.1 + 0.01 * i} for i in range(10)]})
    model = ScriptedModel([reply] * 20, price=Price(1.0, 1.0))
    result = llmhpo.optimize(f, SPACE, llm=model, n_trials=40, max_tokens=1500, progress=False)
    assert 0 < result.usage.tokens <= 1500
    assert len(result.trials) == 40


# --- ask and tell -----------------------------------------------------------------------------------------------------


def test_ask_and_tell_drive_a_study() -> None:
    with Study(SPACE, llm="none", seed=0) as study:
        for _ in range(10):
            (trial,) = study.ask()
            study.tell(trial, f(trial.params))
        assert study.best is not None
        assert study.best.value < 0.5  # type: ignore[operator]
        assert study.trials[0].params == {"x": 0.5}


def test_a_batch_has_no_repeats() -> None:
    with Study(SPACE, llm="none", seed=0) as study:
        xs = [t.params["x"] for t in study.ask(8)]
    assert len(set(xs)) == 8


def test_the_model_is_asked_where_it_is_due() -> None:
    reply = json.dumps({"configurations": [{"why": "small", "x": 0.01 * (i + 1)} for i in range(10)]})
    with Study(SPACE, llm=ScriptedModel([reply]), n_trials=30) as study:
        sources = [t.proposal.source for t in study.ask(4)]
        assert sources[0] == "default"
        assert "llm" in sources
        assert study.result.usage.calls == 1


def test_open_trials_survive_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Study(SPACE, llm="none", storage=url, seed=0) as study:
        asked = study.ask(3)
        study.tell(asked[0], 1.0)
    with Study(SPACE, llm="none", storage=url) as again:
        assert [t.number for t in again.pending] == [1, 2]
        again.tell(1, outcome=Outcome("failed", message="no power"))
        again.tell(2, failed="no power either")
        assert again.pending == ()
        assert len(again.result.trials) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", True, object()])
def test_tell_takes_finite_numbers_only(value: object) -> None:
    with Study(SPACE, llm="none") as study:
        (trial,) = study.ask()
        with pytest.raises(ConfigError, match=r"tell\(0"):
            study.tell(trial, value)  # type: ignore[arg-type]
        study.tell(trial, 0.5)


def test_tell_refuses_what_is_not_open() -> None:
    with Study(SPACE, llm="none") as study:
        (trial,) = study.ask()
        study.tell(trial, 0.5)
        with pytest.raises(ConfigError, match="no open trial"):
            study.tell(trial, 0.5)
        for n in (0, 1.5, True):
            with pytest.raises(ConfigError, match=r"ask\("):
                study.ask(n)  # type: ignore[arg-type]
        (trial,) = study.ask()
        for kw in ({"trial": "0", "value": 1.0}, {"trial": trial, "outcome": "x"}, {"trial": trial}):
            with pytest.raises(ConfigError, match=r"tell\("):
                study.tell(**kw)  # type: ignore[arg-type]


def test_tell_takes_what_was_really_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    with Study(SPACE, llm="none", storage=url) as study:
        (trial,) = study.ask()
        told = study.tell(trial, 0.3, params={"x": 0.3})
        assert told.params == study.result.best_params == {"x": 0.3}
        assert study.pending == ()
    with Study(SPACE, llm="none", storage=url) as again:
        assert again.best == told


def test_neither_what_was_asked_nor_what_was_run_is_proposed_again() -> None:
    grid = {"x": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.01}}
    with Study(grid, llm="none", seed=1) as study:
        asked = []
        for _ in range(40):
            (trial,) = study.ask()
            asked.append(trial.params["x"])
            run = round(float(trial.params["x"]), 1)  # type: ignore[arg-type]
            study.tell(trial, (run - 0.37) ** 2, params={"x": run})
    assert len(set(asked)) == 40


@pytest.mark.parametrize("params", [{"x": 2.0}, {"y": 0.5}, {}, 0.5])
def test_tell_refuses_what_is_no_configuration(params: object) -> None:
    with Study(SPACE, llm="none") as study:
        (trial,) = study.ask()
        with pytest.raises(ConfigError, match=r"tell\(0\): params="):
            study.tell(trial, 0.5, params=params)  # type: ignore[arg-type]
        assert study.pending == (trial,)


# --- noise ------------------------------------------------------------------------------------------------------------


def noisy_f(p: dict[str, object]) -> float:
    return (f(p) - 0.3) ** 2 + 0.1 * random.Random(job.seed()).gauss(0.0, 1.0)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_callable_knows_its_seed(isolated: bool) -> None:
    def seed_of(p: dict[str, object]) -> float:
        from llmhpo import job

        return float(job.seed())

    for noisy, distinct in ((False, 1), (True, 3)):
        result = llmhpo.optimize(
            seed_of, SPACE, llm="none", n_trials=3, seed=9, noisy=noisy, isolated=isolated, progress=False
        )
        assert len({t.value for t in result.trials}) == distinct
        assert result.trials[0].value == 9.0


def test_an_exact_study_is_what_it_was() -> None:
    result = llmhpo.optimize(f, SPACE, llm="none", n_trials=14, seed=0, progress=False)
    assert result.estimate is None
    assert result.best_value == min(t.value for t in result.trials if t.value is not None)
    assert "repeat" not in result.sources


def test_the_best_of_a_noisy_study_is_an_expected_value() -> None:
    result = llmhpo.optimize(noisy_f, SPACE, llm="none", n_trials=25, seed=0, noisy=True, progress=False)
    assert result.estimate is not None
    assert result.best is result.estimate.trial
    assert result.best_value == result.estimate.value
    assert result.best_value > min(t.value for t in result.trials if t.value is not None)


def test_a_noisy_study_that_was_stopped_goes_on_as_one_that_was_not(tmp_path: Path) -> None:
    kw = {"llm": "none", "seed": 3, "noisy": True, "progress": False}
    whole = llmhpo.optimize(noisy_f, SPACE, n_trials=16, **kw)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        llmhpo.optimize(
            lambda p: noisy_f(p) if job.seed() != whole.task.job_seed(3, 11) else _stop(),
            SPACE, n_trials=16, study_name="n", cwd=tmp_path, **kw,  # type: ignore[arg-type]
        )  # fmt: skip
    again = llmhpo.optimize(noisy_f, SPACE, n_trials=16, study_name="n", cwd=tmp_path, **kw)  # type: ignore[arg-type]
    assert [(t.params, t.value, t.proposal.source) for t in again.trials] == [
        (t.params, t.value, t.proposal.source) for t in whole.trials
    ]


def _stop() -> float:
    raise KeyboardInterrupt


def test_a_limited_callable_runs_in_a_process_and_is_ended_there() -> None:
    def hog(params: dict[str, object]) -> float:
        data = bytearray(b"x" * 150_000_000)
        time.sleep(20)
        return float(len(data))

    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    result = llmhpo.optimize(hog, space, llm="none", n_trials=1, limits={"memory_gb": 0.1}, progress=False)
    outcome = result.trials[0].outcome
    assert outcome is not None
    assert outcome.status == "oom"
    assert "limits.memory_gb=0.1" in outcome.message


def test_limits_cannot_be_kept_in_this_process() -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    with pytest.raises(ConfigError, match="limits"):
        llmhpo.optimize(lambda p: 1.0, space, llm="none", isolated=False, limits={"memory_gb": 1})

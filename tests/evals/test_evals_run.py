"""Runs: the same seed gives the same lines, what is done is not done again, every arm starts where the others do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.__main__ import main
from evals.arms import check_name, make_arm
from evals.arms.models import Meter, garbage_model, recorded_model
from evals.arms.optuna_arm import OptunaArm
from evals.record import Key, Run, append_run, mend, read_runs
from evals.run import Plan, run_one
from evals.tasks import MINI, Task, load
from evals.tasks.anonymous import anonymised
from llmhpo import LLMSampler
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import ScriptedModel

POOL = "hpob/5527_10101"  # conditional, snaps


class Spy(ScriptedModel):
    """Answers nothing and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__([])
        self.requests: list[Request] = []

    def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        return super().complete(request)


@pytest.fixture(scope="module")
def pool() -> Task:
    return load(MINI, "mini", pattern=POOL)[0]


def key(arm: str, **changes: object) -> Key:
    return replace(Key(POOL, arm, 0, "unseeded", 1, 8, False), **changes)  # type: ignore[arg-type]


def timeless(run: Run) -> dict[str, object]:
    raw = json.loads(run.to_line())
    return {name: value for name, value in raw.items() if name != "seconds"}


@pytest.mark.parametrize("arm", ["random", "tpe", "none", "recorded", "garbage"])
def test_the_same_seed_gives_the_same_line(pool: Task, arm: str) -> None:
    assert timeless(run_one(pool, key(arm))) == timeless(run_one(pool, key(arm)))


def test_all_arms_begin_with_the_same_configuration(pool: Task) -> None:
    for start in ("unseeded", "seeded"):
        firsts = {run_one(pool, key(arm, start=start, budget=1)).values[0] for arm in ("random", "tpe", "none")}
        assert len(firsts) == 1
    assert run_one(pool, key("random", start="seeded", budget=1)).values[0] == pool.evaluate(pool.recorded[0]).value


@pytest.mark.parametrize("arm", ["random", "tpe", "none", "garbage"])
def test_a_batch_is_asked_before_it_is_told(pool: Task, arm: str) -> None:
    run = run_one(pool, key(arm, batch=4, budget=10))
    assert len(run.values) == len(run.seconds) == len(run.sources) == 10
    assert run.seconds[1] == run.seconds[4]


def test_cma_es_keeps_its_generations_although_it_is_told_other_points(pool: Task) -> None:
    pytest.importorskip("cmaes")
    task = load(MINI, "mini", pattern="lcbench_pool/*")[0]
    arm = make_arm("cmaes", task, 0, 40)
    assert isinstance(arm, OptunaArm)
    arm.tell(None, task.evaluate(task.recorded[0]))
    for _ in range(30):
        asked = arm.ask()
        arm.tell(asked, task.evaluate(asked.params))
    generations = {t.system_attrs.get("cma:generation") for t in arm._done}
    assert len(generations - {None}) > 1


def test_a_models_configurations_snap_before_the_optimizer_reads_them(pool: Task) -> None:
    run = run_one(pool, key("recorded", budget=12))
    assert "llm" in run.sources
    assert not any(run.repeat)
    assert run.requests >= 1
    assert run.input_tokens > 0


def test_garbage_fits_the_schema_or_is_missing(pool: Task) -> None:
    replies = garbage_model(pool, 0)._replies  # type: ignore[attr-defined]
    good = json.loads(replies[0])["configurations"]
    assert all(isinstance(pool.space.coerce(pool.space.drop_inactive(c)), dict) for c in good)
    assert good[0] == good[5]
    assert 3 not in replies


def test_replies_snap_inside_of_fences_and_pass_where_they_are_unreadable(pool: Task) -> None:
    meter = Meter(recorded_model(pool), pool)
    for text in ("I cannot help with that", '{"configurations": [{"cost": 1}, 3]}', '{"configurations": 1}'):
        assert meter._snapped(text) == text
    snapped = meter._snapped('```json\n{"configurations": [{"kernel": "linear", "cost": 1.0, "why": "so"}]}\n```')
    assert snapped.startswith("```json")
    (configuration,) = json.loads(snapped[7:-3])["configurations"]
    assert configuration.pop("why") == "so"
    assert configuration == {"gamma": None, "degree": None, **pool.evaluate({"cost": 1.0, "kernel": "linear"}).params}


def test_a_plan_leaves_out_what_cannot_be(pool: Task) -> None:
    bare = replace(pool, recorded=(), default=None)
    plan = Plan(MINI, "mini", ("random", "recorded"), seeds=2, budget=5)
    assert {(k.arm, k.start) for k in plan.keys([bare])} == {("random", "unseeded")}
    assert len(list(plan.keys([pool]))) == 8


def test_a_cut_line_is_forgotten_and_any_other_broken_one_named(pool: Task, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    run = run_one(pool, key("random"))
    append_run(path, run)
    whole = path.read_text()
    path.write_text(whole + whole[:50])
    assert read_runs(path) == [run]
    mend(path)
    assert path.read_text() == whole
    path.write_text("{}\n" + whole)
    with pytest.raises(ValueError, match=r"runs\.jsonl:1"):
        read_runs(path)


def test_the_commands_run_resume_score_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    command = ["run", "--suite", "mini", "--tasks", "hpob/5[59]*", "--seeds", "2", "--budget", "6", "--quiet"]
    command += ["--arms", "random,tpe", "--out", str(tmp_path)]
    assert main(command) == 0
    first = (tmp_path / "runs.jsonl").read_text()
    assert len(first.splitlines()) == 3 * 2 * 2 * 2
    assert main(command) == 0
    assert (tmp_path / "runs.jsonl").read_text() == first
    assert main(["report", "--out", str(tmp_path), "--markdown"]) == 0
    assert "| tpe |" in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
    assert (tmp_path / "regret.png").stat().st_size > 10_000


def test_a_run_that_raises_is_reported_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--tasks", "hpob/5859*", "--seeds", "1", "--budget", "2", "--quiet", "--out", str(tmp_path)]
    assert main([*command, "--arms", "local:/no/such/model,random"]) == 1
    assert "2 runs failed" in capsys.readouterr().err
    assert {r.key.arm for r in read_runs(tmp_path / "runs.jsonl")} == {"random"}


OWN = "import optuna\ndef make(seed):\n    return optuna.samplers.QMCSampler(seed=seed)\nnothing = print\ndef seedless():\n    pass\n"


def test_a_sampler_of_ones_own_is_an_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine_to_compare.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["run", "--tasks", "synthetic/branin", "--seeds", "1", "--budget", "3", "--start", "unseeded", "--quiet", "--arms"]  # fmt: skip
    assert main([*words, "own:mine_to_compare:make", "--out", str(tmp_path / "out")]) == 0
    (run,) = read_runs(tmp_path / "out" / "runs.jsonl")
    assert run.sources == ["start", "make", "make"]
    for name in (
        "own:mine_to_compare:made",
        "own:mine_to_compare:nothing",
        "own:mine_to_compare:seedless",
        "own:absent:make",
    ):
        assert main([*words, name, "--out", str(tmp_path / "out")]) == 2
        assert f"--arms: '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "nnone", "tpee", "llambo@", "open:ai", "critic@nothing", "critic@tpe", "openai:", "openai", "llambo:typo@smollm2",
        "zhang:x@none", "zhang:chat@none", "llambo:disc", "critic",
    ],
)  # fmt: skip
def test_an_arm_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["run", "--arms", f"random,{name}", "--out", str(tmp_path)]) == 2
    assert f"{name!r} is no arm; use random, tpe" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["none", "tpe", "smac", "recorded_tpe", "openai:x", "llambo:disc@smollm2", "critic@local:x", "llambo-gen@smollm2"],
)
def test_an_arm_that_is_there_passes(name: str) -> None:
    check_name(name)


def test_a_run_is_played_back_from_its_cassette(pool: Task, tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text(
        "".join(
            json.dumps({"text": recorded, "usage": {"input_tokens": 700, "usd": 0.1}}) + "\n"
            for recorded in replies(pool)
        )
    )
    first = run_one(pool, key(f"scripted:{tmp_path / 'replies.jsonl'}"), record=tmp_path / "cassette.jsonl")
    again = run_one(pool, key(f"replay:{tmp_path / 'cassette.jsonl'}"))
    assert first.requests >= 1
    assert (again.values, again.sources, again.usd) == (first.values, first.sources, first.usd)


def replies(task: Task) -> list[str]:
    """Three batches of configurations of the pool."""
    rows = task.space.sample(np.random.default_rng(1), 12)
    keyed = [{**dict.fromkeys(task.space.names), **p} for p in rows]
    return [json.dumps({"configurations": keyed[4 * k : 4 * k + 4]}) for k in range(3)]


def test_anonymous_runs_stand_apart_and_show_the_model_no_name(pool: Task) -> None:
    hidden = anonymised(pool)
    model = Spy()
    arm_key = key("spy", anonymous=True, budget=3)
    sampler = LLMSampler(
        Meter(model, hidden), task=hidden.words, search_space=hidden.space, metric=hidden.metric, seed=0
    )
    arm = OptunaArm(hidden, sampler, arm_key.arm, ordinals_as_integers=False)
    arm.tell(None, hidden.evaluate(hidden.recorded[0]))
    for _ in range(3):
        asked = arm.ask()
        arm.tell(asked, hidden.evaluate(asked.params))
    shown = " ".join(m.content for request in model.requests for m in request.messages)
    assert "p1" in shown
    assert not [w for w in ("kernel", "gamma", "degree", "radial", "polynomial", "svm", "acc:", "OpenML") if w in shown]


def test_scoring_nothing_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--out", str(tmp_path)]) == 1
    assert "python -m evals run" in capsys.readouterr().err


def test_a_glob_that_no_task_matches_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--arms", "random", "--tasks", "nothing*", "--quiet", "--out", str(tmp_path)]) == 2
    assert "--tasks 'nothing*' matches none of the suite 'mini'" in capsys.readouterr().err


def test_an_arm_that_has_no_task_in_the_suite_is_told_instead_of_the_glob(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--suite", "synthetic", "--arms", "recorded", "--quiet", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no task of the suite 'synthetic' is for --arms recorded" in told
    assert "--tasks" not in told

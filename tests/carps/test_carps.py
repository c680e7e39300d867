"""llmhpo as CARP-S runs it: the real program, with no model and with a scripted one, on BBOB."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optuna
import pytest

ROOT = Path(__file__).parents[2]
SAMPLER = "optimizer.optuna_cfg.study.sampler"
LOGS = Path("runs/llmhpo/BBOB/bbob/2/8/0/1")
KEEP = "+optimizer.optuna_cfg.study.storage=sqlite:///${outdir}/study.db"
SPACE = "{x0: {type: float, low: -5, high: 5}, x1: {type: float, low: -5, high: 5}}"

# Each run of CARP-S is a process of its own: seconds, and many on a busy machine.
pytestmark = [pytest.mark.carps, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter of an environment with CARP-S: this one, or the one that `make carps` builds."""
    try:
        version("carps")
    except PackageNotFoundError:
        built = ROOT / ".venv-carps" / "bin" / "python"
        if not built.exists():
            pytest.fail(f"neither this environment nor {built} has CARP-S: run `make carps`", pytrace=False)
        return str(built)
    return sys.executable


@pytest.fixture(scope="session")
def documented() -> list[str]:
    """The overrides of the command for one run that evals/README.md shows."""
    readme = (ROOT / "evals" / "README.md").read_text()
    found = re.search(r"-m carps\.run ((?:.*\\\n)*.*)", readme)
    assert found is not None
    return shlex.split(found[1].replace("\\\n", " "))


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """A scripted model of ten configurations, and these."""
    rows = [{"x0": round(-4 + 0.7 * i, 3), "x1": round(3 - 0.5 * i, 3)} for i in range(10)]
    path = tmp_path_factory.mktemp("model") / "replies.jsonl"
    path.write_text(json.dumps({"configurations": [{"why": "known", **row} for row in rows]}) + "\n")
    return path, rows


def run(words: list[str], cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def carps(python: str, overrides: list[str], cwd: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the study of a run in `cwd`, as it was stored."""
    run([python, "-m", "carps.run", *overrides, KEEP], cwd)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{cwd / LOGS / 'study.db'}")
    return study.trials


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def without_model(
    python: str, documented: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[optuna.trial.FrozenTrial]]:
    """Where the documented command ran, and the trials."""
    folder = tmp_path_factory.mktemp("none")
    return folder, carps(python, documented, folder)


def test_the_documented_command_writes_the_results_of_every_trial(without_model: Any) -> None:
    folder, trials = without_model
    logged = lines(folder / LOGS / "trial_logs.jsonl")
    assert [line["trial_info"]["config"] for line in logged] == [
        [pytest.approx(t.params["x0"]), pytest.approx(t.params["x1"])] for t in trials
    ]
    assert [line["trial_value"]["cost"] for line in logged] == [t.value for t in trials]
    assert len(logged) == 30


def test_the_incumbent_of_carps_is_the_best_trial(without_model: Any) -> None:
    folder, trials = without_model
    last = lines(folder / LOGS / "trajectory_logs.jsonl")[-1]
    assert last["trial_value"]["cost"] == min(t.value for t in trials)


def test_after_the_first_trial_every_configuration_is_a_proposal_of_ours(without_model: Any) -> None:
    _, trials = without_model
    assert trials[0].user_attrs["source"] == "random"
    assert all(t.user_attrs["llmhpo:params"] == t.params for t in trials[1:])
    assert sum(t.user_attrs["source"] not in ("random", "tpe") for t in trials) >= 10


def test_a_model_is_asked_from_the_second_trial_on(
    python: str, documented: list[str], script: Any, tmp_path: Path
) -> None:
    path, rows = script
    trials = carps(python, [*documented, f"+{SAMPLER}.task='two numbers'", *_with(path, 8)], tmp_path)
    ours = [t.params for t in trials if t.user_attrs["source"] == "llm"]
    assert trials[1].user_attrs["source"] == "llm"
    assert ours[0] == rows[0]
    assert all(params in rows for params in ours)  # as many as the model's record earns it


def test_with_the_space_given_a_model_is_asked_from_the_first_trial_on(
    python: str, documented: list[str], script: Any, tmp_path: Path
) -> None:
    path, rows = script
    trials = carps(python, [*documented, f"+{SAMPLER}.search_space={SPACE}", *_with(path, 4)], tmp_path)
    assert trials[0].user_attrs["source"] == "llm"
    assert trials[0].params in rows


def _with(script: Path, n_trials: int) -> list[str]:
    return [f"{SAMPLER}.llm=scripted:{script}", f"task.optimization_resources.n_trials={n_trials}"]


def test_runs_of_carps_are_scored_as_ours(python: str, script: Any, tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    bench = [python, "-m", "evals.carps_bench", "--out", str(out), "--functions", "1", "--dimensions", "2"]
    arms = f"scripted:{script[0]},tpe_default,random"
    run([*bench, "--seeds", "2", "--trials", "6", "--arms", arms], ROOT)
    table = run([python, "-m", "evals", "score", "--out", str(out)], ROOT)
    assert re.search(r"scripted\S+ .*llm \d+ %", table)
    assert "tpe_default 100 %" in table
    assert len(lines(out / "runs.jsonl")) == 6


def test_a_run_that_fails_says_why_and_where_its_output_is(python: str, tmp_path: Path) -> None:
    bench = [python, "-m", "evals.carps_bench", "--out", str(tmp_path), "--seeds", "1", "--trials", "2"]
    done = subprocess.run([*bench, "--arms", "nobody:x"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("error: arm 'nobody:x': CARP-S ended with status 1; its output is in")
    assert "'nobody:x'" in done.stderr.partition("ends with")[2]
    assert not (tmp_path / "runs.jsonl").exists()

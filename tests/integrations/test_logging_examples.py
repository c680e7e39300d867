"""MLflow and W&B through optuna-integration: the examples, run for real where the packages are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna_integration", reason="pip install 'optuna-integration[mlflow,wandb]' runs these")
EXAMPLES = Path(__file__).parents[2] / "examples" / "integrations"


def python(code: str, folder: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n{code}"],
        cwd=folder, capture_output=True, text=True, timeout=110, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_trial_is_a_run_of_mlflow_with_its_parameters_its_value_and_its_source(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    code = """
import mlflow_logging, mlflow
study = mlflow_logging.main("none", 3)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
runs = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("elastic-net").experiment_id])
assert sorted(r.data.metrics["rmse"] for r in runs) == sorted(t.value for t in study.trials), runs
assert {float(r.data.params["alpha"]) for r in runs} == {t.params["alpha"] for t in study.trials}
print(sorted(r.data.tags["source"] for r in runs))
"""
    assert "random" in python(code, tmp_path)


def test_wandb_keeps_the_trials_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = 'import wandb_logging, wandb\nwandb_logging.main("none", 3)\nwandb.finish()\n'
    python(code, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(tmp_path))
    assert [p.stat().st_size > 0 for p in tmp_path.rglob("run-*.wandb")] == [True]

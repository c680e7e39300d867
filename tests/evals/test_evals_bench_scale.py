from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


def figures(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "evals.bench_scale", "--audit", "--json", *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


@pytest.mark.slow
def test_a_study_of_many_workers_is_measured_replayed_and_opened_again() -> None:
    found = figures("--trials", "150", "--workers", "40", "--job-s", "0.02", "--model-s", "0.2", "--window", "50")
    assert [w["trials"] for w in found["windows"]] == [50, 100, 150]
    assert all(w["cpu_ms"] > 0 and w["memory_mb"] > 0 and 0 <= w["idle"] <= 1 for w in found["windows"])
    assert found["consultations"] >= 1
    assert (found["log_problems"], found["other_decisions"]) == (0, 0)
    assert found["resume_cpu_s"] > 0


@pytest.mark.slow
def test_jobs_may_be_processes() -> None:
    found = figures("--trials", "12", "--workers", "3", "--jobs", "processes", "--model-s", "0", "--window", "12")
    assert found["windows"][0]["idle"] < 1.0
    assert (found["log_problems"], found["other_decisions"]) == (0, 0)

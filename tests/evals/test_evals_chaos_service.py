"""A study whose model service is down, by chaos: see `evals/chaos/service.py`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.mark.timeout(600)
def test_a_faulty_service_changes_no_trial_costs_no_second_and_shows_no_key() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "evals.chaos", "service", "--small", "--json"],
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    row = json.loads(run.stdout)
    assert row["rounds"] == 28
    assert row["seen"]["requests"] >= 28
    assert not any(row["zero"].values())

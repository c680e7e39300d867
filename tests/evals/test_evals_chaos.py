from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.timeout(300)
def test_ten_kills_of_the_controller_lose_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "evals.chaos", "--kills", "10"], capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout + run.stderr
    counts = json.loads(run.stdout)
    assert counts["acknowledged"] > 0
    assert counts["kills"] == 10

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from evals.chaos.base import KEYS, leaks

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
    pytest.mark.slow,
]


def rows(*arguments: str, seconds: float = 280) -> dict[str, dict[str, Any]]:
    """Run chaos; its rows by case, all of them clean."""
    run = subprocess.run(
        [sys.executable, "-m", "evals.chaos", *arguments, "--json"],
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return {row["case"]: row for row in map(json.loads, run.stdout.splitlines())}


def test_kills_of_the_controller_lose_nothing() -> None:
    row = rows("controller", "--small")["controller"]
    assert row["seen"]["acknowledged"] > 0
    assert not any(row["zero"].values())


def test_kills_of_jobs_and_of_their_supervisors_cost_two_retries_at_most() -> None:
    row = rows("worker", "--small")["worker"]
    assert row["seen"]["of these after another attempt"] > 0
    assert set(row["seen"]["kills"]) == {"job", "supervisor"}
    assert not any(row["zero"].values())


def test_a_disk_that_is_full_at_any_write_holds_a_study_up_and_loses_nothing() -> None:
    row = rows("disk", "--small")["disk full"]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert row["seen"]["pauses told"] > 0
    assert not any(row["zero"].values())


@pytest.mark.parametrize("case", ["log-cut", "log-flip"])
def test_a_damaged_log_breaks_nothing_and_never_passes_for_sound(case: str) -> None:
    (row,) = rows(case, "--small").values()
    assert row["rounds"] == 100
    assert row["seen"]["set aside"] > 0
    assert not any(row["zero"].values())


def test_of_two_controllers_one_runs_and_the_other_names_it() -> None:
    row = rows("pair", "--small")["two controllers"]
    assert not any(row["zero"].values())


def test_a_controller_that_stood_still_writes_nothing_after_its_successor() -> None:
    row = rows("stale", "--small")["stale controller"]
    if row["skipped"]:
        pytest.skip(row["skipped"])
    assert not any(row["zero"].values())


def test_a_study_waits_for_a_locked_file_and_says_so() -> None:
    row = rows("locked", "--small")["locked"]
    assert row["seen"]["seconds locked"] > 5
    assert not any(row["zero"].values())


def test_limits_lease_patience_and_deadlines_hold_when_clocks_jump() -> None:
    row = rows("clock", "--small")["clock"]
    assert not any(row["zero"].values())


def test_a_key_that_comes_back_from_the_service_is_in_no_byte_that_is_written() -> None:
    row = rows("canary", "--small")["canary"]
    assert row["seen"]["good replies"] > 0
    assert not any(row["zero"].values())


def test_a_key_that_is_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "Zk3-canary_0123456789abcdef/+="
    monkeypatch.setenv(KEYS[0], key)
    written = {
        "plain": key,
        "quoted": f"https://h/?k={quote(key, safe='')}",
        **{f"base64+{n}": base64.b64encode(f"{'x' * n}{key} and more".encode()).decode() for n in range(3)},
    }
    for name, text in written.items():
        (tmp_path / name.replace("/", "-")).write_text(f"before {text} after")
    (tmp_path / "harmless").write_text("nothing")
    found = {(Path(place).name, form) for place, _, form in (leak.rpartition(": ") for leak in leaks(tmp_path))}
    assert {(name, name) for name in written} <= found
    assert "harmless" not in {place for place, _ in found}

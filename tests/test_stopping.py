"""Signals to the command line, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """
command = "{python} train.py {x}"
metric = "loss"
direction = "minimize"
n_trials = 3
n_workers = 2
llm = "none"
[limits]
memory_gb = 4
[space]
x = { type = "float", low = 0.0, high = 1.0 }
"""
SCRIPT = """
import json, os, signal, sys, time
if os.environ.get("MODE") == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("up" + os.environ["LLMHPO_TRIAL"], "w").close()
if os.environ.get("MODE") == "kills all" and not os.path.exists("killed"):
    open("killed", "w").close()
    os.kill(-1, signal.SIGKILL)
time.sleep(60 if os.environ.get("MODE") else 0)
json.dump({"loss": float(sys.argv[1])}, open(os.environ["LLMHPO_RESULT"], "w"))
"""
RUN = [sys.executable, "-m", "llmhpo", "run", "--plain"]
UNSHARE = ["unshare", "--user", "--map-root-user", "-p", "-f", "--mount-proc"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def stop(folder: Path, *signals: int) -> tuple[int, str, float]:
    """Start a run with jobs that ignore SIGTERM, and send it signals, each after what it said of the one before.

    Seconds count from the last.
    """
    environ = os.environ | {"MODE": "stubborn"}
    with subprocess.Popen(RUN, cwd=folder, stderr=subprocess.PIPE, text=True, env=environ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "up1").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.stderr is not None
        said = ""
        for i, number in enumerate(signals):
            while i and "press Ctrl-C again" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            process.send_signal(number)
        start = time.monotonic()
        _, err = process.communicate(timeout=50)
        return process.returncode, said + err, time.monotonic() - start


def quickest(folder: Path, limit_s: float, *signals: int) -> tuple[int, str, float]:
    """The first of three times that `stop` takes no longer than promised, or the last: other programs only add to it."""
    for _ in range(3):
        found = stop(folder, *signals)
        if found[2] < limit_s:
            break
        (folder / "up1").unlink()
    return found


def finish(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(RUN, cwd=folder, capture_output=True, text=True, timeout=90, check=False)


def test_preemption_ends_well_within_five_seconds_and_the_study_goes_on(folder: Path) -> None:
    status, err, seconds = quickest(folder, 5.0, signal.SIGTERM)
    assert (status, seconds < 5) == (0, True)
    assert "preempted" in err
    assert "run the same command to go on" in err
    again = finish(folder)
    assert again.returncode == 0
    assert "2 to run again" in again.stderr


def test_the_second_ctrl_c_ends_the_jobs_at_once(folder: Path) -> None:
    status, err, seconds = quickest(folder, 3.0, signal.SIGINT, signal.SIGINT)
    assert (status, seconds < 3) == (130, True)
    assert "press Ctrl-C again" in err


def test_one_ctrl_c_leaves_the_jobs_their_grace(folder: Path) -> None:
    status, err, seconds = stop(folder, signal.SIGINT)
    assert (status, seconds > 4) == (130, True)
    assert "stopped; finished trials are kept" in err


def test_no_job_outlives_a_preempted_run(folder: Path) -> None:
    stop(folder, signal.SIGTERM)
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            assert path.readlink() != folder
        except OSError:  # ended meanwhile, or another user's
            continue


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs PID namespaces, or it would end everything here",
)
def test_a_study_goes_on_after_a_job_has_killed_everything(folder: Path) -> None:  # 12
    shell = f"{sys.executable} -m llmhpo run --plain; echo first $?; MODE= {sys.executable} -m llmhpo run --plain"
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", shell],
        cwd=folder, capture_output=True, text=True, timeout=90, check=False, env=os.environ | {"MODE": "kills all"},
    )  # fmt: skip
    assert "first 137" in done.stdout
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(" ok after") == 3

"""`llmhpo dashboard`: the real server, asked for the study."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from ports import free_port

import llmhpo

pytest.importorskip("optuna_dashboard")

STUDY = """
command = "true {x}"
metric = "loss"
direction = "minimize"
study_name = "bowl"
storage = "sqlite:///study.db"
[space.x]
type = "float"
low = 0.0
high = 1.0
"""


def dashboard(folder: Path, port: int) -> subprocess.Popen[str]:
    (folder / "study.toml").write_text(STUDY)
    words = [sys.executable, "-m", "llmhpo", "dashboard", "--port", str(port)]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_shows_the_study(tmp_path: Path) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    llmhpo.optimize(
        lambda p: float(p["x"]), space, metric="loss", n_trials=3, llm="none", study_name="bowl",
        storage=f"sqlite:///{tmp_path}/study.db",
    )  # fmt: skip
    port = free_port()
    with dashboard(tmp_path, port) as process:
        try:
            studies = _asked(f"http://127.0.0.1:{port}/api/studies")
        finally:
            process.terminate()
    assert "bowl" in json.dumps(studies)


def _asked(url: str) -> object:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_without_a_study_it_says_so_and_starts_nothing(tmp_path: Path) -> None:
    with dashboard(tmp_path, free_port()) as process:
        _, told = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "there is no study yet" in told


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    llmhpo.optimize(lambda p: float(p["x"]), space, metric="loss", n_trials=1, llm="none", study_name="bowl",
                    storage=f"sqlite:///{tmp_path}/study.db")  # fmt: skip
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with dashboard(tmp_path, taken.getsockname()[1]) as process:
            _, told = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "in use" in told

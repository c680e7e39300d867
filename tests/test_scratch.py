from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmhpo import optimize, scratch
from llmhpo.scratch import Scratch

HOLD = """
import sys
from pathlib import Path
from llmhpo.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.path / "file").write_text("x")
print(scratch.path, flush=True)
sys.stdin.read()
"""

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0}}


def square(params: Mapping[str, Any]) -> float:
    return float(params["x"] ** 2)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has made no folder yet."""
    monkeypatch.setattr(scratch, "_swept", set())


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with Scratch(tmp_path) as folder:
        (folder / "deep").mkdir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_when_nobody_refers_to_it(tmp_path: Path) -> None:
    held = Scratch(tmp_path)
    assert held.path.is_dir()
    del held
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_ends_leaves_its_parents_folder(tmp_path: Path) -> None:
    held = Scratch(tmp_path)
    if (pid := os.fork()) == 0:
        held.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert held.path.is_dir()
    held.remove()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    folders = []
    for process in processes:
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    assert all((folder / "file").exists() for folder in folders)
    with Scratch(tmp_path):
        assert [folder.exists() for folder in folders] == [False, True]
    processes[1].communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_kept_makes_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = optimize(square, SPACE, llm=None, n_trials=2, study_name="s", cwd=tmp_path, isolated=False, progress=False)
    assert len(result.trials) == 2


def test_a_study_that_is_not_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    optimize(square, SPACE, llm=None, n_trials=2, isolated=True, progress=False)
    assert list(tmp_path.iterdir()) == []

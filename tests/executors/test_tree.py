"""Who counts as part of a job: a mistake here kills strangers."""

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from llmhpo.executors import tree

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")


@pytest.fixture
def start():
    started = []

    def start(*words, marker=""):
        env = {"PATH": os.environ["PATH"]} | ({tree.MARKER: marker} if marker else {})
        started.append(subprocess.Popen([*words, "sleep", "30"], env=env, stdout=subprocess.DEVNULL))
        pid = started[-1].pid
        while not Path(f"/proc/{pid}/environ").read_bytes():  # in the midst of exec
            time.sleep(0.001)
        return pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_an_unknown_marker_finds_nobody(start):
    start()
    assert tree.find_marked(uuid.uuid4().hex) == set()


def test_a_marker_finds_its_processes_and_no_others(start):
    marker = uuid.uuid4().hex
    start(marker=uuid.uuid4().hex)
    mine = start(marker=marker)
    assert tree.find_marked(marker) == {mine}


def test_session_zero_finds_nobody():
    assert tree.find_marked(uuid.uuid4().hex, session=0) == set()


def test_a_tree_holds_descendants_of_this_process_only(start):
    child = start()
    found = tree.find_tree(uuid.uuid4().hex, 0)
    assert child in found
    assert not found & {0, 1, os.getpid(), os.getppid()}


def test_sweeping_spares_everything_without_the_marker(start):
    marker = uuid.uuid4().hex
    stranger, mine = start(), start(marker=marker)
    assert tree.sweep(marker) == 0
    os.kill(stranger, 0)
    assert os.waitpid(mine, 0)[1] == 9


def test_an_empty_marker_is_never_swept_for():
    with pytest.raises(AssertionError):
        tree.sweep("")


@pytest.mark.parametrize(
    "group, pids", [(0, set()), (1, set()), (-1, set()), (99999999, {0}), (99999999, {-1}), (99999999, {1})]
)
def test_signals_to_everybody_are_never_sent(group, pids, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *a: pytest.fail("sent"))
    monkeypatch.setattr(os, "killpg", lambda *a: pytest.fail("sent"))
    with pytest.raises(AssertionError):
        tree.send(0, group, pids)

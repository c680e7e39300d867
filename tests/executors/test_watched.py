"""What the watchdog counts as a job's, and what it does not. Numbers in comments are cases of the hazard list."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmhpo.executors import fenced, tree, watchdog
from llmhpo.executors.limits import Limits
from llmhpo.executors.process import End
from llmhpo.executors.watchdog import Watchdog, held_bytes

pytestmark = pytest.mark.skipif(not tree.can_walk(), reason="needs the list of children in /proc")
HOLD = "import sys, time\n{}\nprint(flush=True)\ntime.sleep(30)"
INF = float("inf")


def watched(folder, *, sandboxed=False, **limits):
    text = Limits(**limits).as_argument()
    return Watchdog(text, str(folder), sandboxed=sandboxed)


@pytest.fixture
def child(tmp_path):
    """Starts a child that holds something, as the jobs of a supervisor do."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(code)], stdout=subprocess.PIPE, cwd=tmp_path, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def nested(folder):
    """A folder with a path of more than 4,096 characters below it."""
    code = "import os\nfor _ in range(25): os.mkdir('d' * 200); os.chdir('d' * 200)\n"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_a_folder_nested_too_deep_passes_the_limit_on_disk_where_files_have_none(tmp_path):  # 9
    nested(tmp_path)
    dog = watched(tmp_path, disk_mb=1000)
    assert dog.look_back(0) == "disk"
    status, message = Limits(disk_mb=1000).judge("disk", dog.figure)
    assert status == "failed"
    assert "too deep" in message
    assert "limits.disk_mb=1000" in message
    assert watched(tmp_path, files=1000).look_back(0) == "files"
    assert watched(tmp_path, output_mb=1).look_back(0) == ""
    subprocess.run(["rm", "-rf", str(tmp_path / ("d" * 200))], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="makes folders of another user")
@pytest.mark.parametrize(("owner", "passed"), [(0, "none"), (1500, "files")], ids=["another user", "the job's user"])
def test_a_closed_folder_counts_only_where_the_job_may_have_closed_it(owner, passed):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "lost+found").mkdir()
        os.chown(folder / "lost+found", owner, owner)
        (folder / "lost+found").chmod(0o300)
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                os.setgid(1500)
                os.setuid(1500)
                os.write(write, watched(folder, files=100).look_back(0).encode() or b"none")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with os.fdopen(read) as said:
            assert said.read() == passed


UNLINKED = "import tempfile\nf = tempfile.TemporaryFile(dir='{}')\nf.write(b'x' * 3_000_000)\nf.flush()"


def test_a_file_without_a_name_counts_in_an_otherwise_empty_folder(tmp_path, child):  # 9
    (tmp_path / "own").mkdir()
    child(UNLINKED.format(tmp_path / "own"))
    assert watched(tmp_path / "own", disk_mb=1).look(0) == "disk"


def test_a_file_without_a_name_elsewhere_counts_in_a_sandbox_only(tmp_path, child):
    (tmp_path / "own").mkdir()
    child(UNLINKED.format(tmp_path))
    assert watched(tmp_path / "own", disk_mb=1).look(0) == ""
    assert watched(tmp_path / "own", disk_mb=1, sandboxed=True).look(0) == "disk"


def test_a_look_takes_few_descriptors_and_the_next_goes_on(tmp_path, child, monkeypatch):
    monkeypatch.setattr(watchdog, "_DESCRIPTORS", 50)
    child("import os\nx = [os.dup(1) for _ in range(120)]\n" + UNLINKED.format(tmp_path))
    dog = watched(tmp_path, disk_mb=1)
    assert dog.look(0) == ""
    assert "disk" in [dog.look(0) for _ in range(40)]  # other children of this process hold descriptors too


THREADS = "import threading\nfor _ in range(40): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"


def test_threads_count_in_a_sandbox_or_where_somebody_set_a_limit(tmp_path, child, monkeypatch):  # 1
    monkeypatch.setattr(watchdog, "_FEW_THREADS", 20)
    monkeypatch.setattr(watchdog, "_THREADS", 1)
    child(THREADS)
    assert watched(tmp_path, processes=30).look(0) == "processes"
    monkeypatch.setattr(watchdog, "PROCESSES", 30)
    assert watched(tmp_path, processes=30).look(0) == ""
    assert watched(tmp_path, processes=30, sandboxed=True).look(0) == "processes"


def test_too_many_threads_are_told_with_their_bound_and_a_remedy():
    message = Limits(processes=60).judge("processes", 2500)[1]
    assert "2500 threads" in message
    assert "limits.processes=60 allows 2000" in message
    assert "OMP_NUM_THREADS" in message
    assert Limits(processes=60).judge("processes", 61)[1] == "had 61 processes; limits.processes=60 allows no more"


Usage = namedtuple("Usage", "total used free")


def test_what_a_jobs_folders_hold_already_takes_none_of_what_the_disk_has_left(tmp_path, bench, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "checkpoint").write_bytes(bytes(9_000_000))
    job = bench.job(env={"LLMHPO_CHECKPOINT_DIR": str(tmp_path / "kept")})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 8_000_000))
    limits = fenced.sparing(Limits().bounded(), job, 2)
    assert held_bytes([str(tmp_path / "kept")], INF) >= 9_000_000
    assert 11 <= limits.disk_mb < 11.2
    message = limits.judge("disk", 12e6)[1]
    assert "half of what the disk had left: make space, or set limits.disk_mb" in message
    assert "limits.disk_mb=" not in message
    assert limits.judge("files", 200_000.0)[1].startswith("had 200000 files; limits.files=")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10**14))
    assert fenced.sparing(Limits().bounded(), job, 2) == Limits().bounded()


@pytest.mark.parametrize(
    ("end", "is_hinted"),
    [
        (End("exited", 1, 1.0, 0), True),
        (End("exited", 137, 1.0, 0), False),  # so bwrap tells of a SIGKILL
        (End("exited", -9, 1.0, 0), False),
        (End("lost", 0, 1.0, 0), False),
        (End("processes", 1, 1.0, 0, 1200.0), False),
    ],
    ids=str,
)
def test_a_hint_about_the_sandbox_is_given_to_a_job_that_failed_by_itself(bench, end, is_hinted):
    executor, job = bench.executor(""), bench.job()
    job.directory.mkdir(parents=True)
    (job.directory / "output.log").write_text("FileNotFoundError: No such file or directory")
    executor._sandbox = SimpleNamespace(name="bwrap", version="1")
    outcome = executor._judge(job, job.directory, Future(), end, 0, Limits())
    assert outcome.status == "failed"
    assert ("in the sandbox a job sees" in outcome.message) == is_hinted

"""Limits on what a job uses, with jobs that really use it. Numbers in comments are cases of the hazard list."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llmhpo.errors import ConfigError
from llmhpo.executors import tree
from llmhpo.executors.function import FunctionExecutor
from llmhpo.executors.limits import Limits

pytestmark = pytest.mark.skipif(not tree.can_walk(), reason="needs the list of children in /proc")
UNSHARE = ["unshare", "--user", "--map-root-user", "-p", "-f", "--mount-proc"]
WRITE = "import os\nwith open(os.environ['LLMHPO_RESULT'], 'w') as f: f.write('1')\n"


def has_unshare():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False, timeout=100).returncode == 0


needs_unshare = pytest.mark.skipif(not has_unshare(), reason="needs PID namespaces, or it would harm this computer")


def run_apart(folder, code, limits, timeout_s=20):
    """Run a job in a PID namespace of its own: what it does to all processes, it does to these few."""
    (folder / "job.py").write_text(code)
    (folder / "controller.py").write_text(
        textwrap.dedent(f"""
        import json, os, pathlib
        from llmhpo.executors.base import Job
        from llmhpo.executors.command import CommandTemplate
        from llmhpo.executors.limits import Limits
        from llmhpo.executors.local import LocalExecutor
        from llmhpo.trial import Task
        here = pathlib.Path({str(folder)!r})
        command = CommandTemplate(["{{python}}", "job.py"], None, here)
        executor = LocalExecutor(command, limits=Limits(**{limits!r}), grace_s=0.3)
        outcome = executor.submit(Job(0, {{}}, Task(timeout_s={timeout_s}), here / "trial0")).result(60)
        left = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
        print(json.dumps([outcome.status, outcome.message, len(left)]))
        """)
    )
    words = [*UNSHARE, "timeout", "-s", "KILL", "80", sys.executable, str(folder / "controller.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


# Both bombs are bounded: 2^9 processes at most.
BOMB = "import os, time\nfor _ in range(9):\n  if os.fork() == 0: {}\ntime.sleep(30)"


@needs_unshare
@pytest.mark.parametrize("each", ["pass", "os.setsid()"], ids=["one session", "a session each"])
def test_a_fork_bomb_is_ended_with_all_its_processes(tmp_path, each):  # 1
    status, message, left = run_apart(tmp_path, BOMB.format(each), {"processes": 60})
    assert (status, left) == ("failed", 0)
    assert "limits.processes=60" in message


@needs_unshare
def test_a_process_that_forks_and_leaves_for_ever_is_caught(tmp_path):  # 7
    code = (
        "import os, time\nend = time.monotonic() + 20\nif os.fork():\n  time.sleep(20); os._exit(0)\n"
        "while time.monotonic() < end:\n  if os.fork(): os._exit(0)\n  os.setsid()"
    )
    status, _, left = run_apart(tmp_path, code, {}, timeout_s=0.7)
    assert (status, left) == ("timeout", 0)


def test_a_memory_hog_is_out_of_memory_with_the_figure(bench):  # 2
    code = "import time\nx = []\nwhile len(x) < 40:\n  x.append(bytearray(b'x' * 10_000_000)); time.sleep(0.02)\ntime.sleep(20)"
    outcome = bench.run(code, limits=Limits(memory_gb=0.15))
    assert outcome.status == "oom"
    assert "limits.memory_gb=0.15" in outcome.message
    assert 0.15 < float(outcome.message.split()[1]) < 0.45
    assert bench.living() == []


def test_a_hog_split_over_children_is_out_of_memory(bench):  # 3
    code = (
        "import os, time\nfor _ in range(3):\n  if os.fork() == 0:\n    x = bytearray(b'x' * 80_000_000)\n    time.sleep(20)\n"
        "time.sleep(20)"
    )
    assert bench.run(code, limits=Limits(memory_gb=0.2)).status == "oom"
    assert bench.living() == []


def test_pages_that_children_share_count_once(bench):
    code = (
        "import os, time\nx = bytearray(b'x' * 80_000_000)\nfor _ in range(3):\n  if os.fork() == 0: time.sleep(0.8); os._exit(0)\n"
        "for _ in range(3): os.wait()\n" + WRITE
    )
    assert bench.run(code, limits=Limits(memory_gb=0.2)).status == "ok"


def test_cpu_time_of_all_processes_is_limited(bench):  # 4
    code = "import os\nfor _ in range(2): os.fork()\nwhile True: pass"
    outcome = bench.run(code, limits=Limits(cpu_s=0.5))
    assert outcome.status == "timeout"
    assert "limits.cpu_s=0.5" in outcome.message
    assert bench.living() == []


def test_sleeping_costs_no_cpu_time(bench):
    assert bench.run("import time; time.sleep(1)\n" + WRITE, limits=Limits(cpu_s=0.9)).status == "ok"


@pytest.mark.parametrize(
    "code",
    [
        "f = open(D + '/big', 'wb')\nfor _ in range(100): f.write(b'x' * 1_000_000); f.flush(); time.sleep(0.02)",  # 9
        "for i in range(100_000): open(f'{D}/{i}', 'w').close()",  # 10
        "open(D + '/big', 'wb').write(b'x' * 20_000_000)",
    ],
    ids=["big file", "many files", "before anybody looks"],
)
def test_what_a_job_stores_is_limited(bench, code):
    outcome = bench.run(
        "import os, time\nD = os.environ['LLMHPO_DIR']\n" + code + "\n" + WRITE, limits=Limits(disk_mb=10)
    )
    assert outcome.status == "failed"
    assert "limits.disk_mb=10" in outcome.message


def test_holes_in_a_file_take_no_disk(bench):  # 11
    code = "import os, time\nos.truncate(os.open(os.environ['LLMHPO_DIR'] + '/big', os.O_RDWR | os.O_CREAT), 1 << 40)\n"
    assert bench.run(code + "time.sleep(0.4)\n" + WRITE, limits=Limits(disk_mb=10)).status == "ok"


def test_the_folder_of_checkpoints_counts_as_disk(bench):
    folder = bench.folder / "checkpoints"
    folder.mkdir()
    code = "import os\nopen(os.environ['LLMHPO_CHECKPOINT_DIR'] + '/big', 'wb').write(b'x' * 20_000_000)\n" + WRITE
    executor = bench.executor(code, limits=Limits(disk_mb=10))
    assert executor.submit(bench.job(env={"LLMHPO_CHECKPOINT_DIR": str(folder)})).result(30).status == "failed"


def test_what_a_job_prints_is_limited(bench):  # 41
    code = "import time\nwhile True: print('x' * 100_000); time.sleep(0.001)"
    outcome = bench.run(code, limits=Limits(output_mb=5))
    assert outcome.status == "failed"
    assert "limits.output_mb=5" in outcome.message


def test_a_limited_callable_is_ended_too(bench):
    def objective(params):
        while True:
            pass

    executor = bench.keep(FunctionExecutor(objective, limits=Limits(cpu_s=0.3), grace_s=0.1))
    assert executor.submit(bench.job()).result(30).status == "timeout"


@needs_unshare
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_fails_the_trial_and_leaves_a_log(bench, tmp_path):  # 9
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        bench.folder = folder
        outcome = bench.run(
            "import os\nprint('begun')\nopen(os.environ['LLMHPO_DIR'] + '/big', 'wb').write(b'x' * 9_000_000)"
        )
        assert outcome.status == "failed"
        assert "No space left on device" in outcome.message
    finally:
        bench.executors[0].shutdown(kill=True)
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "table",
    [{"memory_gb": 0}, {"cpu_s": -1}, {"disk_mb": True}, {"output_mb": "9"}, {"processes": float("nan")}],
    ids=str,
)
def test_a_limit_that_is_no_positive_number_is_refused_by_name(table):
    with pytest.raises(ConfigError, match=f"limits.{next(iter(table))}="):
        Limits.of(table)


def test_an_unknown_limit_is_refused_with_the_likely_one():
    with pytest.raises(ConfigError, match="did you mean 'memory_gb'"):
        Limits.of({"memory": 8})


def test_watching_costs_little(bench):
    code = "import os, time\nwhile not os.path.exists('done'): time.sleep(0.05)\n" + WRITE
    executor = bench.executor(code, limits=Limits(memory_gb=1, disk_mb=1))
    future = executor.submit(bench.job())
    bench.wait_for(lambda: len(bench.living()) > 1)
    time.sleep(1.5)
    supervisors = [p for p in bench.living() if b"supervisor" in tree.read(f"/proc/{p}/cmdline")]
    ticks = [sum(map(int, tree.read(f"/proc/{p}/stat").rpartition(b")")[2].split()[11:13])) for p in supervisors]
    (bench.folder / "done").touch()
    assert future.result(100).status == "ok"
    assert len(ticks) == 1
    assert ticks[0] / os.sysconf("SC_CLK_TCK") < 0.5


def test_a_walk_finds_children_and_grandchildren():
    code = "import os, subprocess; p = subprocess.Popen(['sleep', '20']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert {process.pid, grandchild} <= tree.descendants(os.getpid())
        assert Path(f"/proc/{grandchild}").exists()
        os.kill(grandchild, 9)

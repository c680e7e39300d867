"""Jobs that are ended from outside, and what a controller that ends leaves behind: nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

from jobs import DAEMON, needs_proc, write


def test_a_signal_to_all_processes_leaves_the_trial_open(
    bench, monkeypatch
):  # as Slurm preempts: job and supervisor hear of it first
    monkeypatch.setattr("llmhpo.executors.local._STOP_NEWS_S", 60.0)
    executor = bench.executor("import time; open('up', 'w').close(); time.sleep(60)")
    future = executor.submit(bench.job())
    bench.wait_for_file("up")
    for pid in bench.living():
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.1)
    executor.shutdown(kill=True)
    assert future.cancelled()


def test_a_hastened_executor_gives_no_more_grace(bench):
    code = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nopen('up', 'w').close()\nwhile True: time.sleep(1)"
    executor = bench.executor(code, grace_s=90.0)
    executor.submit(bench.job())
    bench.wait_for_file("up")
    threading.Timer(0.5, executor.hasten, [0.0]).start()  # while shutdown waits for the grace
    start = time.monotonic()
    executor.shutdown(kill=True)
    assert time.monotonic() - start < 45
    assert bench.living() == []


def test_killing_shutdown_is_prompt_and_ends_all_trees(bench):
    executor = bench.executor(
        DAEMON.replace("'daemon'", "f'daemon{os.environ[\"LLMHPO_TRIAL\"]}'") + "time.sleep(60)", workers=2
    )
    futures = [executor.submit(bench.job(i)) for i in range(3)]
    bench.wait_for_file("daemon0")
    bench.wait_for_file("daemon1")
    start = time.monotonic()
    executor.shutdown(kill=True)
    assert time.monotonic() - start < 30  # they would go on for 60
    assert all(f.cancelled() for f in futures)
    assert wait(futures, timeout=0).not_done == set()
    assert bench.living() == []


def test_cancelling_a_running_job_ends_it_and_frees_its_worker(bench):
    executor = bench.executor(
        "import os, time\nopen('up', 'w').close()\nif os.environ['LLMHPO_TRIAL'] == '0': time.sleep(60)"
    )
    first = executor.submit(bench.job(0))
    bench.wait_for_file("up")
    assert first.cancel()
    assert executor.submit(bench.job(1)).result(100).status == "invalid"
    assert bench.living() == []


@needs_proc
def test_jobs_die_with_a_controller_that_is_killed(bench):
    (bench.folder / "train.py").write_text(DAEMON + "time.sleep(60)")
    controller = bench.folder / "controller.py"
    controller.write_text(
        "import pathlib\nfrom llmhpo.executors.base import Job\nfrom llmhpo.executors.command import CommandTemplate\n"
        "from llmhpo.executors.local import LocalExecutor\nfrom llmhpo.trial import Task\nhere = pathlib.Path.cwd()\n"
        "executor = LocalExecutor(CommandTemplate('{python} train.py', None, here), grace_s=0.3)\n"
        "executor.submit(Job(0, {}, Task(), here / 'trial0')).result()\n"
    )
    env = os.environ | {"TEST_TAG": bench.tag}
    with subprocess.Popen([sys.executable, str(controller)], cwd=bench.folder, env=env) as process:
        bench.wait_for_file("daemon")
        process.send_signal(signal.SIGKILL)
    bench.wait_for(lambda: bench.living() == [])


def test_a_program_that_forgets_shutdown_does_not_hang_and_leaves_nothing(bench):
    (bench.folder / "train.py").write_text("import time; open('up', 'w').close(); time.sleep(60)")
    controller = bench.folder / "controller.py"
    controller.write_text(
        "import pathlib, time\nfrom llmhpo.executors.base import Job\nfrom llmhpo.executors.command import CommandTemplate\n"
        "from llmhpo.executors.local import LocalExecutor\nfrom llmhpo.trial import Task\nhere = pathlib.Path.cwd()\n"
        "executor = LocalExecutor(CommandTemplate('{python} train.py', None, here))\n"
        "executor.submit(Job(0, {}, Task(), here / 'trial0'))\nwhile not (here / 'up').exists(): time.sleep(0.01)\n"
    )
    env = os.environ | {"TEST_TAG": bench.tag}
    subprocess.run([sys.executable, str(controller)], cwd=bench.folder, env=env, timeout=50, check=True)
    bench.wait_for(lambda: bench.living() == [])


def test_no_threads_or_descriptors_are_left_after_shutdown(bench):
    bench.run("pass")
    bench.executors[0].shutdown(kill=False)
    threads, fds = set(threading.enumerate()), len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        bench.run("pass")
        bench.executors[-1].shutdown(kill=False)
    assert set(threading.enumerate()) <= threads  # one of an earlier test may have ended meanwhile
    assert len(list(Path("/dev/fd").iterdir())) <= fds


def test_a_job_that_waits_for_space_can_be_cancelled(bench, monkeypatch, caplog):
    monkeypatch.setattr("llmhpo.executors.local.is_full", lambda _: True)
    executor = bench.executor(write("1"))
    future = executor.submit(bench.job())
    bench.wait_for(lambda: "make space" in caplog.text)
    executor.shutdown(kill=True)
    assert future.cancelled()

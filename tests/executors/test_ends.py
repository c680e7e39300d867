"""How hostile and unlucky jobs end, with real processes. Numbers in comments are cases of the hazard list."""

import os
import sys
import time
from pathlib import Path

import pytest
from jobs import DAEMON, needs_proc, write

from llmhpo.errors import ExecutorError
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor, oom_kills

SLEEP = "import os, time\nopen(os.environ['LLMHPO_DIR'] + '/up', 'w').close()\ntime.sleep(60)"


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",  # 5
        "while True: pass",  # 4
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)",  # 6
        "import os, time\nfor _ in range(20):\n  if os.fork() == 0: os._exit(0)\ntime.sleep(60)",  # 8
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        DAEMON + "time.sleep(60)",  # 7
    ],
    ids=["sleep", "busy", "ignores SIGTERM", "zombies", "child", "stopped", "daemon"],
)
def test_the_time_limit_ends_the_whole_tree(bench, code):
    start = time.monotonic()
    outcome = bench.run(code, timeout_s=0.5)
    assert outcome.status == "timeout"
    assert "0.5 s" in outcome.message
    assert time.monotonic() - start < 30  # they would go on for 60, or for ever
    assert bench.living() == []


@needs_proc
def test_a_daemon_left_behind_by_a_good_job_is_ended(bench):
    outcome = bench.run(DAEMON + write("1"))
    assert outcome.value == 1
    assert bench.living() == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a child subreaper")
def test_a_daemon_that_throws_its_environment_away_is_ended(bench):
    shell = "trap '' TERM; echo $$ > daemon; while :; do sleep 0.05; done"
    code = DAEMON.split("if os.fork")[0] + (
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.closerange(0, 3)\n"
        f"    os.execve('/bin/sh', ['sh', '-c', {shell!r}], {{}})\n  os._exit(0)\nos.wait()\n"
        "while not os.path.exists('daemon') or not open('daemon').read(): time.sleep(0.01)\n"
    )
    bench.run(code)
    with pytest.raises(ProcessLookupError):
        os.kill(int((bench.folder / "daemon").read_text()), 0)


def test_sigterm_leaves_time_to_clean_up(bench):
    code = "import signal, sys\ndef bye(*_): print('saved', flush=True); sys.exit(0)\nsignal.signal(15, bye)\n"
    outcome = bench.run_to_its_limit(code + SLEEP, grace_s=40)
    assert (outcome.status, outcome.log_tail) == ("timeout", "saved")


def test_a_result_after_the_time_limit_does_not_count(bench):  # 48
    code = "import signal, sys\ndef late(*_):\n  exec(W); sys.exit(0)\nW = " + repr(write("1"))
    outcome = bench.run_to_its_limit(code + "\nsignal.signal(15, late)\n" + SLEEP, grace_s=40)
    assert (bench.folder / "trial0" / "result.json").exists()
    assert (outcome.status, outcome.value) == ("timeout", None)


def test_a_bad_exit_code_fails_in_spite_of_a_result(bench):
    outcome = bench.run(write("1") + "import sys; print('diverged'); sys.exit(3)")
    assert (outcome.status, outcome.value) == ("failed", None)
    assert outcome.message == "exit code 3: diverged"


def test_a_good_end_without_a_result_is_invalid(bench):  # 29
    outcome = bench.run("pass")
    assert outcome.status == "invalid"
    assert "left no result" in outcome.message


def test_a_segmentation_fault_is_a_failed_trial(bench):  # 29
    outcome = bench.run("import ctypes; ctypes.string_at(0)")
    assert outcome.status == "failed"
    assert "SIGSEGV" in outcome.message


@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 9)", "import os; os._exit(137)"])
def test_a_sigkill_from_somebody_unknown_is_a_lost_attempt(bench, code):
    outcome = bench.run(code)
    assert (outcome.status, outcome.lost) == ("failed", oom_kills() >= 0)
    assert "SIGKILL" in outcome.message


def test_a_job_that_the_kernel_kills_for_want_of_memory_is_out_of_memory(bench):  # 2
    group = Path("/sys/fs/cgroup/memory/llmhpo-test-" + bench.tag)
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    (group / "memory.limit_in_bytes").write_text("64M")
    (group / "memory.swappiness").write_text("0")
    code = f"import os\nopen('{group}/cgroup.procs', 'w').write(str(os.getpid()))\nx = bytearray(200 << 20)"
    try:
        outcome = bench.run(code)
    finally:
        bench.wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
    assert (outcome.status, outcome.lost) == ("oom", False)


def test_a_message_of_the_gpu_is_out_of_memory(bench):
    assert bench.run("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')").status == "oom"


def test_the_curve_of_a_job_that_timed_out_is_kept(bench):
    outcome = bench.run_to_its_limit("from llmhpo import job\njob.report(1, 2.0)\n" + SLEEP)
    assert (outcome.status, outcome.curve) == ("timeout", ((1, 2.0),))


@pytest.mark.parametrize("text", ["NaN", "1e999", "true", '"1"', "{}", '{"other": 1}'])  # 35, 36, 37, 39
def test_a_result_that_is_no_finite_metric_is_invalid(bench, text):
    outcome = bench.run(write(text))
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert outcome.message


@pytest.mark.parametrize(
    "code, words",
    [
        ("os.symlink('/etc/hostname', R)", "symbolic link"),
        ("os.mkfifo(R)", "not a regular file"),  # 21
        ("os.mkdir(R)", "not a regular file"),
        ("os.truncate(os.open(R, os.O_RDWR | os.O_CREAT), 1 << 40)", "larger than"),  # 11
    ],
)
def test_a_result_that_is_no_small_plain_file_is_invalid(bench, code, words):
    outcome = bench.run(f"import os\nR = os.environ['LLMHPO_RESULT']\n{code}")
    assert outcome.status == "invalid"
    assert words in outcome.message


def test_a_script_of_any_language_can_be_pruned_by_a_file(bench):
    outcome = bench.run("import os\nopen(os.environ['LLMHPO_PRUNED'], 'w').close()\n" + write("1"))
    assert (outcome.status, outcome.value, outcome.message) == ("pruned", None, "")


def test_a_pruned_job_that_ends_badly_has_failed(bench):
    assert bench.run("import os\nopen(os.environ['LLMHPO_PRUNED'], 'w').close()\nos._exit(3)").status == "failed"


def test_a_printed_metric_does_not_count(bench):  # 33
    assert bench.run("print('{\"value\": 0}')\n" + write("1") + "print('value: 0')").value == 1


def test_nobody_overwrites_the_metric_after_the_end(bench):  # 34
    code = "import os, time\nR = os.environ['LLMHPO_RESULT']\nif os.fork() == 0:\n  os.setsid(); time.sleep(0.5); open(R, 'w').write('0')\n"
    outcome = bench.run(code + "open(R, 'w').write('1')")
    time.sleep(0.7)
    assert outcome.value == 1
    assert (bench.folder / "trial0" / "result.json").read_text() == "1"


def test_what_an_interrupted_run_of_the_trial_left_does_not_count(bench):
    bench.run(write("1"))
    assert bench.run("pass").status == "invalid"


def test_a_folder_in_the_place_of_a_file_stops_the_launch_with_the_path(bench):
    (bench.folder / "trial0" / "result.json").mkdir(parents=True)
    with pytest.raises(ExecutorError, match="trial0"):
        bench.run("pass")


def test_a_program_that_vanished_is_an_executor_error(bench):
    program = bench.folder / "train"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    executor = bench.keep(LocalExecutor(CommandTemplate("./train", None, bench.folder)))
    program.unlink()
    with pytest.raises(ExecutorError, match="No such file"):
        executor.submit(bench.job()).result(20)


@needs_proc
def test_a_job_that_kills_its_supervisor_fails_and_leaves_nothing(bench):  # 12
    outcome = bench.run(DAEMON + "os.kill(os.getppid(), 9)\ntime.sleep(60)")
    assert (outcome.status, outcome.lost) == ("failed", True)
    assert "watched over" in outcome.message
    bench.wait_for(lambda: bench.living() == [])


@needs_proc
def test_a_job_that_stops_its_supervisor_is_ended_all_the_same(bench, monkeypatch):
    monkeypatch.setattr("llmhpo.executors.process._SLACK_S", 0.2)
    monkeypatch.setattr("llmhpo.executors.tree.KILL_LIMIT_S", 0.2)
    outcome = bench.run("import os, time; os.kill(os.getppid(), 19); time.sleep(60)", timeout_s=0.5)
    assert outcome.status == "timeout"
    bench.wait_for(lambda: bench.living() == [])


def test_a_job_that_finds_the_disk_full_is_a_lost_attempt(bench):
    outcome = bench.run("import os; raise OSError(28, os.strerror(28))")
    assert (outcome.status, outcome.lost) == ("failed", True)
    assert "the disk was full" in outcome.message


def test_a_job_is_not_launched_on_a_full_disk_before_there_is_space(bench, monkeypatch, caplog):
    full = [True]
    monkeypatch.setattr("llmhpo.executors.local.is_full", lambda _: full[0])
    future = bench.executor(write("1")).submit(bench.job())
    bench.wait_for(lambda: "make space" in caplog.text)
    assert not (bench.folder / "trial0" / "output.log").exists()
    full[0] = False
    assert future.result(20).value == 1

"""Hostile and unlucky jobs, with real processes. Numbers in comments are cases of the hazard list."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor, oom_kills
from llmhpo.llm.redact import is_secret

needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
DAEMON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        open('daemon', 'w').close()
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists('daemon'): time.sleep(0.01)
"""


def write(text):
    return f"import os\nwith open(os.environ['LLMHPO_RESULT'], 'w') as f: f.write({text!r})\n"


# --- ends -----------------------------------------------------------------------------------------------------------


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
    assert time.monotonic() - start < 4
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
    code = "import signal, sys, time\ndef bye(*_): print('saved', flush=True); sys.exit(0)\nsignal.signal(15, bye)\ntime.sleep(60)"
    outcome = bench.run(code, timeout_s=0.5, grace_s=5)
    assert (outcome.status, outcome.log_tail) == ("timeout", "saved")


def test_a_result_after_the_time_limit_does_not_count(bench):  # 48
    code = "import signal, sys, time\ndef late(*_):\n  exec(W); sys.exit(0)\nW = " + repr(write("1"))
    outcome = bench.run(code + "\nsignal.signal(15, late)\ntime.sleep(60)", timeout_s=0.5, grace_s=5)
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
    outcome = bench.run("from llmhpo import job; import time; job.report(1, 2.0); time.sleep(60)", timeout_s=1)
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


def test_a_signal_to_all_processes_leaves_the_trial_open(
    bench,
):  # as Slurm preempts: job and supervisor hear of it first
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
    executor = bench.executor(code, grace_s=30.0)
    executor.submit(bench.job())
    bench.wait_for_file("up")
    threading.Timer(0.5, executor.hasten, [0.0]).start()  # while shutdown waits for the grace
    start = time.monotonic()
    executor.shutdown(kill=True)
    assert time.monotonic() - start < 4
    assert bench.living() == []


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


# --- output ---------------------------------------------------------------------------------------------------------


def test_much_output_passes_quickly_and_little_of_it_is_kept(bench):  # 41
    code = "import os\nx = (b'y' * 99 + b'\\n') * 10000\nprint('first', flush=True)\nfor _ in range(1000): os.write(1, x)\nprint('last')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = bench.run(code)
    assert outcome.seconds < 20
    assert outcome.log_tail.endswith("last")
    log = (bench.folder / "trial0" / "output.log").read_bytes()
    assert len(log) < (1 << 20) + 100
    assert log.startswith(b"first\n")
    assert int(re.search(rb"\[\.\.\. (\d+) bytes left out", log)[1]) > 990_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_line_of_ten_megabytes_is_cut(bench):  # 40
    outcome = bench.run("print('x' * 10_000_000 + 'end')")
    assert len(outcome.log_tail) < 1000
    assert outcome.log_tail.endswith("end")


def test_a_short_output_is_kept_whole(bench):
    bench.run("for i in range(1000): print(i)")
    assert (bench.folder / "trial0" / "output.log").read_text().split() == [str(i) for i in range(1000)]


def test_the_log_is_bounded_by_its_limit_to_the_byte(bench):
    bench.run("import os; os.write(1, bytes(range(48, 58)) * 1000)", log_limit=2000)
    log = (bench.folder / "trial0" / "output.log").read_bytes()
    assert log == b"0123456789" * 100 + b"\n[... 8000 bytes left out ...]\n" + b"0123456789" * 100


def test_invalid_and_active_characters_are_made_harmless(bench):  # 42, 43, 44
    code = r"import os; os.write(1, b'\xff\xfe a\x00b \x1b[31mred\x1b[0m \x1b]0;t\x07 \xe2\x80\xae end')"
    tail = bench.run(code).log_tail
    assert not set(tail) & set("\x00\x1b\x07\u202e")
    assert "red" in tail
    assert tail.endswith("end")


def test_a_child_that_keeps_standard_output_open_holds_nothing_up(bench):
    start = time.monotonic()
    bench.run("import os, time\nif os.fork() == 0: time.sleep(60)")
    assert time.monotonic() - start < 5


def test_the_metric_can_be_read_from_the_output(bench):
    outcome = bench.run("print('loss: 3')\nprint('loss: 0.5')", metric_pattern=r"^loss: (\S+)")
    assert (outcome.status, outcome.value) == ("ok", 0.5)


def test_a_bad_pattern_is_refused_before_anything_runs(bench):
    with pytest.raises(ConfigError, match="metric_pattern"):
        bench.executor("pass", metric_pattern="loss")


# --- surroundings ---------------------------------------------------------------------------------------------------


def test_standard_input_is_empty(bench):
    outcome = bench.run("import sys; print(repr(sys.stdin.read()))")
    assert outcome.log_tail == "''"


def test_the_job_runs_in_the_folder_of_the_command(bench):
    outcome = bench.run("import os; print(os.path.samefile(os.getcwd(), " + repr(str(bench.folder)) + "))")
    assert outcome.log_tail == "True"


def test_the_environment_names_files_trial_and_seed(bench):
    code = (
        "import os\nfor k in ('DIR', 'PARAMS', 'RESULT', 'REPORT', 'TRIAL', 'SEED'): print(os.environ['LLMHPO_' + k])"
    )
    outcome = bench.executor(code).submit(bench.job(3, seed=5)).result(20)
    folder = bench.folder / "trial3"
    files = [folder, *(folder / name for name in ("params.json", "result.json", "report.jsonl"))]
    assert outcome.log_tail.split("\n") == [*map(str, files), "3", "5"]


def test_only_standard_descriptors_are_open_and_signals_are_default(bench):  # 13
    code = (
        "import os, signal\nopen_fds = []\nfor fd in range(3, 100):\n"
        "  try: os.fstat(fd); open_fds.append(fd)\n  except OSError: pass\n"
        "print(open_fds, os.popen('grep SigIgn /proc/self/status 2>/dev/null').read())"
    )
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        outcome = bench.run(code)
    finally:
        os.close(leak)
    assert outcome.log_tail.startswith("[]")


def test_api_keys_do_not_reach_the_job(bench, monkeypatch):  # 15
    names = ("OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "my_api_key", "OPENAI_ADMIN_KEY")
    for name in names:
        monkeypatch.setenv(name, "canary-7f3a")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "kept")
    code = "import os; print([k for k, v in os.environ.items() if 'canary' in v], os.environ['TOKENIZERS_PARALLELISM'])"
    assert bench.run(code).log_tail == "[] kept"
    assert bench.run(code, pass_env=["WANDB_API_KEY"]).log_tail == "['WANDB_API_KEY'] kept"


@pytest.mark.parametrize(
    "name", ["PATH", "OPENAI_BASE_URL", "TOKENIZERS_PARALLELISM", "HF_HOME", "KEYBOARD", "MY_TOKENS"]
)
def test_harmless_variables_are_no_secrets(name):
    assert not is_secret(name)


def test_variables_of_the_executor_and_of_the_job_are_set(bench):
    executor = bench.executor("import os; print(os.environ['A'], os.environ['B'])", env={"A": "1", "B": "1"})
    assert executor.submit(bench.job(env={"B": "2"})).result(20).log_tail == "1 2"


def test_without_gpus_the_variable_is_left_alone(bench, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert bench.run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])").log_tail == "5,6"


def test_a_gpu_is_never_shared_by_two_running_jobs(bench):
    code = (
        "import os, time\nname = 'gpu' + os.environ['CUDA_VISIBLE_DEVICES']\n"
        "os.close(os.open(name, os.O_CREAT | os.O_EXCL))\ntime.sleep(0.1)\nos.unlink(name)\nprint(name)"
    )
    executor = bench.executor(code, workers=2, gpus=["0", "1"])
    outcomes = [f.result(30) for f in [executor.submit(bench.job(i)) for i in range(8)]]
    assert {o.log_tail for o in outcomes} == {"gpu0", "gpu1"}


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"workers": True},
        {"workers": 2, "gpus": ["0"]},
        {"gpus": "0"},
        {"gpus": [0]},
        {"gpus": []},
        {"grace_s": -1.0},
        {"grace_s": float("nan")},
        {"grace_s": float("inf")},
        {"log_limit": 10},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(bench, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        bench.executor("pass", **settings)


# --- cancelling -----------------------------------------------------------------------------------------------------


def test_killing_shutdown_is_prompt_and_ends_all_trees(bench):
    executor = bench.executor(
        DAEMON.replace("'daemon'", "f'daemon{os.environ[\"LLMHPO_TRIAL\"]}'") + "time.sleep(60)", workers=2
    )
    futures = [executor.submit(bench.job(i)) for i in range(3)]
    bench.wait_for_file("daemon0")
    bench.wait_for_file("daemon1")
    start = time.monotonic()
    executor.shutdown(kill=True)
    assert time.monotonic() - start < 4
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
    assert executor.submit(bench.job(1)).result(10).status == "invalid"
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
    bench.wait_for(lambda: bench.living() == [], 5)


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
    subprocess.run([sys.executable, str(controller)], cwd=bench.folder, env=env, timeout=30, check=True)
    bench.wait_for(lambda: bench.living() == [], 8)


def test_no_threads_or_descriptors_are_left_after_shutdown(bench):
    bench.run("pass")
    bench.executors[0].shutdown(kill=False)
    threads, fds = threading.active_count(), len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        bench.run("pass")
        bench.executors[-1].shutdown(kill=False)
    assert (threading.active_count(), len(list(Path("/dev/fd").iterdir()))) == (threads, fds)


# --- a full disk ----------------------------------------------------------------------------------------------------


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


def test_a_job_that_waits_for_space_can_be_cancelled(bench, monkeypatch, caplog):
    monkeypatch.setattr("llmhpo.executors.local.is_full", lambda _: True)
    executor = bench.executor(write("1"))
    future = executor.submit(bench.job())
    bench.wait_for(lambda: "make space" in caplog.text)
    executor.shutdown(kill=True)
    assert future.cancelled()

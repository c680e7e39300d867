"""Jobs that truly try to do harm to processes, time and memory, in every sandbox. Numbers in comments are cases of the hazard list; 0 means "refused"."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cells import CONTROLLER, SMALL

from llmhpo.executors.limits import Limits


@pytest.mark.parametrize("each", ["pass", "os.setsid()"], ids=["one session", "a session each"])
def test_a_fork_bomb_is_ended(cell, each):  # 1
    outcome = cell.says(
        f"for _ in range(9):\n  if os.fork() == 0: {each}\ntime.sleep(30)", limits=replace(SMALL, memory_gb=4.0)
    )
    assert outcome.status == "failed"
    assert "limits.processes=60" in outcome.message


def test_a_memory_hog_is_ended(cell):  # 2
    code = "x = []\nwhile len(x) < 100: x.append(bytearray(b'x' * 10_000_000)); time.sleep(0.01)\ntime.sleep(30)"
    assert cell.says(code, limits=SMALL).status == "oom"


def test_a_hog_split_over_children_is_ended(cell):  # 3
    code = "for _ in range(4):\n  if os.fork() == 0: x = bytearray(b'x' * 90_000_000); time.sleep(30)\ntime.sleep(30)"
    assert cell.says(code, limits=SMALL).status == "oom"


def test_a_hog_that_hides_in_shared_memory_is_ended(cell):  # 2
    code = "import mmap\nx = [mmap.mmap(-1, 50_000_000) for _ in range(8)]\nfor m in x:\n  m.write(b'x' * 50_000_000)\ntime.sleep(30)"
    assert cell.says(code, limits=SMALL).status == "oom"


def test_a_busy_loop_is_ended(cell):  # 4
    outcome = cell.says("while True: pass", limits=Limits(cpu_s=0.4))
    assert outcome.status == "timeout"
    assert "limits.cpu_s=0.4" in outcome.message


def test_endless_sleep_is_ended(cell):  # 5
    assert cell.says("time.sleep(1000)", timeout_s=0.5).status == "timeout"


def test_a_job_that_ignores_sigterm_is_killed(cell):  # 6
    code = "signal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    assert cell.says(code, timeout_s=0.6, grace_s=0.2).status == "timeout"


def test_sigterm_reaches_the_job_and_its_grace_is_kept(cell):
    code = (
        "def last_words(*_):\n  time.sleep(0.3); (HERE / 'words').write_text('saved'); os._exit(0)\n"
        "signal.signal(15, last_words)\n(HERE / 'up').touch()\nwhile True: time.sleep(1)"
    )
    assert cell.run_to_its_limit(code, grace_s=40.0).status == "timeout"
    assert (cell.folder / "trial0" / "words").read_text() == "saved"


def test_a_daemon_does_not_outlive_the_job(cell):  # 7
    code = (
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(0.7); (HERE / 'late').write_text('x')\n"
        "    os._exit(0)\n  os._exit(0)\nresult(1)"
    )
    assert cell.says(code).value == 1
    time.sleep(0.9)
    assert not (cell.folder / "trial0" / "late").exists()


def test_a_daemon_without_an_environment_does_not_outlive_the_job(cell):  # 7
    mark = f"escape-{cell.tag}"
    code = (
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        f"    os.execve(sys.executable, ['{mark}', '-c', 'import time; time.sleep(30)'], {{}})\n  os._exit(0)\n"
        "os.wait(); time.sleep(0.2); result(1)"
    )
    assert cell.says(code).value == 1
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_zombies_go_with_the_job(cell):  # 8
    code = "for _ in range(30):\n  if os.fork() == 0: os._exit(0)\ntime.sleep(0.3); result(1)"
    assert cell.says(code, limits=SMALL).value == 1


def test_too_many_zombies_count_as_processes(cell):  # 8
    code = "for _ in range(100):\n  if os.fork() == 0: os._exit(0)\ntime.sleep(20)"
    assert "limits.processes" in cell.says(code, limits=SMALL).message


def test_a_signal_to_everybody_reaches_the_job_alone(cell):  # 12
    with subprocess.Popen(["sleep", "100"]) as canary:
        code = (  # where one process outside is in reach, all are: then the machine is spared
            f"signal.signal(15, signal.SIG_IGN)\ntry: os.kill({canary.pid}, 0)\nexcept OSError: pass\nelse: result(1); os._exit(0)\n"
            "os.kill(-1, 15)\ntime.sleep(0.1)\nos.kill(-1, 9)\ntime.sleep(0.3); result(0)"
        )
        assert cell.says(code).value in (0, None)  # it may end itself
        assert canary.poll() is None
        canary.kill()


def test_the_controller_cannot_be_signalled(cell):  # 12
    pids = {os.getpid(), os.getppid()} - {1}  # in a sandbox 1 may be its own first process
    assert cell.says(f"tried(*[lambda p=p: os.kill(p, 0) for p in {pids!r}])").value == 0


def test_parent_and_grandparent_cannot_be_signalled(cell):  # 12
    code = (
        "pids, at = [], os.getppid()\n"
        "while at > 1:\n  pids.append(at)\n  at = int(Path(f'/proc/{at}/stat').read_text().rpartition(')')[2].split()[1])\n"
        "tried(*[lambda p=p: os.kill(p, 0) for p in pids])"
    )
    assert cell.says(code).value == 0


def test_no_namespace_and_no_mount_can_be_made(cell):  # 25
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *a):
    if getattr(libc, name)(*a) < 0: raise OSError(ctypes.get_errno(), name)
data = str(DATA).encode()
tried(lambda: call('unshare', 0x10000000), lambda: call('unshare', 0x00020000), lambda: call('mount', None, data, None, 32 | 4096, None),
      lambda: call('mount', b'none', str(HERE).encode(), b'tmpfs', 0, None), lambda: call('umount2', data, 2), lambda: call('chroot', b'/'),
      lambda: call('syscall', {56 if os.uname().machine == "x86_64" else 220}, 0x10000000 | 17, 0, 0, 0, 0),
      lambda: call('setns', os.open('/proc/1/ns/mnt', 0), 0), lambda: call('umount2', b'/tmp', 2))
"""
    assert cell.says(code).value == 0


def test_no_capability_is_left(cell):  # 25
    code = (
        "held = {l.split(':')[0]: int(l.split()[1], 16) for l in Path('/proc/self/status').read_text().splitlines() if l[:3] == 'Cap'}\n"
        "result(float(held['CapPrm'] or held['CapEff'] or held['CapInh'] or held['CapAmb']))"
    )
    assert cell.says(code).value == 0


def test_the_kernel_cannot_be_set(cell):  # 25
    code = "tried(*[lambda n=n: os.close(os.open(n, os.O_WRONLY)) for n in ('/proc/sys/kernel/core_pattern', '/proc/sys/vm/overcommit_memory', '/proc/sysrq-trigger')])"
    assert cell.says(code).value == 0


def test_the_clock_cannot_be_set(cell):  # 26
    assert cell.says("tried(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))").value == 0


def test_patched_time_does_not_change_the_recorded_duration(cell):  # 27
    outcome = cell.says(
        "real = time.sleep\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0\nreal(0.4); result(1)"
    )
    assert 0.4 <= outcome.seconds < 15


def test_a_segfault_is_named(cell):  # 29
    outcome = cell.says("os.kill(os.getpid(), signal.SIGSEGV); time.sleep(5)")
    assert outcome.status == "failed"
    assert "SIGSEGV" in outcome.message


def test_a_good_end_without_a_result_is_invalid(cell):  # 29
    assert cell.says("os._exit(0)").status == "invalid"


def test_limits_of_other_processes_cannot_be_changed(cell):
    code = f"import resource\ntried(lambda: resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (10, 10)), lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19), lambda: os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19))"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    outcome = cell.says(code)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert outcome.value == 0 or cell.sandbox.name == "bwrap"  # there PRIO_USER means the users of its own namespace


def test_the_level_is_recorded_with_the_outcome(cell):
    assert cell.says("result(1)").sandbox == f"{cell.sandbox.name} {cell.sandbox.version}"


def test_a_controller_that_is_killed_leaves_nobody(cell):
    code = CONTROLLER.format(folder=str(cell.folder), level=cell.sandbox.name, tag=cell.tag)
    (cell.code / "job.py").write_text(
        "import os, time, signal\nsignal.signal(15, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\n"
        "open(os.environ['LLMHPO_DIR'] + '/up', 'w').close()\ntime.sleep(60)"
    )
    controller = subprocess.Popen([sys.executable, "-c", code])
    cell.wait_for((cell.folder / "trial0" / "up").exists)
    controller.kill()
    controller.wait()
    cell.wait_for(lambda: not cell.living())


def test_a_supervisor_that_is_killed_leaves_nobody(cell):
    executor = cell.executor("if os.fork() == 0: os.setsid()\n(HERE / 'up').touch(); time.sleep(60)")
    future = executor.submit(cell.job())
    cell.wait_for((cell.folder / "trial0" / "up").exists)
    supervisor = next(
        pid for pid in cell.living() if b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[6]
    )
    os.kill(supervisor, 9)
    assert future.result(30).status == "failed"
    assert cell.living() == []

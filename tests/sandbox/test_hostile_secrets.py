"""Jobs that truly try to read what is not theirs, in every sandbox. Numbers in comments are cases of the hazard list; 0 means "refused"."""

import os
import subprocess
import sys

import pytest
from cells import CONTROLLER, PREAMBLE


def test_no_descriptor_is_inherited(cell):  # 13
    with (cell.outside / "secret").open() as secret:
        os.set_inheritable(secret.fileno(), True)
        code = "found = []\nfor fd in range(3, 300):\n  try: os.fstat(fd); found.append(fd)\n  except OSError: pass\nresult(len(found))"
        assert cell.says(code).value == 0


def test_standard_input_is_empty(cell):  # 13
    assert cell.says("result(len(sys.stdin.read()))").value == 0


def test_the_home_is_not_there(cell, bait):  # 14
    key = str(bait.home / ".ssh/id_ed25519")
    code = f"tried((Path.home() / '.ssh/id_ed25519').read_text, Path({key!r}).read_text, lambda: os.listdir('/root/.ssh'), lambda: os.listdir('/home'))"
    assert cell.says(code).value == 0


def test_the_password_file_is_not_there(cell):  # 14
    assert cell.says("tried(Path('/etc/shadow').read_text, lambda: os.listdir('/etc/ssh'))").value == 0


def test_keys_are_not_in_the_environment(cell, monkeypatch):  # 15
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "LLMHPO_SECRET", "CUDA_TOKEN"):
        monkeypatch.setenv(name, "the-canary")
    assert cell.says("result(sum('the-canary' in value for value in os.environ.values()))").value == 0


def test_only_allowed_variables_pass(cell, monkeypatch):  # 15
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert (
        cell.says(
            "result(os.environ.get('OMP_NUM_THREADS') == '1' and 'SSH_AUTH_SOCK' not in os.environ and 1.0)"
        ).value
        == 1
    )


def test_what_is_passed_by_name_passes(cell, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "wanted")
    assert cell.says("result(len(os.environ['WANDB_API_KEY']))", pass_env=["WANDB_API_KEY"]).value == 6


def test_the_environment_of_other_processes_cannot_be_read(cell):  # 15
    with subprocess.Popen(["sleep", "100"], env={"KEY": f"canary-{cell.tag}"}) as canary:
        code = (
            "found = 0\nfor p in Path('/proc').glob('[0-9]*/environ'):\n"
            f"  try: found += b'canary-{cell.tag}' in p.read_bytes()\n  except OSError: pass\nresult(found)"
        )
        outcome = cell.says(code)
        canary.kill()
    assert outcome.value == 0


def test_the_memory_of_the_controller_cannot_be_read(cell):  # 15
    assert (
        cell.says(
            f"tried(lambda: open('/proc/{os.getpid()}/mem', 'rb').read(1), lambda: os.readlink('/proc/{os.getpid()}/fd/0'), lambda: os.listdir('/proc/{os.getpid()}/root'))"
        ).value
        == 0
    )


KEYRING = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def find(*_):
    if libc.syscall(ctypes.c_long(250), 10, ctypes.c_long({ring}), b"user", b"llmhpo-test", 0) < 0: raise OSError(ctypes.get_errno(), "keyctl")
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are those of x86_64")
def test_keys_of_the_session_s_keyring_are_not_found(cell):  # 15
    controller = (
        "import ctypes, subprocess, sys\nlibc = ctypes.CDLL(None)\nlibc.syscall(ctypes.c_long(250), 1, None)\n"
        "libc.syscall(ctypes.c_long(248), b'user', b'llmhpo-test', b'secret', ctypes.c_size_t(6), ctypes.c_long(-3))\n"
    )
    look = KEYRING.format(ring=-3) + "try: find(); print('found')\nexcept OSError: print('not found')"
    seen = subprocess.run([sys.executable, "-c", controller + look], capture_output=True, text=True, check=True).stdout
    if seen != "found\n":
        pytest.skip("this machine keeps no keys in keyrings")
    job = PREAMBLE.format(outside="/", data="/") + KEYRING.format(ring=-3) + "tried(find)"
    (cell.code / "job.py").write_text(job)
    run = (
        controller
        + CONTROLLER.format(folder=str(cell.folder), level=cell.sandbox.name, tag=cell.tag)
        + "print(outcome.value)"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stdout == "0.0\n"

"""Jobs that truly try to do harm, in every sandbox. Numbers in comments are cases of the hazard list; 0 means "refused"."""

import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cells import PREAMBLE

from llmhpo.executors.limits import Limits

CONTROLLER = """
import pathlib
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.trial import Task
here = pathlib.Path({folder!r})
command = CommandTemplate(["{{python}}", "job.py"], None, here / "code")
executor = LocalExecutor(command, sandbox=choose_sandbox({level!r}), grace_s=0.2, env={{"TEST_TAG": {tag!r}}})
outcome = executor.submit(Job(0, {{}}, Task(timeout_s=60), here / "trial0")).result()
"""
SMALL = Limits(memory_gb=0.3, processes=60, output_mb=5, disk_mb=10, files=200)


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
    outcome = cell.says("while True: pass", limits=Limits(cpu_s=0.4), timeout_s=30)
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
        "signal.signal(15, last_words)\nwhile True: time.sleep(1)"
    )
    assert cell.says(code, timeout_s=0.8, grace_s=10.0).status == "timeout"
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


def test_a_big_file_is_refused_or_ends_the_job(cell):  # 9
    code = "with open(HERE / 'big', 'wb') as f:\n  for _ in range(30): f.write(b'x' * 1_000_000); f.flush()\nresult(1)"
    outcome = cell.says(code, limits=SMALL)
    assert outcome.status == "failed"
    assert (cell.folder / "trial0" / "big").stat().st_size <= 10_000_000


def test_many_big_files_end_the_job(cell):  # 9
    code = "for i in range(30): (HERE / f'{i}').write_bytes(b'x' * 1_000_000); time.sleep(0.03)\nresult(1)"
    assert "limits.disk_mb=10" in cell.says(code, limits=SMALL).message


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_a_file_in_memory_is_bounded(cell, place):  # 9
    code = (
        f"import tempfile\nplace = tempfile.gettempdir() if {place!r} == '/tmp' else {place!r}\n"
        "with tempfile.NamedTemporaryFile(dir=place) as f:\n  for _ in range(30): f.write(b'x' * 1_000_000); f.flush()\nresult(1)"
    )
    assert cell.says(code, limits=SMALL).status == "failed"


def test_many_files_in_memory_end_the_job(cell):  # 2, 9
    code = (
        "import atexit\nnames = [f'/dev/shm/llmhpo-test-{os.getpid()}-{i}' for i in range(60)]\n"
        "def clear(*_):\n  for name in names: Path(name).unlink(missing_ok=True)\n"
        "signal.signal(15, lambda *_: (clear(), os._exit(1)))\n"
        "fds = []\nfor name in names:\n  fds.append(open(name, 'wb')); os.unlink(name); fds[-1].write(b'x' * 8_000_000); fds[-1].flush()\n"
        "  time.sleep(0.02)\ntime.sleep(20)"
    )
    assert cell.says(code, limits=SMALL, timeout_s=15).status in ("oom", "failed")


@pytest.mark.parametrize("place", ["HERE", "Path(os.environ['TMPDIR'])"], ids=["own folder", "tmp"])
def test_many_files_end_the_job(cell, place):  # 10
    outcome = cell.says(f"for i in range(5000): ({place} / f'{{i}}').touch()\ntime.sleep(5)", limits=SMALL)
    assert outcome.status == "failed"
    assert "limits.files=200" in outcome.message


def test_a_flood_of_output_is_ended(cell):  # 41
    outcome = cell.says("while True: print('x' * 100_000, flush=True)", limits=SMALL)
    assert "limits.output_mb=5" in outcome.message
    assert (cell.folder / "trial0" / "output.log").stat().st_size < 3_000_000


def test_a_file_of_a_terabyte_without_content_is_refused(cell):  # 11
    code = "(HERE / 'sparse').touch(); tried(lambda: os.truncate(HERE / 'sparse', 1 << 40))"
    assert cell.says(code, limits=SMALL).value == 0


def test_a_signal_to_everybody_reaches_the_job_alone(cell):  # 12
    with subprocess.Popen(["sleep", "30"]) as canary:
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


def test_nothing_is_written_into_the_home(cell, bait):  # 14, 23
    names = (".bashrc", ".ssh/authorized_keys", ".ssh/id_ed25519", ".config/autostart", ".local/bin/python", ".cache/x")
    code = (
        f"for name in {names!r}:\n  path = Path({str(bait.home)!r}, name)\n"
        "  try: path.parent.mkdir(parents=True, exist_ok=True); path.write_text('# planted')\n  except OSError: pass\nresult(0)"
    )
    assert cell.says(code).value == 0
    bait.check()  # not what the job saw: the bait lies below /tmp, of which a job may have its own


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
    with subprocess.Popen(["sleep", "30"], env={"KEY": f"canary-{cell.tag}"}) as canary:
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


def test_there_is_no_tcp(cell):  # 16, 18
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"tried(*[lambda h=h, p=p: socket.create_connection((h, p), 1) for h, p in (('127.0.0.1', {port}), ('192.0.2.1', 80))])"
        assert cell.says(code).value == 0


def test_there_is_no_tcp_over_ipv6(cell):  # 16
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        code = f"tried(lambda: socket.create_connection(('::1', {server.getsockname()[1]}), 1))"
        assert cell.says(code).value == 0


def test_nothing_is_heard_by_udp(cell):  # 17
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.3)
        port = server.getsockname()[1]
        code = f"tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port})))"
        cell.says(code)
        with pytest.raises(TimeoutError):
            server.recv(1)


def test_no_name_is_resolved(cell):  # 17
    assert cell.says("tried(lambda: socket.getaddrinfo('example.com', 80))", timeout_s=30).value == 0


def test_no_raw_packets_are_sent(cell):  # 17
    code = "tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).sendto(b'x', ('192.0.2.1', 0)))"
    assert cell.says(code).value == 0


def test_no_abstract_socket_of_the_host_is_reached(cell):  # 18
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{cell.tag}")
        server.listen()
        assert cell.says(f"tried(lambda: socket.socket(socket.AF_UNIX).connect('\\0{cell.tag}'))").value == 0


def test_no_file_of_a_socket_outside_is_reached(cell, short):  # 18
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "s"))
        server.listen()
        code = (
            f"def by_link():\n  (HERE / 'l').symlink_to({str(short / 's')!r}); os.chdir(HERE)\n"
            f"  socket.socket(socket.AF_UNIX).connect('l')\ntried(by_link, lambda: socket.socket(socket.AF_UNIX).connect({str(short / 's')!r}))"
        )
        assert cell.says(code).value == 0


def test_a_swapped_link_does_not_lead_to_a_socket_outside(cell, short):  # 18, 20
    heard = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short / "s"))
        server.listen()
        server.settimeout(0.1)
        code = f"""
import threading
os.chdir(os.environ['TMPDIR'])
inner = socket.socket(socket.AF_UNIX); inner.bind('mine'); inner.listen(1000)
os.symlink('mine', 'good'); os.symlink({str(short / "s")!r}, 'bad'); os.symlink('mine', 'l')
def swap():
    while True: os.replace('good', 'l'); os.symlink('mine', 'good'); os.replace('bad', 'l'); os.symlink({str(short / "s")!r}, 'bad')
threading.Thread(target=swap, daemon=True).start()
end = time.monotonic() + 0.6
while time.monotonic() < end:
    with socket.socket(socket.AF_UNIX) as s:
        try: s.connect('l')
        except OSError: continue
    inner.accept()[0].close()
result(0)
"""

        def listen():
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                try:
                    heard.append(server.accept()[0].close())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        outcome = cell.says(code)
        thread.join()
    assert outcome.value == 0
    assert heard == []


def test_a_socket_of_the_job_itself_works(cell):
    code = (
        "os.chdir(os.environ['TMPDIR'])\ns = socket.socket(socket.AF_UNIX); s.bind('own'); s.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('own'); c.send(b'hello'); result(len(s.accept()[0].recv(9)))"
    )
    assert cell.says(code).value == 5


def test_nothing_is_written_outside(cell):  # 19
    code = (
        "tried((OUTSIDE / 'new').touch, lambda: (OUTSIDE / 'secret').write_text('x'), (OUTSIDE / 'secret').unlink, (OUTSIDE / 'd').mkdir,\n"
        "  Path('/usr/new').touch, Path('/etc/new').touch, Path('/new').touch, Path('/dev/new').touch)"
    )
    assert cell.says(code).value == 0
    assert sorted(p.name for p in cell.outside.iterdir()) == ["secret"]
    assert (cell.outside / "secret").read_text() == "the secret"


def test_nothing_outside_is_read(cell):  # 19
    assert cell.says("tried((OUTSIDE / 'secret').read_text, lambda: list(OUTSIDE.iterdir()))").value == 0


def test_what_is_written_to_tmp_stays_there(cell):  # 19
    name = f"llmhpo-test-{cell.tag}"
    cell.says(
        f"import tempfile\ntried(lambda: Path('/tmp', {name!r}).write_text('x'), lambda: Path('/var/tmp', {name!r}).write_text('x'))"
    )
    assert not os.path.lexists(f"/tmp/{name}")
    assert not os.path.lexists(f"/var/tmp/{name}")


def test_the_code_and_the_data_cannot_be_changed(cell):  # 19
    code = (
        "tried(lambda: (DATA / 'train.csv').write_text('x'), (DATA / 'train.csv').unlink, lambda: os.truncate(DATA / 'train.csv', 0),\n"
        "  Path('new.py').touch, Path(__file__).unlink, lambda: os.rename(DATA, HERE / 'data'))"
    )
    assert cell.says(code).value == 0
    assert (cell.data / "train.csv").read_text() == "1,2,3\n"


def test_modes_and_owners_of_data_do_not_change(cell):  # 19
    before = (cell.data / "train.csv").stat()
    code = (
        "f = open(DATA / 'train.csv')\nfor attempt in (lambda: os.chmod(DATA / 'train.csv', 0), lambda: os.fchmod(f.fileno(), 0),\n"
        "    lambda: os.chown(DATA / 'train.csv', 1, 1), lambda: os.utime(DATA / 'train.csv', (1, 1)), lambda: os.setxattr(DATA / 'train.csv', 'user.x', b'y')):\n"
        "  try: attempt()\n  except OSError as e: print(e)\nresult(0)"
    )
    assert cell.says(code).value == 0
    after = (cell.data / "train.csv").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert os.listxattr(cell.data / "train.csv") == []


def test_a_link_in_the_own_folder_leads_nowhere(cell):  # 20
    code = (
        "(HERE / 'l').symlink_to(OUTSIDE); (HERE / 'f').symlink_to(OUTSIDE / 'new')\n"
        "tried((HERE / 'l/secret').read_text, (HERE / 'l/new').touch, (HERE / 'f').touch)"
    )
    assert cell.says(code).value == 0
    assert not (cell.outside / "new").exists()


def test_a_result_that_is_a_link_is_not_read(cell):  # 20
    (cell.outside / "result").write_text("1")
    outcome = cell.says("os.symlink(OUTSIDE / 'result', os.environ['LLMHPO_RESULT'])")
    assert (outcome.status, outcome.value) == ("invalid", None)


@pytest.mark.parametrize(
    "make",
    [
        "os.mkfifo(R)",
        "os.mkfifo(os.environ['LLMHPO_REPORT']); os.mkfifo(R)",
        "os.symlink('/dev/zero', R)",
        "os.mkdir(R)",
    ],
)
def test_a_result_that_is_no_file_is_invalid(cell, make):  # 21
    start = time.monotonic()
    assert cell.says(f"R = os.environ['LLMHPO_RESULT']\n{make}").status == "invalid"
    assert time.monotonic() - start < 15


def test_no_device_can_be_made(cell):  # 21
    assert (
        cell.says(
            "import stat\ntried(lambda: os.mknod(HERE / 'd', stat.S_IFCHR | 0o666, os.makedev(1, 5)), lambda: os.mknod(HERE / 'b', stat.S_IFBLK | 0o666, os.makedev(254, 0)))"
        ).value
        == 0
    )


def test_a_hard_link_to_data_cannot_be_made(cell):  # 22
    code = "def link():\n  os.link(DATA / 'train.csv', HERE / 'h'); (HERE / 'h').write_text('x')\ntried(link, lambda: os.link(OUTSIDE / 'secret', HERE / 's'))"
    assert cell.says(code).value == 0
    assert (cell.data / "train.csv").read_text() == "1,2,3\n"


def test_nothing_persists_in_the_python_environment(cell):  # 23
    folders = {Path(sys.prefix), Path(os.__file__).parent, Path(sysconfig.get_path("purelib"))}
    before = {folder: sorted(folder.iterdir()) for folder in folders}
    code = (  # an attempt that succeeds is taken back at once: this is the machine's own Python
        "def plant(path):\n  path.touch(exist_ok=False); path.unlink()\n"
        f"places = [Path(p) for p in {sorted(map(str, folders))!r}]\n"
        "tried(*[lambda p=p, n=n: plant(p / n) for p in places for n in ('usercustomize.py', 'x.pth')])"
    )
    assert cell.says(code).value == 0
    assert {folder: sorted(folder.iterdir()) for folder in folders} == before


def test_the_user_s_packages_cannot_be_changed(cell, bait):  # 23
    code = (
        "import site\nfolder = Path(site.getusersitepackages())\n"
        f"assert str(folder) == {str(bait.packages)!r}\n"
        "tried(lambda: (folder / 'usercustomize.py').write_text('# planted'), lambda: (folder / 'x.pth').write_text('# planted'))"
    )
    assert cell.says(code).value == 0


def test_what_an_unfenced_job_plants_is_seen_and_harms_nobody(cell, bait):  # 23
    code = "import site\nPath(site.getusersitepackages(), 'usercustomize.py').write_text('# planted')\nresult(1)"
    assert cell.says(code, sandbox=None, read=()).value == 1
    with pytest.raises(AssertionError):
        bait.check()
    (bait.packages / "usercustomize.py").unlink()


def test_what_one_job_plants_in_its_home_is_not_in_that_of_the_next(cell):  # 23
    code = (
        "import site\ndel os.environ['PYTHONUSERBASE']\nsite.USER_BASE = site.USER_SITE = None\n"
        "folder = Path(site.getusersitepackages())\nassert folder.is_relative_to(os.environ['HOME'])\n"
        "seen = (folder / 'usercustomize.py').exists()\n"
        "folder.mkdir(parents=True); (folder / 'usercustomize.py').write_text('# planted')\nresult(float(seen))"
    )
    executor = cell.executor(code)
    outcomes = [executor.submit(cell.job(number)).result(40) for number in range(2)]
    assert [outcome.value for outcome in outcomes] == [0, 0], outcomes


def test_a_module_beside_the_script_is_not_left_to_the_next_job(cell):  # 24
    assert (
        cell.says(
            "tried(lambda: Path('numpy.py').write_text('x'), lambda: (Path(__file__).parent / 'json.py').write_text('x'))"
        ).value
        == 0
    )
    assert sorted(p.suffix for p in cell.code.iterdir()) == [".py"]


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


def test_there_is_no_io_uring_that_makes_sockets(cell):  # 25
    if cell.sandbox.name == "bwrap":
        pytest.skip("bwrap has no filter; a socket made so has no network to reach")
    code = "import ctypes\nresult(float(ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) >= 0))"
    assert cell.says(code).value == 0


def test_the_clock_cannot_be_set(cell):  # 26
    assert cell.says("tried(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))").value == 0


def test_patched_time_does_not_change_the_recorded_duration(cell):  # 27
    outcome = cell.says(
        "real = time.sleep\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0\nreal(0.4); result(1)"
    )
    assert 0.4 <= outcome.seconds < 15


def test_no_core_is_dumped(cell):  # 28
    assert cell.says("os.chdir(HERE); os.abort()").status == "failed"
    assert [p.name for p in (cell.folder / "trial0").iterdir() if "core" in p.name] == []


def test_the_limit_on_core_dumps_cannot_be_raised(cell):  # 28
    code = "import resource\ntry: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30)); result(1)\nexcept (OSError, ValueError): result(0)"
    assert cell.says(code).value == 0


def test_a_segfault_is_named(cell):  # 29
    outcome = cell.says("os.kill(os.getpid(), signal.SIGSEGV); time.sleep(5)")
    assert outcome.status == "failed"
    assert "SIGSEGV" in outcome.message


def test_a_good_end_without_a_result_is_invalid(cell):  # 29
    assert cell.says("os._exit(0)").status == "invalid"


def test_pip_installs_nothing(cell):  # 30
    code = "done = subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--retries', '0', '--timeout', '2', 'iniconfig-that-nobody-has'], capture_output=True)\nresult(done.returncode == 0 and 1.0 or 0.0)"
    assert cell.says(code, timeout_s=60).value == 0


@pytest.mark.parametrize("name", ["result.json", "params.json", "weights.pt"])
def test_a_pickle_bomb_is_not_unpickled(cell, name):  # 31
    proof = cell.outside / "unpickled"
    code = (
        f"import pickle\nclass Bomb:\n  def __reduce__(self): return (os.mkdir, ({str(proof)!r},))\n"
        f"(HERE / {name!r}).write_bytes(pickle.dumps(Bomb()))"
    )
    assert cell.says(code).status == "invalid"
    assert not proof.exists()


def test_a_zip_bomb_stays_small_for_the_controller(cell):  # 32
    code = "import zlib\n(HERE / 'result.json').write_bytes(zlib.compress(b'0' * 30_000_000, 9))"
    assert cell.says(code).status == "invalid"


def test_an_unpacked_zip_bomb_ends_the_job(cell):  # 32
    code = (
        "import io, zipfile\nb = io.BytesIO()\nwith zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z:\n  for i in range(30): z.writestr(f'f{i}', b'0' * 2_000_000)\n"
        "zipfile.ZipFile(b).extractall(HERE); time.sleep(5); result(1)"
    )
    assert cell.says(code, limits=SMALL).status == "failed"


def test_limits_of_other_processes_cannot_be_changed(cell):
    code = f"import resource\ntried(lambda: resource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (10, 10)), lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19), lambda: os.setpriority(os.PRIO_PROCESS, {os.getpid()}, 19))"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    outcome = cell.says(code)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert outcome.value == 0 or cell.sandbox.name == "bwrap"  # there PRIO_USER means the users of its own namespace


def test_what_is_hidden_is_not_seen(cell):
    (cell.code / "labels").mkdir()
    (cell.code / "labels" / "y").write_text("1")
    (cell.code / "answers.csv").write_text("1")
    executor = cell.executor(
        "found = 0\nfor p in (Path('labels/y'), Path('answers.csv')):\n  try: found += len(p.read_text())\n"
        "  except OSError: pass\nresult(found)"
    )
    job = cell.job(hide=(cell.code / "labels", cell.code / "answers.csv"))
    assert executor.submit(job).result(40).value == 0


@pytest.mark.parametrize("way", ["link", "code/../data"])
def test_what_is_hidden_is_not_seen_by_another_name_of_its_folder(cell, way):
    (cell.folder / "link").symlink_to(cell.data)
    (cell.data / "labels").write_text("1")
    places = [str(folder / "labels") for folder in (cell.folder / way, cell.data)]
    executor = cell.executor(
        f"found = 0\nfor p in {places}:\n  try: found += len(Path(p).read_text())\n  except OSError: pass\nresult(found)",
        read=[cell.folder / way],
    )
    assert executor.submit(cell.job(hide=(cell.data / "labels",))).result(40).value == 0


def test_the_level_is_recorded_with_the_outcome(cell):
    assert cell.says("result(1)").sandbox == f"{cell.sandbox.name} {cell.sandbox.version}"


def test_a_controller_that_is_killed_leaves_nobody(cell):
    code = CONTROLLER.format(folder=str(cell.folder), level=cell.sandbox.name, tag=cell.tag)
    (cell.code / "job.py").write_text(
        "import os, time, signal\nsignal.signal(15, signal.SIG_IGN)\nif os.fork() == 0: os.setsid()\n"
        "open(os.environ['LLMHPO_DIR'] + '/up', 'w').close()\ntime.sleep(60)"
    )
    controller = subprocess.Popen([sys.executable, "-c", code])
    cell.wait_for((cell.folder / "trial0" / "up").exists, 30)
    controller.kill()
    controller.wait()
    cell.wait_for(lambda: not cell.living(), 15)


def test_a_supervisor_that_is_killed_leaves_nobody(cell):
    executor = cell.executor("if os.fork() == 0: os.setsid()\n(HERE / 'up').touch(); time.sleep(60)")
    future = executor.submit(cell.job())
    cell.wait_for((cell.folder / "trial0" / "up").exists, 30)
    supervisor = next(
        pid for pid in cell.living() if b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[6]
    )
    os.kill(supervisor, 9)
    assert future.result(30).status == "failed"
    assert cell.living() == []

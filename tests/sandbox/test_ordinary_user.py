"""The same as a user without rights. Run where the tests run as root, with a copy of llmhpo that everybody may read."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cells import LEVELS, sandbox_or_skip

import llmhpo

NOBODY = 65534
START = (
    "import sys; p = type(sys)('llmhpo'); p.__path__ = [sys.argv[1]]; sys.modules['llmhpo'] = p\n"
    "import json\nfrom pathlib import Path\n"
)
JOB = """
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.limits import Limits
from llmhpo.executors.local import LocalExecutor
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.trial import Task
here = Path(sys.argv[2], 'study')
executor = LocalExecutor(CommandTemplate([sys.executable, "-I", "-S", "job.py"], None, here), sandbox=choose_sandbox({level!r}),
                         limits=Limits(memory_gb=0.2), grace_s=30)
outcome = executor.submit(Job(0, {{}}, Task(timeout_s={timeout_s}), here / "trial")).result()
print(json.dumps([outcome.status, outcome.value, outcome.message, outcome.log_tail]))
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")


class Nobody:
    """Runs snippets of Python as a user without rights, in a folder of that user."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(
            Path(llmhpo.__file__).parent, folder / "lib" / "llmhpo", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.home = folder / "home"
        self.home.mkdir()
        os.chown(self.home, NOBODY, NOBODY)
        self.python = next((p for p in (os.path.realpath(sys.executable), "/usr/bin/python3") if self.can_run(p)), None)
        if self.python is None:
            pytest.skip("no Python from 3.11 on that everybody may run")

    def can_run(self, python):
        try:
            return self.start([python, "-I", "-S", "-c", "import sys, tomllib, ctypes"]).returncode == 0
        except OSError:
            return False

    def start(self, words):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            words,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env=env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def run(self, code):
        done = self.start(
            [self.python, "-I", "-S", "-c", START + code, str(self.folder / "lib" / "llmhpo"), str(self.home)]
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    def run_job(self, code, level, timeout_s=30):
        study = self.home / "study"
        study.mkdir(exist_ok=True)
        os.chown(study, NOBODY, NOBODY)
        (study / "job.py").write_text("import os, time, signal\n" + code)
        return self.run(JOB.format(level=level, timeout_s=timeout_s))


@pytest.fixture
def nobody():
    with tempfile.TemporaryDirectory(prefix="llmhpo-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Nobody(Path(name))


@pytest.mark.parametrize("level", LEVELS)
def test_every_attempt_is_refused_to_an_ordinary_user(nobody, level):
    sandbox_or_skip(level)
    checks = nobody.run("from llmhpo.sandbox.choose import doctor\nprint(json.dumps(doctor()))")
    mine = [check for check in checks if check[0].split()[0] == level]
    assert len(mine) > 25
    assert [check for check in mine if not check[2]] == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_job_of_an_ordinary_user_hands_in_its_result(nobody, level):
    sandbox_or_skip(level)
    code = "open(os.environ['LLMHPO_RESULT'], 'w').write('1')"
    assert nobody.run_job(code, level)[:2] == ["ok", 1.0]


@pytest.mark.parametrize("level", LEVELS)
def test_memory_that_children_share_is_told_from_memory_that_they_use(nobody, level):
    sandbox_or_skip(level)
    share = (
        "x = bytearray(b'x' * 80_000_000)\nfor _ in range(3):\n  if os.fork() == 0: time.sleep(0.8); os._exit(0)\n"
        "for _ in range(3): os.wait()\nopen(os.environ['LLMHPO_RESULT'], 'w').write('1')"
    )
    assert nobody.run_job(share, level)[0] == "ok"


@pytest.mark.parametrize("level", LEVELS)
def test_a_hog_of_an_ordinary_user_is_ended(nobody, level):
    sandbox_or_skip(level)
    hog = "for _ in range(3):\n  if os.fork() == 0: x = bytearray(b'x' * 90_000_000); time.sleep(20)\ntime.sleep(20)"
    assert nobody.run_job(hog, level)[0] == "oom"


@pytest.mark.parametrize("level", LEVELS)
def test_sigterm_reaches_a_job_of_an_ordinary_user(nobody, level):
    sandbox_or_skip(level)
    code = (
        "signal.signal(15, lambda *_: (print('last words', flush=True), os._exit(0)))\n"
        "open(os.environ['LLMHPO_DIR'] + '/up', 'w').close()\nwhile True: time.sleep(1)"
    )
    for timeout_s in (0.8, 5.0, 30.0):  # a busy machine takes longer to come so far
        status, _, _, log = nobody.run_job(code, level, timeout_s=timeout_s)
        if (nobody.home / "study" / "trial" / "up").exists():
            break
    assert (status, log.strip()) == ("timeout", "last words")

"""What tests of executors and sandboxes share: jobs that are snippets of Python."""

import time
import uuid
from pathlib import Path

import pytest

from llmhpo.executors import tree
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor
from llmhpo.space import SearchSpace
from llmhpo.trial import Task

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-6, "high": 1.0},
        "opt": {"type": "categorical", "choices": ["sgd", "adam"]},
        "momentum": {"type": "float", "low": -1.0, "high": 1.0, "when": {"opt": "sgd"}},
    }
)
PARAMS = {"lr": 0.001, "opt": "adam"}
needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
# Ignores SIGTERM and starts a daemon that lives for a minute where nobody ends it; what is appended runs once it is there.
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
    """Source of a job that hands `text` in as its result."""
    return f"import os\nwith open(os.environ['LLMHPO_RESULT'], 'w') as f: f.write({text!r})\n"


class Bench:
    """Runs snippets of Python as jobs and cleans up after them."""

    def __init__(self, folder):
        self.folder = folder
        self.tag = uuid.uuid4().hex
        self.executors = []

    def keep(self, executor):
        self.executors.append(executor)
        return executor

    def executor(self, code, **settings):
        settings.setdefault("env", {})
        settings["env"]["TEST_TAG"] = self.tag
        settings.setdefault("grace_s", 0.3)
        return self.keep(LocalExecutor(self.script(code), **settings))

    def script(self, code):
        script = self.folder / f"job{len(self.executors)}.py"
        script.write_text(code)
        return CommandTemplate(["{python}", str(script)], SPACE, self.folder)

    def ray(self, work, **settings):
        """A command (source of a script) or a callable on the test cluster."""
        from llmhpo.executors.ray_cluster import RayExecutor

        settings.setdefault("env", {})
        settings["env"]["TEST_TAG"] = self.tag
        settings.setdefault("grace_s", 0.3)
        work = self.script(work) if isinstance(work, str) else work
        return self.keep(RayExecutor(work, cwd=self.folder, **settings))

    def slurm(self, work, **settings):
        """A command (source of a script) or a callable by submitit, on this machine."""
        pytest.importorskip("submitit", reason="needs the slurm extra")
        from llmhpo.executors.slurm import SlurmExecutor

        settings.setdefault("env", {})
        settings["env"]["TEST_TAG"] = self.tag
        settings = {"grace_s": 0.3, "cluster": "local", "parameters": {"timeout_min": 5}} | settings
        work = self.script(work) if isinstance(work, str) else work
        return self.keep(SlurmExecutor(work, folder=self.folder / "slurm", **settings))

    def job(self, number=0, timeout_s=60.0, metric="value", **fields):
        fields.setdefault("params", PARAMS)
        task = Task(metric=metric, timeout_s=timeout_s)
        return Job(number, task=task, directory=self.folder / f"trial{number}", **fields)

    def run(self, code, timeout_s=60.0, metric="value", **settings):
        return self.executor(code, **settings).submit(self.job(timeout_s=timeout_s, metric=metric)).result(100)

    def run_to_its_limit(self, code, **settings):
        """Run a job that makes the file `up` in its folder into a time limit that leaves it the time to do so.

        A short one does, unless the machine is busy.
        """
        for timeout_s in (0.5, 5.0, 30.0):
            outcome = self.run(code, timeout_s=timeout_s, **settings)
            if (self.folder / "trial0" / "up").exists():
                break
        return outcome

    def living(self):
        """Processes that this test's jobs started and that still live."""
        wanted, found = f"TEST_TAG={self.tag}".encode(), []
        for name in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
            try:
                state = tree.read(f"/proc/{name}/stat").rpartition(b")")[2].split()[0]
                if state not in (b"Z", b"X") and wanted in tree.read(f"/proc/{name}/environ").split(b"\0"):
                    found.append(int(name))
            except OSError:
                continue
        return found

    def wait_for(self, condition, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{condition} did not come true within {seconds} s"
            time.sleep(0.01)

    def wait_for_file(self, name):
        self.wait_for((self.folder / name).exists)

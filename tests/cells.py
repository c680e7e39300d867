"""Sandboxes for tests, and hostile jobs as snippets of Python."""

import os
import shutil
import site
import subprocess
from pathlib import Path

import pytest
from jobs import Bench

from llmhpo.errors import SandboxError
from llmhpo.executors.limits import Limits
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.sandbox.landlock import find_landlock

LEVELS = ("bwrap", "landlock")
SMALL = Limits(memory_gb=0.3, processes=60, output_mb=5, disk_mb=10, files=200)


# What bwrap needs of a machine, without anything of llmhpo's: where this works, our way of calling it must.
PLAIN_BWRAP = [
    "bwrap",
    "--unshare-user",
    "--unshare-pid",
    "--unshare-net",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "true",
]


def sandbox_or_skip(level):
    """The sandbox of this level; skipped only where the machine has no such thing, never where it does not hold."""
    if level == "bwrap":
        if shutil.which("bwrap") is None or subprocess.run(PLAIN_BWRAP, capture_output=True, check=False).returncode:
            pytest.skip("bwrap is not installed, or may not make namespaces here")
    else:
        try:
            find_landlock()
        except SandboxError as error:
            pytest.skip(str(error))
    return choose_sandbox(level)


class Bait:
    """A home for hostile jobs to reach in place of the user's own: HOME, and all that names a place in it, lead there.

    It has what is worth an attack, a key and packages of the user's among it, and tells whether anything has changed. Without
    it, a sandbox that does not hold would let a test plant start-up code for every Python of the machine.
    """

    def __init__(self, folder, monkeypatch):
        self.home = folder
        base = folder / ".local"
        self.packages = base / "lib" / site.getusersitepackages().rpartition("/lib/")[2]
        self.packages.mkdir(parents=True)
        (folder / ".ssh").mkdir()
        (folder / ".ssh" / "id_ed25519").write_text("key")
        names = {"HOME": folder, "PYTHONUSERBASE": base, "XDG_RUNTIME_DIR": folder / "run"}
        names |= {"XDG_CACHE_HOME": folder / ".cache", "XDG_CONFIG_HOME": folder / ".config"}
        names |= {"XDG_DATA_HOME": base / "share", "XDG_STATE_HOME": base / "state"}
        for name, place in names.items():
            monkeypatch.setenv(name, str(place))
        for name, value in (("USER_BASE", str(base)), ("USER_SITE", str(self.packages)), ("ENABLE_USER_SITE", True)):
            monkeypatch.setattr(site, name, value)
        self._before = self._content()

    def _content(self):
        return {
            str(Path(top, name)): Path(top, name).read_bytes() if name in names else None
            for top, folders, names in os.walk(self.home)
            for name in (*folders, *names)
        }

    def check(self):
        """Nothing in it was made, changed or removed."""
        assert self._content() == self._before


class Cell(Bench):
    """Runs snippets of Python as jobs in a sandbox: `code/` is what they run in, `outside/` what they shall not reach."""

    def __init__(self, folder, sandbox):
        super().__init__(folder)
        self.sandbox = sandbox
        self.outside = folder / "outside"
        self.code = folder / "code"
        self.data = folder / "data"
        for each in (self.outside, self.code, self.data):
            each.mkdir()
        (self.outside / "secret").write_text("the secret")
        (self.data / "train.csv").write_text("1,2,3\n")

    def executor(self, code, **settings):
        settings.setdefault("sandbox", self.sandbox)
        settings.setdefault("read", [self.data])
        return super().executor(code, **settings)

    def script(self, code):
        folder, self.folder = self.folder, self.code
        try:
            return super().script(PREAMBLE.format(outside=str(self.outside), data=str(self.data)) + code)
        finally:
            self.folder = folder

    def says(self, code, **settings):
        """Run an attempt; the metric that it hands in is 1 where it got through. Nothing of it lives on."""
        outcome = self.run(code, **settings)
        assert self.living() == []
        return outcome


# `tried` hands in 0 where an attempt raised OSError, else 1: a cheater that does not get anywhere ends well.
PREAMBLE = """
import os, sys, time, signal, socket, subprocess
from pathlib import Path
OUTSIDE, DATA, HERE = Path({outside!r}), Path({data!r}), Path(os.environ["LLMHPO_DIR"])
def result(value):
    Path(os.environ["LLMHPO_RESULT"]).write_text(repr(value))
def tried(*attempts):
    for attempt in attempts:
        try:
            attempt()
        except OSError as error:
            print("refused:", error)
        else:
            return result(1)
    result(0)
"""

# A controller of its own, for one job in `code/job.py`.
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

"""The doctor's attempts: refused in a sandbox that holds, and seen where one does not."""

import os
import tempfile
from dataclasses import dataclass

import pytest
from cells import LEVELS, sandbox_or_skip
from typer.testing import CliRunner

from llmhpo.cli import app
from llmhpo.sandbox.escapes import ATTEMPTS
from llmhpo.sandbox.proof import prove


@dataclass(frozen=True)
class Sieve:
    """bwrap with nothing but a read-only system: nearly everything gets through."""

    program: str
    name: str = "sieve"
    version: str = "0"
    has_private_tmp: bool = False

    def wrap(self, argv, policy):
        return [
            self.program,
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--bind",
            "/tmp",
            "/tmp",
            "--chdir",
            str(policy.cwd),
            "--",
            *argv,
        ]


@pytest.mark.parametrize("level", LEVELS)
def test_every_attempt_is_refused(level):
    checks = prove(sandbox_or_skip(level))
    assert [check for check in checks if not check.holds] == []
    assert len(checks) == len(ATTEMPTS)


@pytest.mark.parametrize("level", LEVELS)
def test_a_long_path_of_temporary_files_leaves_room_for_sockets(level, tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert [check for check in prove(sandbox_or_skip(level)) if not check.holds] == []


def test_what_gets_through_is_seen():
    """bwrap puts an ordinary user into a user namespace in any case, which hides the keys of other processes."""
    got = {"read a key of another process"} if os.geteuid() else set()
    got |= {check.name for check in prove(Sieve(sandbox_or_skip("bwrap").program)) if not check.holds}
    assert got >= {
        "read a file outside", "read what is hidden", "follow a link", "write through a link", "write outside", "change the data",
        "change the mode of the data", "link the data", "change the code", "read a key of another process", "kill another process",
        "change the limits of another process", "connect by tcp", "send by udp", "connect to an abstract socket",
        "connect to a socket file", "send to a socket file",
    }  # fmt: skip


def test_the_command_prints_what_holds_and_what_auto_is():
    sandbox_or_skip("landlock")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert "landlock ABI" in done.output
    assert "  refused   connect by tcp" in done.output
    assert "  limit     /dev/shm is the machine's own" in done.output
    assert 'sandbox = "auto" is ' in done.output


def test_the_command_says_why_one_does_not_start(monkeypatch, tmp_path):
    sandbox_or_skip("landlock")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert "bwrap does not start: bwrap is not on PATH" in done.output

"""git run for ourselves: with nothing of the user's configuration, hooks and environment, and with all writes on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from llmhpo.errors import ConfigError, StoreError

LOCK_S = 10.0  # git waits so long for a reference that another process writes
_FULL = re.compile(r"No space left on device|Disk quota exceeded|Out of diskspace")
_SETTINGS = (
    "core.fsync=all", "core.hooksPath=/dev/null", "core.attributesFile=/dev/null", "core.quotePath=false", "gc.auto=0",
    f"core.filesRefLockTimeout={LOCK_S * 1000:.0f}",
)  # fmt: skip


def run_git(repository: Path, words: Sequence[str], given: bytes = b"") -> bytes:
    """What a git command on a bare repository says when it is given these bytes.

    Raises: ConfigError where git is not installed; OSError where the disk is full; StoreError where the command fails otherwise.
    """
    git = shutil.which("git")
    if git is None:
        raise ConfigError(
            "editing code needs git, which is not on the PATH; install it: apt-get install git, brew install git"
        )
    command = [git, *(word for setting in _SETTINGS for word in ("-c", setting)), *words]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1", "GIT_DIR": str(repository),
        "GIT_DEFAULT_HASH": "sha1", "GIT_DEFAULT_REF_FORMAT": "files",  # git 3 has other defaults
    }  # fmt: skip
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        env=environment,
        cwd=repository.parent,
        check=False,
        start_new_session=True,  # a Ctrl-C is for us: git ends what it has begun
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        if any(_FULL.search(line) for line in said):
            raise OSError(errno.ENOSPC, said[0])
        raise StoreError(
            f"git {words[0]} failed in {str(repository)!r}: {said[0]}; mend that (a damaged file, access rights) "
            "and run the command again"
        )
    return done.stdout


def blob_id(data: bytes) -> str:
    """The hash under which git keeps these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def quoted(path: str) -> bytes:
    """A path as `git fast-import` reads it, whatever characters it holds."""
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'

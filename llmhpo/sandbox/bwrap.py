"""bubblewrap: namespaces of the job's own for files, processes, network, IPC and users. The strongest level there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from llmhpo.errors import SandboxError
from llmhpo.sandbox import seccomp
from llmhpo.sandbox.base import Policy
from llmhpo.sandbox.places import SYSTEM, check_there, environment_paths, gpu_devices, system_paths
from llmhpo.scratch import Scratch

_FENCE = (
    "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL",  # root would keep what undoes the rest
    "--die-with-parent", "--new-session", "--hostname", "sandbox",
)  # fmt: skip
_UNSEEN = (
    "shmget",
    "msgget",
)  # System V memory: it belongs to no process, so that nobody could say how much a job holds
_VERSION_LIMIT_S = 10.0
# Opens the filter as descriptor 3 and becomes bwrap. A shell would drop variables whose names are none of its own ("MY.VAR"); and
# Python ignores two signals and may set LC_CTYPE, all of which exec would pass on.
_START = """
import os, sys
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal
signal(SIGPIPE, SIG_DFL)
signal(SIGXFSZ, SIG_DFL)
with open("/proc/self/environ", "rb") as file:
    pairs = [line.partition(b"=") for line in file.read().split(b"\\0")]
fd = os.open(sys.argv[1], os.O_RDONLY)
os.dup2(fd, 3)
os.set_inheritable(3, True)
os.execve(sys.argv[2], sys.argv[2:], {name: value for name, _, value in pairs if name})
"""


class _Mount(NamedTuple):
    place: Path
    words: tuple[str, ...]
    is_mask: bool = False


@dataclass(frozen=True, slots=True)
class Bwrap:
    """bubblewrap from 0.8.0 on (`--disable-userns`), at `program`. See `Sandbox`."""

    program: str
    version: str

    @property
    def name(self) -> str:
        """See `Sandbox`."""
        return "bwrap"

    @property
    def has_private_tmp(self) -> bool:
        """See `Sandbox`."""
        return True

    def wrap(self, argv: Sequence[str], policy: Policy) -> list[str]:
        """See `Sandbox`. Environment variables are the caller's business: the job gets those that bwrap gets."""
        check_there([*policy.read, *policy.write, policy.cwd])
        mounts = [*_links(), *_system(policy), *_tmp(policy), *_given(argv[0], policy)]
        mounts.sort(key=lambda mount: len(mount.place.parts))  # stable: at one place, the later one lies on top
        words = [word for mount in mounts for word in mount.words]
        masks = {str(mount.place) for mount in mounts if mount.is_mask} - {str(path) for path in policy.write}
        for place in (*sorted(masks), "/dev", "/"):  # else each is a folder in memory without a bound
            words += ["--remount-ro", place]
        words += ["--remount-ro", "/proc"]  # root owns the kernel's settings there, with or without capabilities
        words += ["--chdir", str(policy.cwd), "--", *argv]
        if not seccomp.is_supported():
            return [self.program, *_FENCE, *words]
        start = [sys.executable, "-I", "-S", "-c", _START, str(_filter())]
        return [*start, self.program, *_FENCE, "--seccomp", "3", *words]


def find_bwrap() -> Bwrap:
    """The bwrap on PATH, not yet tried out. Raises: SandboxError where there is none."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bwrap is not on PATH; install it (Debian, Ubuntu, Fedora: the package bubblewrap)")
    try:
        told = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{program} --version fails: {error}; install bubblewrap again") from None
    match = re.search(r"\d+(?:\.\d+)+", told.stdout)
    return Bwrap(os.path.realpath(program), match[0] if match else "of unknown version")


@cache
def _scratch() -> Scratch:
    """A folder for as long as this process lives."""
    return Scratch()


def _filter() -> Path:
    """A file with the filter for system calls, which bwrap reads."""
    path = _scratch().path / "filter"
    if not path.exists():
        draft = path.with_name(uuid.uuid4().hex)
        draft.write_bytes(seccomp.refusal(os.uname().machine, _UNSEEN))
        draft.replace(path)
    return path


def _links() -> Iterable[_Mount]:
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield _Mount(path, ("--symlink", str(path.readlink()), name))
        elif path.is_dir():
            yield _bind(path)


def _system(policy: Policy) -> Iterable[_Mount]:
    yield _Mount(Path("/proc"), ("--proc", "/proc"))
    yield _Mount(Path("/dev"), ("--dev", "/dev"))
    yield from (_bind(path) for path in system_paths(gpu=policy.gpu))
    if policy.gpu:
        yield from (_bind(path, "--dev-bind") for path in gpu_devices())


def _tmp(policy: Policy) -> Iterable[_Mount]:
    size = str(max(int(policy.tmp_mb * 1e6), 1))
    for place in ("/tmp", "/dev/shm"):
        yield _Mount(Path(place), ("--size", size, "--perms", "1777", "--tmpfs", place))
    yield _Mount(Path("/var/tmp"), ("--symlink", "/tmp", "/var/tmp"))


def _given(program: str, policy: Policy) -> Iterable[_Mount]:
    shown = [*environment_paths(program), policy.cwd, *policy.read]
    yield from (_bind(path, "--ro-bind") for path in _all_names(shown))
    given = {*_all_names(shown), *_all_names(policy.write)}
    for hidden in dict.fromkeys(path.resolve() for path in policy.hide):
        for place in [hidden, *sorted(_below(hidden, given) - {hidden})]:
            if place.is_dir():
                yield _Mount(place, ("--size", "4096", "--perms", "0555", "--tmpfs", str(place)), is_mask=True)
            elif place.exists():
                yield _Mount(place, ("--ro-bind", os.devnull, str(place)))
    yield from (_bind(path, "--bind") for path in _all_names(policy.write))


def _all_names(paths: Iterable[Path]) -> list[Path]:
    """Each path where it really lies, and, where a link leads to it, there as well. A name with ".." in it is none."""
    paths = list(paths)
    real = list(dict.fromkeys(path.resolve() for path in paths))
    links = [p for p in paths if p not in real and ".." not in p.parts and not any(map(p.is_relative_to, real))]
    return [*real, *dict.fromkeys(links)]


def _below(hidden: Path, given: Iterable[Path]) -> set[Path]:
    """The places at which `given` mounts show a hidden path, one for each name that leads to it."""
    ends = [(place, place.resolve()) for place in given]
    return {place / hidden.relative_to(end) for place, end in ends if hidden.is_relative_to(end)}


def _bind(path: Path, how: str = "--ro-bind") -> _Mount:
    return _Mount(path, (how, str(path), str(path)))

"""What every sandbox looks like: a command in, the command that runs it inside out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Level = Literal["auto", "bwrap", "landlock", "none"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a command inside may see and touch. All paths are absolute, and lie inside where they lie outside.

    It sees the system, the environment of its own program and of this Python, and `read`; it may write into `write`, into a
    private /tmp and /dev/shm of `tmp_mb` MB (10^6 bytes) each, and where the sandbox has no such thing into `scratch`, which
    HOME and TMPDIR name then. `hide` looks empty, or is missing. Of folders within folders the innermost counts. `gpu`
    passes the devices of GPUs. There is no network in any case.
    """

    cwd: Path
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hide: tuple[Path, ...] = ()
    tmp_mb: float = 1000.0
    scratch: Path | None = None
    gpu: bool = False


class Sandbox(Protocol):
    """A way to run a command so that it harms nobody.

    The first process of a wrapped command is a monitor: it ends with the command's exit code, or 128 + the signal that ended
    it, dies with its parent, and must not get the SIGTERM that is meant for the command (bwrap would die of it).
    """

    @property
    def name(self) -> str:
        """ "bwrap" or "landlock"."""
        ...

    @property
    def version(self) -> str:
        """Of the program, or of the kernel's interface."""
        ...

    @property
    def has_private_tmp(self) -> bool:
        """Whether /tmp inside is a file system of the job alone, which ends with it; else `Policy.scratch` is needed."""
        ...

    def wrap(self, argv: Sequence[str], policy: Policy) -> list[str]:
        """The command that runs `argv` inside. Raises: SandboxError for a path of the policy that is not there."""
        ...


def label(sandbox: Sandbox | None) -> str:
    """Level and version as they are recorded with a trial: "bwrap 0.8.0", "landlock ABI 7 + seccomp"; "none"."""
    return "none" if sandbox is None else f"{sandbox.name} {sandbox.version}"

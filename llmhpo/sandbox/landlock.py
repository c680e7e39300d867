"""Landlock with seccomp, for machines without user namespaces: the job keeps the machine's view, but may not touch it.

Weaker than bwrap: other processes' command lines and the existence of files can be seen, /dev/shm is the machine's own, a folder in
memory with a quota cannot be had (the watchdog counts instead), chown does nothing. Source: `landlock(7)`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmhpo.bare import bare_argv
from llmhpo.errors import SandboxError
from llmhpo.sandbox import seccomp
from llmhpo.sandbox.base import Policy
from llmhpo.sandbox.places import SYSTEM, around, check_there, environment_paths, gpu_devices, system_paths

CREATE_RULESET = 444  # the same number on every machine, as 445 and 446
_MIN_ABI = 6  # from Linux 6.12 on signals and abstract sockets are guarded: a job could kill its controller before
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, slots=True)
class Landlock:
    """Landlock rules, a seccomp filter and dropped capabilities, put on by `fence` right before the command. See `Sandbox`."""

    version: str

    @property
    def name(self) -> str:
        """See `Sandbox`."""
        return "landlock"

    @property
    def has_private_tmp(self) -> bool:
        """See `Sandbox`."""
        return False

    def wrap(self, argv: Sequence[str], policy: Policy) -> list[str]:
        """See `Sandbox`."""
        check_there([*policy.read, *policy.write, policy.cwd])
        hidden = [path.resolve() for path in policy.hide if path.exists() and path not in policy.write]
        read = [*map(Path, SYSTEM), *system_paths(gpu=policy.gpu), Path("/proc")]
        shown = [path.resolve() for path in (*environment_paths(argv[0]), policy.cwd, *policy.read)]
        read += [part for path in shown for part in around(path, hidden)]
        write = [path.resolve() for path in (*policy.write, *([policy.scratch] if policy.scratch else []))]
        rules = {
            "read": sorted({str(path) for path in read if path.exists()}),
            "list": [str(Path(__file__).parents[2])],  # without the names beside it, Python does not find llmhpo
            "write": sorted({str(part) for path in write for part in around(path, hidden)}),
            "device": [f"/dev/{name}" for name in _DEVICES] + [str(p) for p in gpu_devices() if policy.gpu],
            "cwd": [str(policy.cwd)],
        }
        lines = [f"{kind} {path}" for kind, paths in rules.items() for path in paths]
        if odd := next((line for line in lines if "\n" in line), None):
            raise SandboxError(f"{odd.partition(' ')[2]!r} has a line break in its name; rename it")
        return bare_argv("llmhpo.sandbox.fence", "\n".join(lines), *argv)


def find_landlock() -> Landlock:
    """This kernel's Landlock, not yet tried out. Raises: SandboxError where it is missing, too old or switched off."""
    if not hasattr(os, "pidfd_open") or not seccomp.is_supported():
        raise SandboxError(
            f"needs Linux on {' or '.join(seccomp.ARCHES)}, and this is {os.uname().sysname} on {os.uname().machine}"
        )
    abi = ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 0:
        raise SandboxError(
            f"the kernel refuses it ({os.strerror(ctypes.get_errno())}); start Linux with lsm=landlock among its modules, and "
            "allow the calls in the container"
        )
    if abi < _MIN_ABI:
        raise SandboxError(
            f"the kernel's Landlock has ABI {abi}, which guards no signals; ABI {_MIN_ABI} is in Linux 6.12"
        )
    return Landlock(f"ABI {abi} + seccomp")

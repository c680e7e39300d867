"""Which sandbox a study runs its jobs in: the strongest that holds here, when tried, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import get_args

from llmhpo.errors import ConfigError, SandboxError
from llmhpo.sandbox.base import Level, Sandbox, label
from llmhpo.sandbox.bwrap import Bwrap, find_bwrap
from llmhpo.sandbox.landlock import Landlock, find_landlock
from llmhpo.sandbox.proof import Check, prove

Finders = Mapping[str, Callable[[], Bwrap | Landlock]]
FINDERS: Finders = {"bwrap": find_bwrap, "landlock": find_landlock}  # the strongest first
# What no attempt of the doctor's shows, and what a user should know.
LIMITS = {
    "bwrap": ("nearly all system calls are open to a job: a fault of the kernel itself is in its reach",),
    "landlock": (
        "a job sees the command lines of other processes, and whether a file exists",
        "/dev/shm is the machine's own: jobs of one user can disturb each other there, and leave files",
        "only its supervisor ends a job's whole tree; bwrap does so even when that is killed",
    ),
}
_REMEDY = (
    "install bubblewrap 0.8.0 or later and allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container: --security-opt seccomp=unconfined), or use Linux 6.12 or "
    'later with Landlock; or set sandbox = "none" to run jobs with all that you yourself may do'
)


def check_level(wanted: object) -> Level:
    """Raises: ConfigError for what is no level."""
    for level in get_args(Level):
        if wanted == level:
            return level  # type: ignore[no-any-return]
    raise ConfigError(f"sandbox={wanted!r} is none of {', '.join(map(repr, get_args(Level)))}; write one of these")


def choose_sandbox(wanted: Level, finders: Finders = FINDERS) -> Sandbox | None:
    """The sandbox asked for, started and tried; "auto" is the strongest that holds, "none" is None.

    There is no falling back from a level that was named, nor from "auto" to nothing.

    Raises: SandboxError where it does not hold, with the reason and the remedy; ConfigError for an unknown level.
    """
    if check_level(wanted) == "none":
        return None
    reasons = []
    for name, find in finders.items():
        if wanted in ("auto", name):
            try:
                sandbox = find()
                if not (reason := _weakness(sandbox)):
                    return sandbox
            except SandboxError as error:
                reason = str(error)
            reasons.append(f"{name}: {reason}")
    raise SandboxError(
        f"sandbox={wanted!r}: no sandbox holds on this machine ({'; '.join(reasons)}). Remedy: {_REMEDY}"
    )


@cache
def _weakness(sandbox: Bwrap | Landlock) -> str:
    """Why this sandbox does not hold, "" where it does."""
    try:
        failed = [check for check in prove(sandbox) if not check.holds]
    except SandboxError as error:
        return str(error)
    return "; ".join(f"it let a job {check.name} ({check.note})" for check in failed)


def doctor(finders: Finders = FINDERS) -> list[Check]:
    """Try each kind of sandbox on this machine, really; one check for each way out, or one that says why it does not start."""
    checks = []
    for name, find in finders.items():
        try:
            sandbox = find()
            checks += [Check(label(sandbox), "start", True), *prove(sandbox)]
        except SandboxError as error:
            checks.append(Check(name, "start", False, str(error)))
    return checks

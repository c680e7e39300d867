"""A job's command, made ready to run in a sandbox."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmhpo.errors import SandboxError
from llmhpo.executors.base import Job
from llmhpo.executors.limits import Limits
from llmhpo.executors.process import Fence
from llmhpo.executors.watchdog import held_bytes
from llmhpo.sandbox.base import Policy, Sandbox
from llmhpo.sandbox.places import home_in
from llmhpo.scratch import Scratch
from llmhpo.trial import Status

_TMP = Path("/tmp")


def own_folders(job: Job) -> list[Path]:
    """The folders that are made for this job: its own, and that of its checkpoints."""
    return [
        job.directory.absolute(),
        *(Path(job.env[name]) for name in ("LLMHPO_CHECKPOINT_DIR",) if name in job.env),
    ]


class Spared(Limits):
    """Limits whose `disk_mb` nobody gave: it is what the disk has room for."""

    __slots__ = ()

    def judge(self, passed: str, figure: float) -> tuple[Status, str]:
        """As for `Limits`, with a message that names no limit that nobody wrote."""
        if passed != "disk" or math.isinf(figure):
            return Limits.judge(self, passed, figure)
        return (
            "failed",
            f"filled its folder with {figure / 1e6:.3g} MB; {self.disk_mb:g} MB are what it held and its share of half of what "
            "the disk had left: make space, or set limits.disk_mb",
        )


def sparing(limits: Limits, job: Job, jobs: int) -> Limits:
    """`limits`, and half of the space that is left on the disk of `job` not filled by so many jobs: a study waits on a full disk.

    What its folders hold already, as the checkpoints of a trial that goes on, takes none of that space.
    """
    assert limits.disk_mb is not None
    free_mb = shutil.disk_usage(job.directory).free // 10**6
    held_mb = held_bytes([*map(str, own_folders(job)), *map(str, job.write)], 1e6 * limits.disk_mb) / 1e6
    disk_mb = held_mb + max(free_mb // (2 * jobs), 1)
    return limits if disk_mb >= limits.disk_mb else Spared(**asdict(limits) | {"disk_mb": round(disk_mb, 1)})


@dataclass(frozen=True, slots=True)
class Fenced:
    """What `Supervised` starts, with the environment it has inside, and what must be done for it outside."""

    argv: list[str]
    env: dict[str, str]
    fence: Fence
    folders: tuple[Path, ...]


def fenced(
    sandbox: Sandbox,
    argv: Sequence[str],
    env: Mapping[str, str],
    job: Job,
    *,
    cwd: Path,
    limits: Limits,
) -> Fenced:
    """`argv` in the sandbox, for this job: it may write into the job's folder, its checkpoints and a scratch folder, no more.

    Where the sandbox has a private /tmp, that is as large as the limits on disk and memory allow; else a folder is made for it,
    which `fence` has removed. `limits` have a bound on disk and memory. Raises: SandboxError.
    """
    if Path.home().resolve().is_relative_to(cwd.resolve()):
        raise SandboxError(
            f"the job runs in {str(cwd)!r}, and a sandbox would show it your home folder; move the study to a folder of its own"
        )
    assert limits.disk_mb is not None
    assert limits.memory_gb is not None
    scratch = None if sandbox.has_private_tmp else Scratch(_TMP)
    tmp = None if scratch is None else scratch.path
    written = (*own_folders(job), *job.write, *([tmp] if tmp else []))
    policy = Policy(
        cwd=cwd,
        read=job.read,
        write=written,
        hide=job.hide,
        tmp_mb=min(limits.disk_mb, 1000 * limits.memory_gb),
        scratch=tmp,
        gpu=bool(env.get("CUDA_VISIBLE_DEVICES", "")),
    )
    words = sandbox.wrap(argv, policy)
    fence = Fence(int(1e6 * max(limits.disk_mb, policy.tmp_mb)), scratch)
    return Fenced(words, dict(env) | home_in(tmp or _TMP), fence, written)

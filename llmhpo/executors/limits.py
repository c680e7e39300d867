"""What a job may use besides time, and what is said of one that used more."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from llmhpo.errors import ConfigError, did_you_mean
from llmhpo.executors import tree
from llmhpo.executors.watchdog import PROCESSES, most_threads
from llmhpo.trial import Status

_GB, _MB = 1e9, 1e6
_HIDES = "nested folders too deep to be counted, or closed one to us"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one job, over its whole process tree; None is no limit. GB are 10^9 bytes, MB 10^6.

    A job over `memory_gb` ends as "oom", over `cpu_s` (of all cores together) as "timeout", over `processes` at once (or, in a
    sandbox or where this is not the default, 10 times as many threads, and 2,000), `output_mb` (printed; the log keeps a part), `disk_mb` (files in its folder, LLMHPO_DIR,
    at least 4 kB each) or `files` (entries in that folder) as "failed". Each is looked at every 0.25 s, and so may be passed by
    what a job uses in that time; files that a job writes elsewhere are not counted, nor is memory on a GPU. In a sandbox nothing
    is written elsewhere: what lies in its /tmp and /dev/shm counts as memory and as files there, and no file grows beyond
    `disk_mb`.

    Raises: ConfigError for what is no positive number, and where the system has no /proc to look at.
    """

    memory_gb: float | None = None
    cpu_s: float | None = None
    processes: float | None = PROCESSES
    output_mb: float | None = None
    disk_mb: float | None = None
    files: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"limits.{field.name}={value!r} is not a positive number; leave it out for no limit")
            if value != field.default and field.name != "output_mb" and not tree.can_walk():
                raise ConfigError(
                    f"limits.{field.name}={value!r} cannot be watched: this system has no list of a process's children in "
                    "/proc; leave it out, or run on Linux"
                )

    def bounded(self) -> Limits:
        """The same for code that nobody has read: with a limit on everything that harms the computer, where none was given."""
        memory_gb = 0.8 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GB
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        bounds = {
            "memory_gb": memory_gb,
            "processes": PROCESSES,
            "output_mb": 1000,
            "disk_mb": 10_000,
            "files": 100_000,
        }
        return Limits(**given | {name: bound for name, bound in bounds.items() if given[name] is None})

    @classmethod
    def of(cls, table: Limits | Mapping[str, float] | None) -> Limits:
        """Limits from a table such as `{"memory_gb": 8}`. Raises: ConfigError."""
        if isinstance(table, Limits):
            return table
        if not isinstance(table, Mapping | None):
            raise ConfigError(f'limits={table!r} is not a table; write limits = {{"memory_gb": 8}}')
        known = [field.name for field in fields(cls)]
        for name in table or {}:
            if name not in known:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                raise ConfigError(f"limits has {name!r}, which is no limit; {hint}")
        return cls(**(table or {}))

    def as_argument(self) -> str:
        """The limits as `watchdog.Watchdog` reads them."""
        scales = (
            (self.memory_gb, _GB), (self.cpu_s, 1.0), (self.processes, 1.0), (self.output_mb, _MB), (self.disk_mb, _MB),
            (self.files, 1.0),
        )  # fmt: skip
        return ",".join(repr(math.inf if value is None else value * scale) for value, scale in scales)

    def judge(self, passed: str, figure: float) -> tuple[Status, str]:
        """Status and message of a job that passed the limit `passed` of `watchdog.NAMES` by having used `figure`."""
        match passed:
            case "memory":
                used = f"{figure / _GB:.3g} GB of memory in all its processes"
                return "oom", f"used {used}; limits.memory_gb={self.memory_gb:g} allows no more"
            case "cpu":
                return "timeout", f"used {figure:.3g} s of CPU time; limits.cpu_s={self.cpu_s:g} allows no more"
            case "processes":
                name = f"limits.processes={self.processes:g}"
                assert self.processes is not None
                if figure > (most := most_threads(self.processes)):
                    remedy = "set OMP_NUM_THREADS to the cores of one job, or a larger limit"
                    return (
                        "failed",
                        f"had {figure:.0f} threads in all its processes; {name} allows {most:.0f}; {remedy}",
                    )
                return "failed", f"had {figure:.0f} processes; {name} allows no more"
            case "output":
                return "failed", f"printed {figure / _MB:.3g} MB; limits.output_mb={self.output_mb:g} allows no more"
            case "files":
                if math.isinf(figure):
                    return "failed", f"{_HIDES}; see limits.files={self.files:g}"
                return "failed", f"had {figure:.0f} files; limits.files={self.files:g} allows no more"
        assert passed == "disk", passed
        if math.isinf(figure):
            return "failed", f"{_HIDES}; see limits.disk_mb={self.disk_mb:g}"
        return "failed", f"filled its folder with {figure / _MB:.3g} MB; limits.disk_mb={self.disk_mb:g} allows no more"

"""What every case of chaos hands in, and the surroundings that all of them run in.

A case runs in namespaces of its own (processes and mounts), so that it can fill disks and kill without touching anybody, with
a random key in the environment of every controller (`KEYS`). Afterwards every byte that was written is searched for it.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmhpo.audit import verify
from llmhpo.store import load_study

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN")
TAG = "LLMHPO_CHAOS_TAG"
LEAKS = "files with the key"
_INSIDE = "LLMHPO_CHAOS_INSIDE"
_START_S = 100.0  # a controller that has not begun after so long never will
_SETTLE_S = 30.0  # supervisors of a controller that was killed get so long


@dataclass
class Row:
    """What came of a case: how many rounds, what must be 0, and what else was seen. `skipped` says why it did not run."""

    case: str
    rounds: int
    zero: dict[str, int] = field(default_factory=dict)
    seen: dict[str, object] = field(default_factory=dict)
    skipped: str = ""

    def add(self, zero: Mapping[str, int]) -> None:
        """Count what must be 0 on."""
        for name, count in zero.items():
            self.zero[name] = self.zero.get(name, 0) + count

    @property
    def is_clean(self) -> bool:
        """Whether all that must be 0 is 0."""
        return not any(self.zero.values())


Run = Callable[[int, Path, int], Row]


@dataclass(frozen=True, slots=True)
class Case:
    """A case: `run(rounds, folder, seed)`, its usual rounds, those of CI and those of the long run, and what it does."""

    run: Run
    small: int
    usual: int
    long: int
    about: str


def in_namespaces(argv: list[str]) -> int | None:
    """Run `python -m evals.chaos` again with processes, mounts and a key of its own; None where this already is that run."""
    if _INSIDE in os.environ:
        return None
    key = f"{secrets.token_urlsafe(32)}/+="  # looks like no service's keys; URLs write these characters in another way
    environment = {**os.environ, _INSIDE: "1", TAG: os.urandom(16).hex(), **dict.fromkeys(KEYS, key)}
    environment["LLMHPO_CAPABILITIES"] = ""  # these servers are nothing to keep in the user's cache for a month
    own = ["unshare", "-rmpf", "--mount-proc", "--kill-child"]
    works = shutil.which("unshare") and subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    command = [sys.executable, "-m", "evals.chaos", *argv]
    return subprocess.run([*(own if works else []), *command], env=environment, check=False).returncode


def key_forms() -> dict[str, bytes]:
    """The key of this run as it may have been written: plain, in base64 at each of three offsets, quoted for a URL."""
    key = os.environ[KEYS[0]]
    forms = {"plain": key, "quoted": urllib.parse.quote(key, safe=""), "form": urllib.parse.quote_plus(key)}
    for shift in range(3):  # what stands before it moves the letters; the ends depend on the neighbours
        text = base64.b64encode(b"\0" * shift + key.encode()).decode()
        forms[f"base64+{shift}"] = inner = text[4 if shift else 0 : -4]
        forms[f"url-safe base64+{shift}"] = inner.replace("+", "-").replace("/", "_")
    return {name: text.encode() for name, text in forms.items()}


def leaks(folder: Path) -> list[str]:
    """Files below `folder` that hold the key in any form, and those whose name does."""
    forms, found = key_forms(), []
    for path in folder.rglob("*"):
        try:
            data = os.fsencode(path.name) + (path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
        except OSError:
            continue
        found += [f"{path}: {name}" for name, form in forms.items() if form in data]
    return found


def processes() -> Iterator[tuple[int, list[bytes], bytes]]:
    """Living processes of this very run: number, environment and command line."""
    wanted = f"{TAG}={os.environ[TAG]}".encode()
    for name in filter(str.isdigit, (p.name for p in Path("/proc").iterdir())):
        try:
            state = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0]
            environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if state not in b"ZX" and wanted in environment and int(name) != os.getpid():
            yield int(name), environment, command


def jobs() -> list[int]:
    """Living processes of jobs, supervisors included."""
    return [pid for pid, env, _ in processes() if any(e.startswith((b"LLMHPO_JOB=", b"LLMHPO_ATTEMPT=")) for e in env)]


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked child; its number. It ends with status 0, or with 1 and what went wrong on standard error."""
    if pid := os.fork():
        return pid
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - told by the exit code
        sys.stderr.write(f"controller: {type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def count(file: Path, words: str) -> int:
    """How often `words` stand in a file; 0 where there is none."""
    return file.read_bytes().count(words.encode()) if file.exists() else 0


def wait_for(file: Path, words: str, *, more_than: int = 0) -> None:
    """Wait until `words` stand in a file more than so many times. Raises: TimeoutError."""
    deadline = time.monotonic() + _START_S
    while count(file, words) <= more_than:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {words} in {str(file)!r} after {_START_S:g} s")
        time.sleep(0.01)


def left_running() -> int:
    """How many processes of jobs are left when supervisors have had time to end them."""
    deadline = time.monotonic() + _SETTLE_S
    while (left := jobs()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(left)


def key_in_processes() -> int:
    """How many processes show the key where others can see it: in the command line, or in the environment of a job."""
    forms = tuple(key_forms().values())
    shown = 0
    for _, environment, command in processes():
        text = command
        if any(e.startswith((b"LLMHPO_JOB=", b"LLMHPO_ATTEMPT=")) for e in environment):
            text += b"\0".join(environment)
        shown += any(form in text for form in forms)
    return shown


def study_problems(study: Path, name: str, n_trials: int) -> dict[str, int]:
    """What must be 0 in every study that has run to its end in the folder `study`."""
    context = load_study(f"sqlite:///{study / 'study.db'}", name)
    numbers = [t.number for t in context.trials]
    audit = verify(study / "events.jsonl", context, name)
    for line in audit.problems:
        sys.stderr.write(f"{line}\n")
    return {
        "duplicate numbers": len(numbers) - len(set(numbers)) + abs(len(numbers) - n_trials),
        "running for ever": sum(t.outcome is None for t in context.trials),
        "processes left": left_running(),
        "log problems": len(audit.problems),
    }

"""Kill the controller of a study again and again, at random moments and with jobs running, and count what was lost.

    python -m evals.chaos --kills 50

Each round forks a controller, lets it run for a random time, and kills it with SIGKILL; what it had told by then, trial by trial, is
what it had acknowledged. A last round runs to the end. Everything happens in a process namespace of its own where `unshare` can
make one, and no process is killed but the forked controllers, by number. Exit code 1 where one of the counts that must be 0 is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import llmhpo
from llmhpo.audit import replay, verify
from llmhpo.events import Event, Finished
from llmhpo.store import load_study

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}, "n": {"type": "int", "low": 1, "high": 64}}
TAG = "LLMHPO_CHAOS_TAG"
NAME = "chaos"
_INSIDE = "LLMHPO_CHAOS_INSIDE"
_SETTLE_S = 10.0  # supervisors of the last controller that was killed get so long

# A job leaves a daemon behind that has left its session, works for a moment, and hands its result in.
JOB = """(setsid sleep 120 >/dev/null 2>&1 &); sleep 0.{n}; printf '{{"value": {x}}}' > "$LLMHPO_RESULT.part"
mv "$LLMHPO_RESULT.part" "$LLMHPO_RESULT" """


@dataclass
class Counts:
    """What came of a run; the first six must be 0."""

    lost: int = 0  # results that were acknowledged and are not in the storage, or others
    duplicates: int = 0
    running: int = 0  # trials without an outcome in the end
    processes: int = 0  # of jobs, left in the end
    log_problems: int = 0
    other_decisions: int = 0
    kills: int = 0
    trials: int = 0
    acknowledged: int = 0
    given_up: int = 0  # trials that were cut off more than `retries` times
    seconds: float = 0.0
    slowest_resume_s: float = 0.0

    @property
    def is_clean(self) -> bool:
        return not (
            self.lost or self.duplicates or self.running or self.processes or self.log_problems or self.other_decisions
        )


def run(kills: int, folder: Path, seed: int) -> Counts:
    """The rounds, and the count."""
    rng, counts, told = random.Random(seed), Counts(kills=kills), dict[int, float | None]()
    start = time.monotonic()
    n_trials = 2 * kills + 10
    for _ in range(kills):
        _one_round(folder, n_trials, told, rng.uniform(0.05, 3.0), counts)
    _one_round(folder, n_trials, told, None, counts)
    counts.seconds = round(time.monotonic() - start, 1)
    _count(folder, n_trials, told, counts)
    return counts


def _one_round(
    folder: Path, n_trials: int, told: dict[int, float | None], kill_after_s: float | None, counts: Counts
) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _control(folder, n_trials, write)
    os.close(write)
    begun = time.monotonic()
    end = float("inf") if kill_after_s is None else begun + kill_after_s
    data, is_over = b"", False
    while not is_over and (left := end - time.monotonic()) > 0:
        if select.select([read], [], [], min(left, 1.0))[0]:
            if not (part := os.read(read, 1 << 16)):
                is_over = True
            if not data and part:
                counts.slowest_resume_s = max(counts.slowest_resume_s, round(time.monotonic() - begun, 2))
            data += part
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    while part := os.read(read, 1 << 16):  # told before it died
        data += part
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if kill_after_s is None and status != 0:
        raise SystemExit(f"the last controller ended with status {status}")
    for line in data.splitlines():
        number, value = json.loads(line)
        if number is not None:
            told[number] = value


def _control(folder: Path, n_trials: int, pipe: int) -> None:
    """The controller, in the forked child."""

    def tell(event: Event) -> None:
        number, value = (event.trial.number, event.trial.value) if isinstance(event, Finished) else (None, None)
        os.write(pipe, json.dumps([number, value]).encode() + b"\n")  # short: whole or not at all

    try:
        llmhpo.optimize(
            ["sh", "-c", JOB], SPACE, llm=None, n_trials=n_trials, n_workers=2, seed=1, study_name=NAME, cwd=folder,
            on_event=tell,
        )  # fmt: skip
    except BaseException as error:  # noqa: BLE001 - told by the exit code
        sys.stderr.write(f"controller: {type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def _count(folder: Path, n_trials: int, told: dict[int, float | None], counts: Counts) -> None:
    study = folder / "runs" / NAME
    context = load_study(f"sqlite:///{study / 'study.db'}", NAME)
    kept = {t.number: t.value for t in context.trials if t.outcome is not None}
    numbers = [t.number for t in context.trials]
    counts.trials, counts.acknowledged = len(numbers), len(told)
    counts.lost = sum(number not in kept or kept[number] != value for number, value in told.items())
    counts.duplicates = len(numbers) - len(set(numbers)) + abs(len(numbers) - n_trials)
    counts.running = sum(t.outcome is None for t in context.trials)
    counts.given_up = sum(t.outcome is not None and "given up" in t.outcome.message for t in context.trials)
    log = study / "events.jsonl"
    audit = verify(log, context, NAME)
    again = replay(log)
    for line in (*audit.problems, *again.problems):
        sys.stderr.write(f"{line}\n")
    counts.log_problems, counts.other_decisions = len(audit.problems), len(again.problems)
    deadline = time.monotonic() + _SETTLE_S
    while (left := _tagged()) and time.monotonic() < deadline:
        time.sleep(0.1)
    counts.processes = len(left)


def _tagged() -> list[int]:
    """Living processes of jobs of this very run."""
    wanted, found = f"{TAG}={os.environ[TAG]}".encode(), []
    for name in filter(str.isdigit, (p.name for p in Path("/proc").iterdir())):
        try:
            state = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0]
            environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if state not in b"ZX" and wanted in environment and int(name) != os.getpid():
            found.append(int(name))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if _INSIDE not in os.environ:
        environment = {**os.environ, _INSIDE: "1", TAG: os.urandom(16).hex()}
        command = [sys.executable, "-m", "evals.chaos", *sys.argv[1:]]
        own = ["unshare", "-rpf", "--mount-proc", "--kill-child"]
        works = (
            shutil.which("unshare") and subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
        )
        return subprocess.run([*(own if works else []), *command], env=environment, check=False).returncode
    with tempfile.TemporaryDirectory(prefix="llmhpo-chaos-") as folder:
        counts = run(args.kills, Path(folder), args.seed)
    sys.stdout.write(json.dumps(asdict(counts)) + "\n")
    return 0 if counts.is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""What a sandbox adds to the start of a trial: `python -m evals.bench_sandbox [ROUNDS]`.

Runs one and the same tiny job plainly and in every sandbox that holds here, in turn, through `LocalExecutor` from submit to
outcome, and prints medians. The bar is 60 ms a trial.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from llmhpo.errors import SandboxError
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor
from llmhpo.sandbox.base import Level, label
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.trial import Task

BAR_MS = 60.0
LEVELS: tuple[Level, ...] = ("none", "bwrap", "landlock")
_CODE = "import os\nopen(os.environ['LLMHPO_RESULT'], 'w').write('1')\n"


def measure(executors: dict[str, LocalExecutor], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds from submit to outcome, by level; the levels take turns, so that a busy machine is busy for all."""
    spent: dict[str, list[float]] = {name: [] for name in executors}
    for number in range(rounds):
        for name, executor in executors.items():
            job = Job(number, {}, Task(timeout_s=60), folder / name.replace(" ", "-") / str(number))
            start = time.perf_counter()
            outcome = executor.submit(job).result()
            spent[name].append(1e3 * (time.perf_counter() - start))
            assert outcome.status == "ok", outcome
    return spent


def main(rounds: int) -> int:
    """Print the table; the exit code says whether the bar holds."""
    with tempfile.TemporaryDirectory(prefix="llmhpo-") as name:
        folder = Path(name)
        (folder / "job.py").write_text(_CODE)
        command = CommandTemplate(["{python}", "-I", "-S", "job.py"], None, folder)
        executors = {}
        for level in LEVELS:
            try:
                sandbox = choose_sandbox(level)
            except SandboxError as error:
                print(f"{level}: {error}")
                continue
            executors[label(sandbox)] = LocalExecutor(command, sandbox=sandbox)
        spent = measure(executors, folder, rounds)
    plain = spent["none"]
    print(f"{'level':28} {'median ms':>10} {'added ms (median of pairs)':>28}")
    worst = 0.0
    for level_name, times in spent.items():
        added = statistics.median(t - p for t, p in zip(times, plain, strict=True))
        worst = max(worst, added)
        print(f"{level_name:28} {statistics.median(times):10.1f} {added:28.1f}")
    print(f"bar: < {BAR_MS:g} ms added a trial: {'holds' if worst < BAR_MS else 'does not hold'} ({rounds} rounds)")
    return int(worst >= BAR_MS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))

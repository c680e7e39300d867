"""The main process of a job, or the process that watches over it, is killed again and again while the study runs.

An attempt that was cut off so is made again under the same number, two times at most, and goes on from what the job had kept in
its checkpoint folder; then the trial has failed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import llmhpo
from evals.chaos.base import Row, in_child, key_in_processes, processes, study_problems
from llmhpo.attempts import RETRIES
from llmhpo.store.journal import read_journal

SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}}
NAME = "chaos"
PAUSE_S = (0.02, 0.4)  # between kills

# Eight steps, each kept; `found` gets a line an attempt: how many there were when it began. No trial ends before as many processes
# were killed as its number says: the study is not over before the last kill, however long that takes.
JOB = """
kept="$LLMHPO_CHECKPOINT_DIR/steps"; i=$(cat "$kept" 2>/dev/null || echo 0); echo $i >> "$LLMHPO_CHECKPOINT_DIR/found"
while [ $i -lt 8 ]; do sleep 0.05; i=$((i+1)); echo $i > "$kept.part"; mv "$kept.part" "$kept"; done
while [ "$(wc -l < kills)" -le "$LLMHPO_TRIAL" ]; do sleep 0.05; done
printf '{{"value": {x}}}' > "$LLMHPO_RESULT.part"; mv "$LLMHPO_RESULT.part" "$LLMHPO_RESULT"
"""


def run(kills: int, folder: Path, seed: int) -> Row:
    """So many kills, half of them of supervisors, and the count."""
    rng, start = random.Random(seed), time.monotonic()
    (folder / "kills").touch()
    pid = in_child(
        lambda: llmhpo.optimize(
            ["sh", "-c", JOB], SPACE, llm=None, n_trials=kills, n_workers=2, seed=1, study_name=NAME, cwd=folder,
            progress=False,
        )
    )  # fmt: skip
    killed, shown = Counter[str](), 0
    while killed.total() < kills and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(rng.uniform(*PAUSE_S))
        who = rng.choice(("job", "supervisor"))
        if victims := _victims()[who]:
            shown += key_in_processes()
            killed[who] += _kill(rng.choice(victims))
            (folder / "kills").write_text("one\n" * killed.total())
    status = os.waitpid(pid, 0)[1] if killed.total() >= kills else 0
    row = Row("worker", killed.total())
    _count(folder / "runs" / NAME, kills, row)
    row.zero |= {"controller failed": int(status != 0), "key shown": shown, "kills not made": kills - killed.total()}
    row.seen |= {"kills": dict(killed), "seconds": round(time.monotonic() - start)}
    return row


def _victims() -> dict[str, list[int]]:
    """The processes of this study that watch over jobs, and the main processes of jobs."""
    running = {pid: command for pid, _, command in processes()}
    watching = [pid for pid, command in running.items() if b"llmhpo.executors.supervisor" in command]
    main = [pid for pid, command in running.items() if command.startswith(b"/") and _parent(pid) in watching]
    return {"supervisor": watching, "job": main}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _count(study: Path, n_trials: int, row: Row) -> None:
    launches, ends = Counter[int](), dict[int, str]()
    for entry in read_journal(study / "events.jsonl").entries:
        if entry.kind == "launch":
            launches[entry.data["number"]] += 1
        elif entry.kind == "result":
            ends[entry.data["number"]] = entry.data["outcome"]["status"]
    found = [list(map(int, path.read_text().split())) for path in study.glob("checkpoints/*/found")]
    row.zero |= study_problems(study, NAME, n_trials) | {
        "retried too often": sum(count > RETRIES + 1 for count in launches.values()),
        "failed too early": sum(end != "ok" and launches[n] <= RETRIES for n, end in ends.items()),
        "begun anew": sum(steps != sorted(steps) for steps in found),
    }
    row.seen |= {
        "trials": n_trials,
        "ok": sum(end == "ok" for end in ends.values()),
        "of these after another attempt": sum(end == "ok" and launches[n] > 1 for n, end in ends.items()),
        "failed after 3 attempts": sum(end == "failed" for end in ends.values()),
    }

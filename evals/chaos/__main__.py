"""What a study must survive, done to real studies with real processes, and counted.

    python -m evals.chaos all                     # the table: a case a line, what must be 0, and what was seen
    python -m evals.chaos all --small             # as in the tests: some two minutes
    python -m evals.chaos controller --rounds 1000

Everything happens in process and mount namespaces of its own where `unshare` can make them, and with a random key in the
environment that must be in no byte written. Exit code 1 where something that must be 0 is not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from evals.chaos import canary, clock, controller, disk, locked, log, pair, service, worker
from evals.chaos.base import LEAKS, Case, Row, in_namespaces, leaks

CASES = {
    "controller": Case(controller.run, 10, 50, 1000, "SIGKILL to the controller at a random moment"),
    "worker": Case(worker.run, 12, 200, 200, "SIGKILL to a job, or to the process that watches over it"),
    "service": Case(
        service.run, 28, 56, 560, "a model service that is down, hangs or talks nonsense for the whole run"
    ),
    "disk": Case(disk.run, 4, 40, 40, "a disk that is full whenever the study is about to write"),
    "log-cut": Case(log.run_cuts, 100, 1000, 1000, "the event log, cut off at a random byte"),
    "log-flip": Case(log.run_flips, 100, 1000, 1000, "the event log, with a random bit flipped"),
    "pair": Case(pair.run, 4, 100, 100, "two controllers that start at the same moment"),
    "stale": Case(pair.run_stale, 1, 10, 10, "a controller that stands still until another one has its study"),
    "clock": Case(clock.run, 1, 5, 5, "clocks that jump by an hour and by ten years"),
    "locked": Case(locked.run, 7, 60, 60, "another process that locks the SQLite file; rounds are seconds"),
    "canary": Case(
        canary.run, 1, 5, 5, "a service that repeats the key in all it says, and jobs that print all they see"
    ),
}


ELSEWHERE = """\
tried by tests of their own, not here:
  a Ray node that is killed in the middle                       make clusters (tests/executors/test_ray.py)
  the store, its lease and its fence on a PostgreSQL server     tests/test_postgresql.py
  SIGTERM with jobs that ignore it, Ctrl-C once and twice       tests/test_stopping.py
  1 GB of output, lines of 10 MB, invalid UTF-8, escapes        tests/executors/test_output.py
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["all", *CASES])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_const", dest="size", const="small", help="the sizes of the tests")
    size.add_argument("--long", action="store_const", dest="size", const="long", help="the sizes of the long run")
    size.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a line of JSON a case instead of the table")
    args = parser.parse_args()
    if (status := in_namespaces(sys.argv[1:])) is not None:
        return status
    rows = []
    for name, case in CASES.items():
        if args.case in ("all", name):
            rows.append(_run(case, args.rounds or getattr(case, args.size or "usual"), args.seed))
            sys.stdout.write(json.dumps(asdict(rows[-1])) + "\n" if args.json else _line(rows[-1]))
            sys.stdout.flush()
    if args.case == "all" and not args.json:
        sys.stdout.write(ELSEWHERE)
    return 0 if all(row.is_clean for row in rows) else 1


def _run(case: Case, rounds: int, seed: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="llmhpo-chaos-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        logging.basicConfig(filename=folder / "warnings.log", force=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")  # so that what lies there is searched, too
        try:
            row = case.run(rounds, folder, seed)
            found = leaks(folder)
            sys.stderr.writelines(f"the key is in {place}\n" for place in found)
            row.add({LEAKS: len(found)})
        finally:
            del os.environ["TMPDIR"]
            tempfile.tempdir = None
    return row


def _line(row: Row) -> str:
    if row.skipped:
        return f"{row.case}: not run here: {row.skipped}\n"
    zero = ", ".join(f"{name} {count}" for name, count in row.zero.items())
    seen = ", ".join(f"{name} {value}" for name, value in row.seen.items())
    verdict = "ok" if row.is_clean else "BROKEN"
    return f"{row.case} x {row.rounds}: {verdict}\n  must be 0: {zero}\n  seen: {seen}\n"


if __name__ == "__main__":
    raise SystemExit(main())

"""The command line: python -m evals run | score | report | benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from evals.record import Start
from evals.tasks import SUITES, data_folder

_EPILOG = """examples:
  python -m evals run --suite mini --arms none,tpe,random --seeds 2 --budget 25 --out /tmp/mini
  python -m evals score --out /tmp/mini
  python -m evals report --out /tmp/mini
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evals", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing")
    run.add_argument("--data", type=Path, help="data folder; else LLMHPO_BENCH_DATA, ../shared/data, the mini set")
    run.add_argument("--suite", choices=SUITES, default="mini")
    run.add_argument("--half", choices=["a", "b"], help="even (a: to tune on) or odd (b: to report) tasks of a family")
    run.add_argument("--tasks", default="*", help="glob over task ids")
    run.add_argument("--arms", type=_words, default=("none", "tpe", "random"), help="names and model specs, by commas")
    run.add_argument("--seeds", type=_positive, default=8)
    run.add_argument("--budget", type=_positive, default=50)
    run.add_argument("--start", type=_starts, default=("unseeded", "seeded"), help="unseeded,seeded")
    run.add_argument("--batch", type=_numbers, default=(1,), help="batch sizes, by commas")
    run.add_argument("--jobs", type=_positive, default=1, help="processes at a time")
    run.add_argument("--anonymous", action="store_true", help="hide the names of parameters, choices, metric and data")
    run.add_argument("--quiet", action="store_true")
    for name, text in (("score", "print the tables"), ("report", "write figures and one HTML page")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--markdown", action="store_true", help="tables in Markdown")
        command.add_argument("--per-task", action="store_true", help="also one line a task")
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, required=True, help="folder of runs.jsonl")
    whole = commands.add_parser("benchmark", help="run what README's section lacks, and write the section")
    whole.add_argument("--data", type=Path, help="data folder, as for run")
    whole.add_argument("--out", type=Path, default=Path("benchmark-runs"), help="folder for new runs")
    whole.add_argument("--fresh", action="store_true", help="run everything again")
    whole.add_argument("--jobs", type=_positive, default=1, help="processes at a time")
    whole.add_argument("--quiet", action="store_true")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _starts(text: str) -> tuple[Start, ...]:
    if unknown := set(_words(text)) - {"unseeded", "seeded"}:
        raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is no start; use unseeded, seeded or both")
    return cast("tuple[Start, ...]", _words(text))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(word) for word in _words(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 1 where runs failed or there is nothing to score."""
    args = _parser().parse_args(argv)
    if args.command == "run":
        from evals.run import Plan, run

        plan = Plan(
            data=data_folder(args.data),
            suite=args.suite,
            arms=args.arms,
            seeds=args.seeds,
            budget=args.budget,
            starts=args.start,
            batches=args.batch,
            anonymous=args.anonymous,
            half=args.half,
            pattern=args.tasks,
        )
        problems = run(plan, args.out, jobs=args.jobs, show=not args.quiet)
        print(
            f"{args.out / 'runs.jsonl'}: complete" if not problems else f"{len(problems)} runs failed", file=sys.stderr
        )
        return int(bool(problems))
    if args.command == "benchmark":
        from evals.benchmark import benchmark

        problems = benchmark(data_folder(args.data), args.out, fresh=args.fresh, jobs=args.jobs, show=not args.quiet)
        return int(bool(problems))
    from evals.record import read_runs
    from evals.score import compare, tables

    comparisons = compare(read_runs(args.out / "runs.jsonl"))
    if not comparisons:
        print(f"{args.out / 'runs.jsonl'}: no runs; start with: python -m evals run --out {args.out}", file=sys.stderr)
        return 1
    if args.command == "report":
        from evals.report import write

        print(write(comparisons, args.out))
    print(tables(comparisons, markdown=args.markdown, per_task=args.per_task))
    return 0


if __name__ == "__main__":
    sys.exit(main())

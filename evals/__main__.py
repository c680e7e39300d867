"""The command line: python -m evals run | score | report | benchmark | prompts | engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evals.record import Start
from evals.tasks import SUITES, data_folder
from llmhpo.errors import ConfigError

if TYPE_CHECKING:
    from evals.run import Plan

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
    run.add_argument("--record", type=Path, help="cassette of all exchanges with models; the arm replay:FILE plays it")
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
    whole.add_argument("--again", type=_words, default=(), help="arms to run again with the present code, by commas")
    whole.add_argument("--jobs", type=_positive, default=1, help="processes at a time")
    whole.add_argument("--quiet", action="store_true")
    _add_prompts(commands.add_parser("prompts", help="compare versions of a prompt template"))
    _add_engine(commands.add_parser("engine", help="measure the local engine: speed, scoring, replies on ten spaces"))
    return parser


def _add_engine(engine: argparse.ArgumentParser) -> None:
    engine.add_argument("--model", help="folder, .gguf file or hub id; default: the embedded model")
    engine.add_argument("--device")
    engine.add_argument("--dtype")
    engine.add_argument("--threads", type=_positive)
    engine.add_argument("--batches", type=_positive, default=20, help="replies on each space")
    engine.add_argument("--small", action="store_true", help="a few tokens of everything")


def _add_prompts(lab: argparse.ArgumentParser) -> None:
    lab.add_argument(
        "--versions", type=_words, required=True, help="the old one first, by commas: propose.v1,propose.v2"
    )
    lab.add_argument("--llm", required=True, help="spec of a model: smollm2, openai:MODEL, scripted:FILE, ...")
    lab.add_argument("--data", type=Path, help="data folder, as for run")
    lab.add_argument("--suite", choices=SUITES, default="mini")
    lab.add_argument("--half", choices=["a", "b"], default="a", help="a: the tasks to tune on")
    lab.add_argument("--tasks", default="*", help="glob over task ids")
    lab.add_argument("--seeds", type=_positive, default=2)
    lab.add_argument("--trials", type=_positive, default=8, help="trials of the history that is shown")
    lab.add_argument("--batch", type=_positive, default=4, help="configurations that are asked for")
    lab.add_argument("--short", action=argparse.BooleanOptionalAction, help="ask without reasons, as small models are")
    lab.add_argument("--record", type=Path, help="cassette to write; --llm scripted:FILE plays it")
    lab.add_argument("--out", type=Path, required=True, help="folder of what has been asked already")
    lab.add_argument("--quiet", action="store_true")


def _prompts(args: argparse.Namespace) -> int:
    from evals.prompts import Lab, compare_prompts, prompt_table, verdict
    from evals.score import to_text
    from llmhpo import LLMHPOError

    names = ("versions", "llm", "suite", "half", "seeds", "trials", "batch", "short")
    lab = Lab(data=data_folder(args.data), pattern=args.tasks, **{name: getattr(args, name) for name in names})
    try:
        answers = compare_prompts(lab, args.out, record=args.record, show=not args.quiet)
    except LLMHPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(to_text(prompt_table(answers)))
    for version in lab.versions[1:]:
        print(verdict(answers, lab.versions[0], version))
    return 0


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
        return _run(args)
    if args.command == "benchmark":
        return _benchmark(args)
    if args.command == "prompts":
        return _prompts(args)
    if args.command == "engine":
        from evals import engine

        return engine.main(args)
    return _scores(args)


def _run(args: argparse.Namespace) -> int:
    from evals.arms import check_name
    from evals.run import Plan, run

    try:
        for name in args.arms:
            check_name(name)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
        record=args.record,
    )
    problems = run(plan, args.out, jobs=args.jobs, show=not args.quiet)
    if not problems and not (args.out / "runs.jsonl").exists():
        print(f"error: {_why_nothing_ran(plan)}", file=sys.stderr)
        return 2
    print(f"{args.out / 'runs.jsonl'}: complete" if not problems else f"{len(problems)} runs failed", file=sys.stderr)
    return int(bool(problems))


def _why_nothing_ran(plan: Plan) -> str:
    from evals.tasks import load

    tasks = load(plan.data, plan.suite, half=plan.half, pattern=plan.pattern)
    if not tasks:
        return f"--tasks {plan.pattern!r} matches none of the suite {plan.suite!r}"
    return (
        f"no task of the suite {plan.suite!r} is for --arms {','.join(plan.arms)} --start {','.join(plan.starts)}: recorded and "
        "recorded_tpe need recorded replies, and a seeded start a default or such a reply"
    )


def _benchmark(args: argparse.Namespace) -> int:
    from evals.benchmark import benchmark

    try:
        problems = benchmark(data_folder(args.data), args.out, again=args.again, jobs=args.jobs, show=not args.quiet)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(bool(problems))


def _scores(args: argparse.Namespace) -> int:
    """The commands `score` and `report`."""
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

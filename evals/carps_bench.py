"""llmhpo inside CARP-S, an outside harness: its tasks, its loop, its Optuna optimizer, its logs; then our lines of them.

.venv-carps/bin/python -m evals.carps_bench --out /tmp/carps   # `make carps` builds the environment
.venv-carps/bin/python -m evals score --out /tmp/carps

CARP-S keeps nothing but configurations and costs, so llmhpo's study is stored beside its logs: it says who proposed what.
Source: Benjamins et al. 2025, CARP-S; BBOB as Hansen et al. 2009, from ioh.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna

from evals.record import Key, Run, append_run, mend, read_runs
from evals.run import RUNS, code_revision, versions
from evals.tasks.base import Stats
from llmhpo import Usage

_LOGS, _STUDY = "carps", "study.db"
_FLOOR = 1e-4  # of the median, as for our synthetic tasks: nearer to the optimum nobody needs to be
_SAMPLES = 4096
_CLASSICAL = {"random": ["+optimizer/randomsearch=config"], "tpe_default": ["+optimizer/optuna=SO_TPE"]}
_FUNCTIONS, _DIMENSIONS = range(1, 25), (2, 4, 8, 16, 32)
_TAIL = 15  # lines of a log that an error quotes


class CarpsError(RuntimeError):
    """CARP-S is not there, or did not do what it was asked for; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run. `arms` as those of `python -m evals`: classical ones by name, llmhpo by the spec of its model.

    CARP-S has each function of BBOB in the instances 0, 1 and 2.
    """

    arms: tuple[str, ...] = ("none", "tpe_default", "random")
    functions: tuple[int, ...] = (1, 8, 15)
    dimensions: tuple[int, ...] = (2, 4)
    instance: int = 0
    seeds: int = 5
    trials: int = 50

    def __post_init__(self) -> None:
        """Raises: CarpsError for what CARP-S has not, and for numbers below 1."""
        unknown = [f"function {f}" for f in self.functions if f not in _FUNCTIONS]
        unknown += [f"dimension {d}" for d in self.dimensions if d not in _DIMENSIONS]
        if unknown:
            raise CarpsError(
                f"{unknown[0]} is not in CARP-S: functions are {_FUNCTIONS[0]} to {_FUNCTIONS[-1]}, "
                f"dimensions {', '.join(map(str, _DIMENSIONS))}"
            )
        if min(self.seeds, self.trials) < 1:
            raise CarpsError(f"seeds = {self.seeds}, trials = {self.trials}: give at least 1 of each")

    @property
    def tasks(self) -> list[tuple[int, int]]:
        """(dimension, function) of every task."""
        return [(d, f) for f in self.functions for d in self.dimensions]

    def keys(self, arm: str) -> list[Key]:
        """The runs of an arm."""
        return [
            Key(f"bbob/{d}/{f}/{self.instance}", arm, seed, "unseeded", 1, self.trials, anonymous=False)
            for d, f in self.tasks
            for seed in range(self.seeds)
        ]


def command(plan: Plan, arm: str, out: Path) -> list[str]:
    """What runs all tasks and seeds of an arm, in one process, one after another."""
    runs = str(out.resolve() / _LOGS)
    configs = ",".join(f"cfg_{d}_{f}_{plan.instance}" for d, f in plan.tasks)
    seeds = ",".join(str(seed) for seed in range(plan.seeds))
    overrides = [f"+task/BBOB={configs}", f"seed={seeds}", f"baserundir={_quoted(runs)}"]
    # Two plus signs: Hydra reads the settings that all runs share before there is a task.
    overrides.append(f"++task.optimization_resources.n_trials={plan.trials}")
    return [sys.executable, "-m", "carps.run", "--multirun", *_optimizer(arm), *overrides]


def _optimizer(arm: str) -> list[str]:
    if arm in _CLASSICAL:
        return [*_CLASSICAL[arm], f"optimizer_id={arm}"]
    study = "optimizer.optuna_cfg.study"
    return [
        "+optimizer/optuna=SO_TPE",
        f"optimizer_id={_folder(arm)}",
        f"{study}.sampler._target_=llmhpo.LLMSampler",
        f"+{study}.sampler.llm={_quoted(arm)}",
        f"+{study}.sampler.n_trials=${{task.optimization_resources.n_trials}}",
        f"+{study}.storage='sqlite:///${{outdir}}/{_STUDY}'",
    ]


def _quoted(text: str) -> str:
    """A string of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _folder(arm: str) -> str:
    return re.sub(r"[^\w.-]", "_", arm)


def run(plan: Plan, out: Path) -> list[Run]:
    """Run the arms that are not complete in `out`/runs.jsonl, and add their lines to it. Returns the new lines.

    Raises: CarpsError where CARP-S is not installed, and where it fails.
    """
    try:
        version("carps"), version("ioh")
    except PackageNotFoundError:
        raise CarpsError(
            f"{sys.executable} has no CARP-S: build its environment with `make carps`, then use .venv-carps/bin/python"
        ) from None
    out.mkdir(parents=True, exist_ok=True)
    mend(out / RUNS)
    done, new = {r.key for r in read_runs(out / RUNS)}, []
    for arm in plan.arms:
        if done.issuperset(plan.keys(arm)):
            continue
        print(f"{arm}: {len(plan.tasks)} tasks, {plan.seeds} seeds, {plan.trials} trials", flush=True)
        _call(command(plan, arm, out), out / f"{_folder(arm)}.log", arm)
        for key in plan.keys(arm):
            new.append(to_run(out, key))
            append_run(out / RUNS, new[-1])
    return new


def _call(words: Sequence[str], log: Path, arm: str) -> None:
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
        raise CarpsError(
            f"arm {arm!r}: CARP-S ended with status {status}; its output is in {log} and ends with\n{tail}"
        )


# --- CARP-S's logs as our lines ---------------------------------------------------------------------------------------


class _Logged(NamedTuple):
    """trial_logs.jsonl: one entry a trial; times in seconds since 1970."""

    configs: list[tuple[float, ...]]
    costs: list[float]
    starts: list[float]
    ends: list[float]


class _Asked(NamedTuple):
    """What the stored study knows: who proposed each trial, and what the model cost."""

    sources: list[str]
    usage: Usage


def to_run(out: Path, key: Key) -> Run:
    """One run of CARP-S as a line. A value is the distance from the optimum, so that its logarithm can be taken.

    `seconds` is the time between two evaluations: asking, telling and CARP-S's own logging.

    Raises: CarpsError where a log or a study lacks trials.
    """
    folder = out / _LOGS / _folder(key.arm) / "BBOB" / key.task / str(key.seed)
    logged = _read_log(folder / "trial_logs.jsonl")
    asked = _Asked([key.arm] * key.budget, Usage()) if key.arm in _CLASSICAL else _read_study(folder / _STUDY)
    if not len(logged.costs) == len(asked.sources) == key.budget:
        raise CarpsError(
            f"{folder}: expected {key.budget} trials, found {len(logged.costs)} in the log and {len(asked.sources)} in "
            "the study; remove the folder and run again"
        )
    best, stats = _scale(*(int(part) for part in key.task.split("/")[1:]))
    values = [max(0.0, cost - best) for cost in logged.costs]
    seen = [config in logged.configs[:i] for i, config in enumerate(logged.configs)]
    gaps = [begin - end for begin, end in zip(logged.starts[1:], logged.ends, strict=False)]
    at = int(np.argmin(values))
    return Run(
        key=key,
        family="bbob",
        direction="minimize",
        stats=stats,
        revision=code_revision(),
        machine=platform.node(),
        values=list(values),
        incumbents=np.minimum.accumulate(values).tolist(),
        sources=asked.sources,
        repeat=seen,
        seen=seen,
        failed=[False] * key.budget,
        seconds=[0.0, *(round(gap, 5) for gap in gaps)],
        best_params={f"x{i}": x for i, x in enumerate(logged.configs[at])},
        requests=asked.usage.calls,
        input_tokens=asked.usage.input_tokens,
        output_tokens=asked.usage.output_tokens,
        usd=asked.usage.usd,
        versions={**versions(), "carps": version("carps"), "ioh": version("ioh")},
    )


def _read_log(path: Path) -> _Logged:
    if not path.exists():
        raise CarpsError(f"{path} is not there: CARP-S wrote no log; remove the folder and run again")
    trials = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    values = [trial["trial_value"] for trial in trials]
    return _Logged(
        [tuple(trial["trial_info"]["config"]) for trial in trials],
        [float(value["cost"]) for value in values],
        [float(value["starttime"]) for value in values],
        [float(value["endtime"]) for value in values],
    )


def _read_study(path: Path) -> _Asked:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
    spent = [Usage(**value["usage"]) for name, value in study.user_attrs.items() if ":batch:" in name]
    return _Asked([trial.user_attrs["source"] for trial in study.get_trials(deepcopy=False)], sum(spent, Usage()))


@cache
def _scale(dimension: int, function: int, instance: int) -> tuple[float, Stats]:
    """The optimum, and what the distance from it is measured by: the median of the space, by uniform samples."""
    import ioh

    problem = ioh.get_problem(fid=function, instance=instance, dimension=dimension)
    best = float(problem.optimum.y)
    samples = np.random.default_rng(0).uniform(problem.bounds.lb, problem.bounds.ub, (_SAMPLES, dimension))
    median = float(np.median(problem(samples))) - best
    return best, Stats(best=_FLOOR * median, median=median, log=True)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing; returns the exit status."""
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m evals.carps_bench", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of runs.jsonl and of CARP-S's own logs")
    parser.add_argument("--arms", default=",".join(plan.arms), help="random, tpe_default, or specs of models")
    parser.add_argument("--functions", type=_numbers, default="1,8,15", help="of BBOB, 1 to 24")
    parser.add_argument("--dimensions", type=_numbers, default="2,4", help="2, 4, 8, 16, 32")
    parser.add_argument("--instance", type=int, default=plan.instance, choices=[0, 1, 2], help="of each function")
    parser.add_argument("--seeds", type=int, default=plan.seeds, help="how many")
    parser.add_argument("--trials", type=int, default=plan.trials, help="a run")
    args = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arms = tuple(args.arms.split(","))
    try:
        run(Plan(arms, args.functions, args.dimensions, args.instance, args.seeds, args.trials), args.out)
    except CarpsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"python -m evals score --out {args.out}   # prints the comparison")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run arms on tasks over paired seeds, in parallel, and keep one JSON line a run. Runs that are there are not run again."""

from __future__ import annotations

import functools
import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evals.arms import Arm, exists, make_arm
from evals.record import Key, Run, Start, append_run, mend, read_runs
from evals.tasks import Half, load
from evals.tasks.anonymous import anonymised
from evals.tasks.base import Params, Result, Task

RUNS = "runs.jsonl"
_PACKAGES = ("llmhpo", "optuna", "numpy", "scipy", "torch", "scikit-learn", "cmaes", "smac", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    data: Path
    suite: str
    arms: tuple[str, ...]
    seeds: int
    budget: int
    starts: tuple[Start, ...] = ("unseeded", "seeded")
    batches: tuple[int, ...] = (1,)
    anonymous: bool = False
    half: Half | None = None
    pattern: str = "*"
    record: Path | None = None  # a cassette that every exchange with a model is added to

    def keys(self, tasks: Sequence[Task]) -> Iterator[Key]:
        """All runs, seed after seed, so that an interrupted comparison is a complete one of fewer seeds.

        A seeded run needs a default or a recorded reply to start from, the arm `recorded` needs recorded replies.
        """
        for seed in range(self.seeds):
            for task in tasks:
                for start in self.starts:
                    for batch in self.batches:
                        for arm in self.arms:
                            if exists(arm, task) and (start == "unseeded" or task.first is not None):
                                yield Key(task.id, arm, seed, start, batch, self.budget, self.anonymous)


# --- one run ----------------------------------------------------------------------------------------------------------


def first_configuration(task: Task, start: Start, seed: int) -> Params:
    """Where every arm begins: the task's own first configuration, or a random one, the same for all arms of a seed."""
    if start == "seeded":
        assert task.first is not None, task.id
        return task.first
    return task.space.sample(np.random.default_rng([seed, 1]), 1)[0]


class _Diary:
    """What is kept of a run while it goes on."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.values: list[float | None] = []
        self.incumbents: list[float | None] = []
        self.sources: list[str] = []
        self.repeat: list[bool] = []
        self.seen: list[bool] = []
        self.best: Result | None = None
        self._evaluated: set[str] = set()
        self._asked: set[str] = set()

    def note(self, batch: Sequence[tuple[Params, str, Result]]) -> None:
        """Add trials that were asked for together: what was asked, who proposed it, what came of it."""
        known = self._evaluated | self._asked
        for params, source, result in batch:
            asked, evaluated = self._task.space.key(params), self._task.space.key(result.params)
            self.repeat.append(asked in known)
            self.seen.append(evaluated in self._evaluated)
            known.add(asked)
            self._asked.add(asked)
            self._evaluated.add(evaluated)
            if result.value is not None and (self.best is None or self._better(result.value, self.best.value)):
                self.best = result
            self.values.append(result.value)
            self.incumbents.append(None if self.best is None else self.best.value)
            self.sources.append(source)

    def _better(self, value: float, than: float | None) -> bool:
        return than is None or (value < than if self._task.direction == "minimize" else value > than)


def run_one(task: Task, key: Key, revision: str = "", record: Path | None = None) -> Run:
    """One arm on one task, from the shared first configuration on. The same key gives the same line, but for seconds."""
    diary = _Diary(task)
    first = first_configuration(task, key.start, key.seed)
    result = task.evaluate(first)
    arm, seconds = make_arm(key.arm, task, key.seed, key.budget, record), [0.0]
    arm.tell(None, result)
    diary.note([(first, "start", result)])
    while len(diary.values) < key.budget:
        seconds += _step(task, arm, diary, min(key.batch, key.budget - len(diary.values)))
    usage, best = arm.usage, diary.best
    return Run(
        key=key,
        family=task.family,
        direction=task.direction,
        stats=task.stats,
        revision=revision,
        machine=platform.node(),
        values=diary.values,
        incumbents=diary.incumbents,
        sources=diary.sources,
        repeat=diary.repeat,
        seen=diary.seen,
        failed=[value is None for value in diary.values],
        seconds=[round(s, 5) for s in seconds],
        best_params=None if best is None else best.params,
        test=None if best is None else best.test,
        requests=usage.calls,
        completions=arm.completions,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        usd=usage.usd,
        versions=versions(),
    )


def _step(task: Task, arm: Arm, diary: _Diary, size: int) -> list[float]:
    """Ask for a batch, evaluate it, tell it. Returns the seconds of asking, a trial."""
    began = time.perf_counter()
    asked = [arm.ask() for _ in range(size)]
    spent = time.perf_counter() - began
    results = [task.evaluate(a.params) for a in asked]
    for a, result in zip(asked, results, strict=True):
        arm.tell(a, result)
    diary.note([(a.params, a.source, result) for a, result in zip(asked, results, strict=True)])
    return [spent / size] * size


@functools.cache
def versions() -> dict[str, str]:
    """The installed versions of what a figure depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_revision() -> str:
    """The commit of this repository, with a plus sign where llmhpo/ or evals/ differ from it; "" outside of one."""
    root = Path(__file__).parents[1]

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and git("status", "--porcelain", "--", "llmhpo", "evals") else "")


# --- many runs --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _tasks(data: Path, suite: str, anonymous: bool) -> dict[str, Task]:
    tasks = load(data, suite)
    return {task.id: anonymised(task) if anonymous else task for task in tasks}


def _work(data: Path, suite: str, key: Key, revision: str, record: Path | None) -> Run:
    """A run in a process of its own, which keeps tasks and models from run to run."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    done = run_one(_tasks(data, suite, key.anonymous)[key.task], key, revision, record)
    return replace(done, half="b" if key.task in half_b(data, suite) else "a")


@functools.lru_cache(maxsize=4)
def half_b(data: Path, suite: str) -> frozenset[str]:
    """Ids of the tasks of a suite that nothing is tuned on."""
    return frozenset(task.id for task in load(data, suite, half="b"))


def run(plan: Plan, out: Path, *, known: Collection[Key] = frozenset(), jobs: int = 1, show: bool = True) -> list[str]:
    """Run what is missing of a plan into `out`/runs.jsonl; `jobs` processes at a time. Returns what went wrong.

    `known` lists runs that lie elsewhere and are not missing. A run that raises is reported and left out; the same command tries it again.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / RUNS
    mend(path)
    done = {r.key for r in read_runs(path)} | set(known)
    tasks = load(plan.data, plan.suite, half=plan.half, pattern=plan.pattern)
    keys = list(plan.keys(tasks))
    missing = [key for key in keys if key not in done]
    revision, problems = code_revision(), []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not show,
    )
    with bar:
        line = bar.add_task(f"{len(tasks)} tasks", total=len(keys), completed=len(keys) - len(missing))
        for key, outcome in _outcomes(plan, missing, revision, jobs):
            if isinstance(outcome, Run):
                append_run(path, outcome)
            else:
                problems.append(f"{key}: {type(outcome).__name__}: {outcome}")
                bar.console.print(problems[-1], style="red", markup=False)
            bar.update(line, advance=1, description=f"{key.arm} {key.task}"[:48])
    return problems


def _outcomes(plan: Plan, keys: Iterable[Key], revision: str, jobs: int) -> Iterator[tuple[Key, Run | BaseException]]:
    """Runs as they end, in spawned processes: torch and onnxruntime do not survive a fork."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by the children when they start
    os.environ.setdefault("PYTHONHASHSEED", "0")  # SMAC walks over a set of configurations
    context = multiprocessing.get_context("spawn")
    waiting = iter(keys)
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running: dict[Future[Run], Key] = {}
        try:
            while True:
                while len(running) < 2 * jobs and (key := next(waiting, None)) is not None:
                    running[pool.submit(_work, plan.data, plan.suite, key, revision, plan.record)] = key
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key, error = running.pop(future), future.exception()
                    yield key, future.result() if error is None else error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

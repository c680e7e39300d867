"""What `noisy=True` gains: noiseless regret of the configuration that is reported as the best, after noisy trials.

    OMP_NUM_THREADS=1 nice -n 5 python -m evals.bench_noise

Gaussian noise of a share of the interquartile range of the function's values is added to synthetic functions. Each arm
reports one configuration: llmhpo its incumbent, Optuna's samplers the one with the best observed value, as
`Study.best_trial` does. Regret is the distance of its noiseless value from the optimum, in interquartile ranges; means are geometric, over seeds
and over tasks, with a floor of a thousandth. `best seen` is that of the best configuration an arm has run: what it would
report if it knew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

import llmhpo
from evals.tasks import synthetic
from evals.tasks.base import Params, Task

_FLOOR = 1e-3
TASKS = ("branin", "hartmann6", "sphere_5", "rastrigin_3", "rosenbrock_4", "mixed")


class Report(NamedTuple):
    """What an arm reports as the best, and all that it ran."""

    best: Params
    ran: list[Params]


class Run(NamedTuple):
    """One arm on one task with one seed: regret of what it reports and of the best it ran, repeats, CPU seconds."""

    arm: str
    task: str
    noise: float
    seed: int
    regret: float
    seen: float
    repeats: float
    seconds: float


def noisy_value(task: Task, params: Params, scale: float, seed: int, number: int) -> float | None:
    """A noisy value of the task; the noise hangs on seed and number of the trial alone, so arms are paired."""
    value = task.evaluate(params).value
    return None if value is None else value + scale * float(np.random.default_rng([seed, number]).standard_normal())


def ours(task: Task, scale: float, seed: int, n: int, *, noisy: bool) -> Report:
    """Our incumbent."""
    with llmhpo.Study(task.space, llm="none", seed=seed, n_trials=n, noisy=noisy) as study:
        for number in range(n):
            trial = study.ask()[0]
            value = noisy_value(task, trial.params, scale, seed, number)
            study.tell(trial, value, failed=None if value is not None else "failed")
        best = study.best
        assert best is not None
        return Report(best.params, [t.params for t in study.trials])


def optuna_s(task: Task, scale: float, seed: int, n: int, *, sampler: BaseSampler) -> Report:
    """Optuna's best trial."""
    study = optuna.create_study(sampler=sampler)
    space = task.space.to_optuna()
    asked: dict[int, Params] = {}
    for number in range(n):
        trial = study.ask(space)
        params = task.space.coerce(task.space.drop_inactive(trial.params))
        assert isinstance(params, dict), params
        asked[number] = params
        value = noisy_value(task, params, scale, seed, number)
        study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
    return Report(asked[study.best_trial.number], list(asked.values()))


ARMS: dict[str, Callable[[Task, float, int, int], Report]] = {
    "noisy=True": lambda *a: ours(*a, noisy=True),
    "noisy=False": lambda *a: ours(*a, noisy=False),
    "optuna tpe": lambda *a: optuna_s(*a, sampler=TPESampler(multivariate=True, seed=a[2])),
    "optuna gp": lambda *a: optuna_s(*a, sampler=GPSampler(deterministic_objective=False, seed=a[2])),
    "random": lambda *a: optuna_s(*a, sampler=RandomSampler(seed=a[2])),
}


def run(arm: str, name: str, noise: float, seed: int, n: int) -> Run:
    """One arm on one task with one seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = synthetic.make(f"synthetic/{name}")
    values = [v for p in task.space.sample(np.random.default_rng(0), 2048) if (v := task.evaluate(p).value) is not None]
    spread = float(np.subtract(*np.percentile(values, [75, 25])))
    start = time.process_time()
    report = ARMS[arm](task, noise * spread, seed, n)
    seconds = time.process_time() - start
    truths = [v / spread for p in [report.best, *report.ran] if (v := task.evaluate(p).value) is not None]
    repeats = 1.0 - len({task.space.key(p) for p in report.ran}) / n
    return Run(arm, name, noise, seed, truths[0], min(truths[1:]), repeats, seconds)


def mean(regrets: list[float]) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(np.maximum(regrets, _FLOOR)))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = [a for a in ARMS if a != "optuna gp"]
    parser.add_argument("--arms", nargs="*", default=quick, choices=list(ARMS), help="without optuna gp, which is slow")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--noise", nargs="*", type=float, default=[0.1, 0.3])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    plan = [
        (a, t, z, s, args.trials) for z in args.noise for t in args.tasks for a in args.arms for s in range(args.seeds)
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(run, *zip(*plan, strict=True)))
    for noise in args.noise:
        print(f"noise {noise:.0%} of the interquartile range, regret after {args.trials} trials, {args.seeds} seeds")
        head = "".join(f"{name:>14s}" for name in (*args.tasks, "all", "best seen"))
        print(f"{'arm':14s}{head}{'repeats':>9s}{'CPU s':>7s}")
        for arm in args.arms:
            mine = [r for r in runs if r.arm == arm and r.noise == noise]
            cells = [mean([r.regret for r in mine if r.task == t]) for t in args.tasks]
            cells += [mean([r.regret for r in mine]), mean([r.seen for r in mine])]
            tail = f"{np.mean([r.repeats for r in mine]):9.0%}{np.mean([r.seconds for r in mine]):7.1f}"
            print(f"{arm:14s}" + "".join(f"{c:14.4f}" for c in cells) + tail)


if __name__ == "__main__":
    main()

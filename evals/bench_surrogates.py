"""How well each surrogate predicts, how long it takes, and what the choice among them gains, on tables of real evaluations.

    OMP_NUM_THREADS=1 python -m evals.bench_surrogates
    OMP_NUM_THREADS=1 python -m evals.bench_surrogates --time

Each surrogate is fitted to n rows of a task and predicts 400 others; all get the same encoding and the same warped
targets. Half of the cases have uniform training rows, half are *guided*: every other row is one of the best, as late in a
study. Log-lik. is the mean log density of the other rows, noise included, with a floor of 0.03 under the spread so that
tied rows do not decide; rank is Spearman's correlation over all, good that over the best fifth; pick is the regret of the
row with the lowest mean, less that of the best row; best is the share of cases with the highest log-likelihood. Times are
CPU time of this process. `chosen` is `llmhpo.surrogates.choose` as it stands. scikit-learn's forests have 32 trees, as ours.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import ConstantInputWarning, norm, spearmanr

from evals.tasks import data_folder, load
from evals.tasks.base import Task
from llmhpo.surrogates.base import Array, Prediction
from llmhpo.surrogates.choose import CANDIDATES, SURROGATES, Groups, choose
from llmhpo.surrogates.warp import fit_warp

N_DRAWN, N_TEST, N_PREDICT = 1500, 400, 1024
SKLEARN = ("sk_extra", "sk_forest")
FAST = (*(name for name in SURROGATES if name != "ensemble"), *SKLEARN, "chosen")


class Table(NamedTuple):
    """Rows of a task: encoding (n, d), losses (n,), normalised regrets (n,)."""

    task: Task
    X: Array
    losses: Array
    regrets: Array


class Case(NamedTuple):
    """Rows to fit to and rows to predict, the targets of both warped alike, and the regrets of the latter."""

    groups: Groups
    X: Array
    z: Array
    probe: Array
    truth: Array
    regrets: Array


class Scores(NamedTuple):
    """One fit: milliseconds of fit and of predicting 1,024 rows, and quality on rows not seen."""

    fit_ms: float
    predict_ms: float
    log_likelihood: float
    rank: float
    good: float
    pick: float


class Fitted(NamedTuple):
    name: str
    predict: Callable[[Array], Prediction]
    noise_std: float


def table(task: Task) -> Table:
    told = [task.evaluate(p) for p in task.space.sample(np.random.default_rng(7), N_DRAWN)]
    unique = list({task.space.key(t.params): t for t in told if t.value is not None}.values())
    sign = 1.0 if task.direction == "minimize" else -1.0
    losses = sign * np.array([t.value for t in unique], dtype=float)
    regrets = np.array([task.stats.regret(t.value) for t in unique])
    return Table(task, task.space.encode([t.params for t in unique]), losses, regrets)


def case(source: Table, n: int, seed: int, *, guided: bool) -> Case | None:
    """None where the task has too few rows."""
    order = np.random.default_rng([seed, n]).permutation(len(source.losses))
    cut = min(N_TEST, len(order) // 3)
    test, pool = order[:cut], order[cut:]
    if len(pool) < n:
        return None
    train = pool[:n]
    if guided:
        rest = pool[n // 2 : 4 * n]
        best = rest[np.argsort(source.losses[rest], kind="stable")][: n - n // 2]
        train = np.random.default_rng(seed).permutation(np.concatenate([pool[: n // 2], best]))
    warp = fit_warp(source.losses[train])
    z, truth = warp.forward(source.losses[train]), warp.forward(source.losses[test])
    return Case(source.task.space.groups, source.X[train], z, source.X[test], truth, source.regrets[test])


def fit(name: str, case: Case) -> Fitted:
    if name in SKLEARN:
        return Fitted(name, _sklearn(name, case), 0.0)
    chosen = choose(case.X, case.z, case.groups, candidates=CANDIDATES if name == "chosen" else (name,))
    return Fitted(chosen.name, chosen.predict, float(getattr(chosen.model, "noise_std", 0.0)))


def _sklearn(name: str, case: Case) -> Callable[[Array], Prediction]:
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    if name == "sk_extra":
        model = ExtraTreesRegressor(32, min_samples_leaf=2, random_state=0)
    else:
        model = RandomForestRegressor(32, min_samples_leaf=2, max_features=0.5, random_state=0)
    model.fit(case.X, case.z)

    def predict(X: Array) -> Prediction:
        rows = X.astype(np.float32)
        leaves = [tree.tree_.apply(rows) for tree in model.estimators_]
        trees = [tree.tree_ for tree in model.estimators_]
        means = np.array([t.value[leaf, 0, 0] for t, leaf in zip(trees, leaves, strict=True)])
        within = np.array([np.maximum(t.impurity[leaf], 0.0) for t, leaf in zip(trees, leaves, strict=True)])
        return Prediction(means.mean(axis=0), np.sqrt(means.var(axis=0) + within.mean(axis=0)) + 1e-9)

    return predict


def measure(name: str, case: Case) -> tuple[str, Scores]:
    """The surrogate that was used and its scores."""
    many = np.random.default_rng(0).permutation(np.resize(np.arange(len(case.probe)), N_PREDICT))
    start = time.process_time()
    model = fit(name, case)
    middle = time.process_time()
    model.predict(case.probe[many])
    end = time.process_time()
    prediction, truth = model.predict(case.probe), case.truth
    std = np.maximum(np.hypot(prediction.std, model.noise_std), 0.03)
    best = np.argsort(truth, kind="stable")[: max(20, len(truth) // 5)]
    scores = Scores(
        1e3 * (middle - start),
        1e3 * (end - middle),
        float(np.mean(np.maximum(norm.logpdf(truth, prediction.mean, std), -20.0))),
        _spearman(prediction.mean, truth),
        _spearman(prediction.mean[best], truth[best]),
        float(case.regrets[np.argmin(prediction.mean)] - case.regrets.min()),
    )
    return model.name, scores


def _spearman(a: Array, b: Array) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(np.nan_to_num(spearmanr(a, b).statistic))


def compare(tables: Sequence[Table], models: Sequence[str], n: int, seeds: Sequence[int]) -> None:
    """Print one line a model."""
    cases = [case(t, n, seed, guided=guided) for t in tables for seed in seeds for guided in (False, True)]
    found = [[measure(name, c) for name in models] for c in cases if c is not None]
    scores = np.array([[s for _, s in row] for row in found])  # (cases, models, scores)
    # `chosen` is one of the others: it would share every first place.
    single = [k for k, name in enumerate(models) if name != "chosen"]
    winner = np.array(single)[scores[:, single, 2].argmax(axis=1)]
    for k, name in enumerate(models):
        fit_ms, predict_ms = np.median(scores[:, k, :2], axis=0)
        log_likelihood, rank, good, pick = scores[:, k, 2:].mean(axis=0)
        note = f"{np.mean(winner == k):6.2f}"
        if name == "chosen":
            others = np.mean([row[k][0] != CANDIDATES[0] for row in found])
            note = f"{'':6s}  not {CANDIDATES[0]}: {others:.2f}"
        print(
            f"{n:5d} {name:10s}{fit_ms:8.1f}{predict_ms:9.1f}{log_likelihood:10.3f}{rank:8.3f}{good:8.3f}{pick:8.3f}{note}"
        )
    if "chosen" in models:
        k = list(models).index("chosen")
        for base in ("gp", CANDIDATES[0]):
            if base in models:
                gain = scores[:, k, 2:] - scores[:, list(models).index(base), 2:]
                error = gain.std(axis=0) / np.sqrt(len(gain))
                parts = [f"{g:+.4f} ({e:.4f})" for g, e in zip(gain.mean(axis=0), error, strict=True)]
                print(
                    f"      chosen less {base:8s} log-lik. {parts[0]}, rank {parts[1]}, good {parts[2]}, pick {parts[3]}"
                )
    print(f"      {len(found)} cases", flush=True)


def time_asks(models: Sequence[str]) -> None:
    """Print what choosing, fitting and scoring 2,500 candidates takes: at the first question, and when it is remembered."""
    from llmhpo.surrogates import choose as choosing

    print(f"{'n':>5s} {'model':10s}{'first ms':>10s}{'later ms':>10s}   10 parameters, 2,500 candidates, medians of 9")
    for n in (20, 100, 250):
        for name in models:
            first: list[float] = []
            later: list[float] = []
            for seed in range(9):
                rng = np.random.default_rng(seed)
                X, P = rng.random((n, 10)), rng.random((2500, 10))
                z = (X[:, 0] - 0.6) ** 2 + 0.3 * X[:, 1] * X[:, 2] + 0.02 * rng.standard_normal(n)
                asked = Case(tuple((j,) for j in range(10)), X, z, P, z, z)
                choosing.forget()
                for times in (first, later):
                    start = time.process_time()
                    fit(name, asked).predict(P)
                    times.append(1e3 * (time.process_time() - start))
            print(f"{n:5d} {name:10s}{np.median(first):10.1f}{np.median(later):10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="else LLMHPO_BENCH_DATA, ../shared/data, the mini set")
    parser.add_argument("--tasks", default="*", help="glob over task ids")
    parser.add_argument("--half", choices=["a", "b"], help="every other task of each family")
    parser.add_argument("--models", nargs="*", default=list(FAST), choices=[*SURROGATES, *SKLEARN, "chosen"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[20, 50, 100, 250])
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--time", action="store_true", help="only the times of an ask")
    args = parser.parse_args()
    if args.time:
        time_asks(args.models)
        return
    tasks = load(data_folder(args.data), "core", half=args.half, pattern=args.tasks)
    tables = [table(t) for t in tasks if t.family != "real"]  # those train a model a row
    print(
        f"{'n':>5s} {'model':10s}{'fit ms':>8s}{'pred ms':>9s}{'log-lik.':>10s}{'rank':>8s}{'good':>8s}{'pick':>8s}{'best':>6s}"
    )
    for n in args.sizes:
        compare(tables, args.models, n, args.seeds)


if __name__ == "__main__":
    main()

"""Why the Gaussian process is our own: speed and quality against BoTorch's SingleTaskGP, on pools of real evaluations.

    OMP_NUM_THREADS=1 python -m evals.bench_gp

Each model is fitted to n random rows of a pool and predicts 500 others; both get the same encoding and the same warped
targets. Log-likelihood is the held-out mean log density, noise included, with a floor of 0.03 under
the spread so that tied rows do not decide; rank is Spearman's correlation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, spearmanr

from evals.tasks import data_folder, load
from evals.tasks.base import Task
from llmhpo.surrogates.base import Array
from llmhpo.surrogates.forest import Forest
from llmhpo.surrogates.gp import GaussianProcess
from llmhpo.surrogates.warp import fit_warp

N_TEST = 500


class Scores(NamedTuple):
    """One fit: seconds of fit and predict, held-out log-likelihood and rank correlation."""

    fit_s: float
    predict_s: float
    log_likelihood: float
    rank: float


class Fit(NamedTuple):
    """Predicted mean and standard deviation of a noisy observation, and what it took."""

    mean: Array
    std: Array
    fit_s: float
    predict_s: float


def ours(task: Task, X: Array, z: Array, probe: Array) -> Fit:
    model = GaussianProcess(task.space.groups)
    start = time.perf_counter()
    model.fit(X, z)
    middle = time.perf_counter()
    prediction = model.predict(probe)
    end = time.perf_counter()
    noise = model.hyperparameters.noise * float(z.var())
    return Fit(prediction.mean, np.sqrt(prediction.std**2 + noise), middle - start, end - middle)


def forest(_: Task, X: Array, z: Array, probe: Array) -> Fit:
    model = Forest()
    start = time.perf_counter()
    model.fit(X, z)
    middle = time.perf_counter()
    prediction = model.predict(probe)
    return Fit(prediction.mean, prediction.std, middle - start, time.perf_counter() - middle)


def botorch(_: Task, X: Array, z: Array, probe: Array) -> Fit:
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    start = time.perf_counter()
    model = SingleTaskGP(torch.tensor(X), torch.tensor(z)[:, None], outcome_transform=Standardize(1))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    middle = time.perf_counter()
    with torch.no_grad():
        posterior = model.posterior(torch.tensor(probe), observation_noise=True)
        mean, std = posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()
    return Fit(mean, std, middle - start, time.perf_counter() - middle)


MODELS: dict[str, Callable[[Task, Array, Array, Array], Fit]] = {"ours": ours, "forest": forest, "botorch": botorch}


def measure(task: Task, model: str, n: int, seed: int) -> Scores:
    """Fit to `n` rows, score on others."""
    rng = np.random.default_rng([seed, n])
    told = [task.evaluate(p) for p in task.space.sample(rng, 2 * (n + N_TEST))]
    unique = list({task.space.key(t.params): t for t in told if t.value is not None}.values())
    train, test = unique[:n], unique[n : n + N_TEST]
    sign = 1.0 if task.direction == "minimize" else -1.0
    losses = sign * np.array([t.value for t in train], dtype=float)
    warp = fit_warp(losses)
    X, probe = (task.space.encode([t.params for t in part]) for part in (train, test))
    fit = MODELS[model](task, X, warp.forward(losses), probe)
    truth = warp.forward(sign * np.array([t.value for t in test], dtype=float))
    density = float(np.mean(np.maximum(norm.logpdf(truth, fit.mean, np.maximum(fit.std, 0.03)), -20.0)))
    return Scores(fit.fit_s, fit.predict_s, density, float(spearmanr(fit.mean, truth).statistic))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="else LLMHPO_BENCH_DATA, ../shared/data, the mini set")
    parser.add_argument("--tasks", default="hpob*", help="glob over task ids")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    if "botorch" in args.models:
        try:
            import botorch as _  # noqa: F401
        except ImportError as error:
            raise SystemExit("the comparison needs BoTorch: pip install botorch, or --models ours forest") from error
    tasks = load(data_folder(args.data), "core", pattern=args.tasks)
    print(
        f"{'model':10s}{'n':>5s}{'fit ms':>9s}{'predict ms':>12s}{'log-lik.':>10s}{'rank':>8s}   {len(tasks)} tasks, medians of time, means of quality"
    )
    for n in (10, 25, 50, 100):
        for model in args.models:
            scores = [measure(t, model, n, seed) for t in tasks for seed in range(args.seeds)]
            ms = [1e3 * float(np.median([s[k] for s in scores])) for k in (0, 1)]
            quality = [float(np.nanmean([s[k] for s in scores])) for k in (2, 3)]
            print(f"{model:10s}{n:5d}{ms[0]:9.1f}{ms[1]:12.1f}{quality[0]:10.3f}{quality[1]:8.3f}", flush=True)


if __name__ == "__main__":
    main()

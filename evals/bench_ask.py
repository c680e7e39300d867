"""How long an ask without a model takes: 10 mixed parameters, one thread, every fit from scratch.

OMP_NUM_THREADS=1 python -m evals.bench_ask
"""

from __future__ import annotations

import tempfile
import time

import numpy as np

from llmhpo.agents.classical import classical_proposals
from llmhpo.space import SearchSpace
from llmhpo.study import Study
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.6},
        "label_smoothing": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.05},
        "layers": {"type": "int", "low": 1, "high": 12},
        "width": {"type": "int", "low": 32, "high": 2048, "log": True},
        "batch": {"type": "ordinal", "choices": [16, 32, 64, 128, 256]},
        "activation": {"type": "categorical", "choices": ["relu", "gelu", "silu", "tanh"]},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw", "lion"]},
        "momentum": {"type": "float", "low": 0.5, "high": 0.99, "when": {"optimizer": "sgd"}},
    }
)


def history(n: int, seed: int) -> Context:
    """`n` finished trials of a smooth loss with a few interactions."""
    rng = np.random.default_rng(seed)
    trials = []
    for i, params in enumerate(SPACE.sample(rng, n)):
        u = SPACE.to_unit(params)
        loss = (u[0] - 0.6) ** 2 + 0.3 * (u[4] - u[5]) ** 2 + 0.1 * u[2] + 0.05 * (params["optimizer"] == "sgd")
        trials.append(Trial(i, Proposal(params, "bench"), Outcome("ok", float(np.exp(3 * loss)))))
    return Context(Task(), SPACE, tuple(trials), seed=seed)


def main() -> None:
    classical_proposals(history(20, 99), 1)  # imports and first calls
    print(f"{'trials':>7s}{'ask p50':>10s}{'p90':>8s}{'fit p50':>10s}{'batch of 8':>12s}   milliseconds")
    for n in (10, 100, 250, 1000, 5000):
        asks, fits, batches = [], [], []
        for seed in range(9):
            context, other = history(n, seed), history(n, seed)
            start = time.perf_counter()
            classical_proposals(context, 1)
            asks.append(time.perf_counter() - start)
            start = time.perf_counter()
            fit_screen(other)
            fits.append(time.perf_counter() - start)
            start = time.perf_counter()
            classical_proposals(context, 8)
            batches.append(time.perf_counter() - start)
        p50, p90 = np.quantile(asks, [0.5, 0.9]) * 1e3
        print(f"{n:7d}{p50:10.1f}{p90:8.1f}{np.median(fits) * 1e3:10.1f}{np.median(batches) * 1e3:12.1f}")
    print(f"{'study':>10s}{'ask p50':>10s}{'p90':>8s}   milliseconds, trials 90 to 110 of a whole study")
    with tempfile.TemporaryDirectory() as folder:
        for name, storage in (("memory", None), ("sqlite", f"sqlite:///{folder}/study.db")):
            p50, p90 = np.quantile(study_asks(storage), [0.5, 0.9]) * 1e3
            print(f"{name:>10s}{p50:10.1f}{p90:8.1f}")


def study_asks(storage: str | None) -> list[float]:
    """Seconds of `Study.ask`, writing the trial to the storage included, around the hundredth trial."""
    seconds = []
    with Study(SPACE, llm="none", storage=storage, seed=0) as study:
        for i in range(110):
            start = time.perf_counter()
            (trial,) = study.ask()
            if i >= 90:
                seconds.append(time.perf_counter() - start)
            u = SPACE.to_unit(trial.params)
            study.tell(trial, float((u[0] - 0.6) ** 2 + 0.3 * (u[4] - u[5]) ** 2 + 0.1 * u[2]))
    return seconds


if __name__ == "__main__":
    main()

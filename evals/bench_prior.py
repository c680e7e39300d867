"""What a prior from words is worth, and what a wrong one costs: expected improvement with and without it.

    OMP_NUM_THREADS=1 python -m evals.bench_prior

A minimal loop of its own: the Gaussian process of llmhpo, 3 random trials, then the best of random, local and prior
candidates by log expected improvement, plus the prior's log weight. Functions of 2 to 6 dimensions whose optimum is moved
at random with every seed. Priors: `good` ranges of a third of the space that hold the optimum; `half` of which every
second one is wrong; `wrong` ranges that do not hold it; `trend`, true hints about the better end; `decay only`, the wrong
ranges with the decay of piBO alone, data having no say. Regret is the best value so far between the optimum (0) and the
mean of 10,000 random points (1), averaged over functions and seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from llmhpo.prior import Belief, Prior
from llmhpo.space import SearchSpace
from llmhpo.surrogates.acquisition import log_ei
from llmhpo.surrogates.base import Array
from llmhpo.surrogates.gp import GaussianProcess
from llmhpo.surrogates.warp import fit_warp

START, BUDGET, SHOWN = 3, 30, (5, 8, 12, 20, 30)
GLOBAL, LOCAL, FROM_PRIOR = 800, 200, 200
SPREAD = 1.0 / 3.0


class Function(NamedTuple):
    """A function of the unit cube whose least value, 0, lies at `optimum` (p,)."""

    optimum: Array
    value: Callable[[Array], Array]  # of differences to the optimum (n, p)

    def __call__(self, U: Array) -> Array:
        return self.value(U - self.optimum)


def bowl(D: Array) -> Array:
    """Smooth, each dimension half as steep as the one before."""
    return np.asarray((D**2 * 0.5 ** np.arange(D.shape[1])).sum(axis=1))


def ripples(D: Array) -> Array:
    """A bowl with local minima."""
    return np.asarray((D**2 + 0.04 * (1.0 - np.cos(6.0 * np.pi * D))).sum(axis=1))


def pit(D: Array) -> Array:
    """Nearly flat far from the optimum, as losses often are where training diverges."""
    return np.asarray(1.0 - np.exp(-4.0 * (D**2).sum(axis=1) / np.sqrt(D.shape[1])))


def valley(D: Array) -> Array:
    """Neighbouring dimensions depend on each other."""
    return np.asarray((D**2).sum(axis=1) + 4.0 * ((D[:, 1:] - D[:, :-1]) ** 2).sum(axis=1))


def space_of(p: int) -> SearchSpace:
    return SearchSpace.from_dict({f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(p)})


def ranges(optimum: Array, right: list[bool], rng: np.random.Generator) -> Prior:
    """A range for each dimension that holds the optimum somewhere, or lies on the other side of the space."""
    beliefs = []
    for i, (x, is_right) in enumerate(zip(optimum, right, strict=True)):
        centre = x + rng.uniform(-0.4, 0.4) * SPREAD if is_right else (x + 0.5) % 1.0
        low, high = max(0.0, centre - SPREAD / 2), min(1.0, centre + SPREAD / 2)
        beliefs.append(Belief(f"x{i}", 0.8, float(low), float(high)))
    return Prior(tuple(beliefs))


def prior_of(arm: str, optimum: Array, rng: np.random.Generator) -> Prior | None:
    p = len(optimum)
    if arm == "none":
        return None
    if arm == "trend":
        return Prior(
            tuple(Belief(f"x{i}", 0.8, better="lower" if x < 0.5 else "higher") for i, x in enumerate(optimum))
        )
    right = {"good": [True] * p, "half": [i % 2 == 0 for i in range(p)]}.get(arm, [False] * p)
    return ranges(optimum, right, rng)


def run(function: Function, arm: str, seed: int) -> Array:
    """Losses in the order of the trials, (BUDGET,)."""
    p = len(function.optimum)
    space, rng = space_of(p), np.random.default_rng([seed, p])
    U = rng.random((START, p))  # the same for every arm
    y = function(U)
    prior = prior_of(arm, function.optimum, rng)
    while len(y) < BUDGET:
        incumbent = U[int(np.argmin(y))]
        near = np.clip(incumbent + rng.normal(size=(LOCAL, p)) * 10.0 ** rng.uniform(-2.3, -0.7, (LOCAL, 1)), 0.0, 1.0)
        candidates = [rng.random((GLOBAL, p)), near]
        if prior is not None:
            candidates.append(prior.sample(space, rng, FROM_PRIOR))
        C = np.vstack(candidates)
        warp = fit_warp(y)
        z = warp.forward(y)
        gp = GaussianProcess()
        gp.fit(U, z)
        prediction = gp.predict(C)
        score = log_ei(prediction.mean, prediction.std, float(z.min()))
        if prior is not None and arm == "decay only":
            score += min(1.0, BUDGET / 10.0 / len(y)) * prior.log_density(space, C)
        elif prior is not None:
            score += prior.log_weight(space, C, U, y, BUDGET)
        U = np.vstack([U, C[int(np.argmax(score))]])
        y = np.append(y, function(U[-1:]))
    return y


ARMS = ("none", "good", "half", "trend", "wrong", "decay only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    args = parser.parse_args()
    cases = [(value, p) for value in (bowl, ripples, pit, valley) for p in (2, 4, 6)]
    print(
        f"{'prior':12s}" + "".join(f"{f'at {n}':>9s}" for n in SHOWN) + f"   {len(cases)} functions, {args.seeds} seeds"
    )
    for arm in args.arms:
        curves = []
        for value, p in cases:
            for seed in range(args.seeds):
                draw = np.random.default_rng([seed, p, 1])
                function = Function(draw.uniform(0.05, 0.95, p), value)
                typical = float(function(draw.random((10_000, p))).mean())
                curves.append(np.minimum.accumulate(run(function, arm, seed))[[n - 1 for n in SHOWN]] / typical)
        print(f"{arm:12s}" + "".join(f"{v:9.3f}" for v in np.mean(curves, axis=0)), flush=True)


if __name__ == "__main__":
    main()

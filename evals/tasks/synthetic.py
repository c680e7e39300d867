"""Functions made in numpy: BBOB-like ones, rotated and shifted by a fixed seed, and mixed ones. The optimum is 0.

Regret is logarithmic here: 1 at the median of the space, 0 at a ten-thousandth of it.
Source: Hansen et al. 2009 (BBOB); Dixon and Szego 1978 (Branin, Hartmann 6).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from evals.tasks.base import Array, Params, Result, Stats, Task
from llmhpo import SearchSpace

_FLOOR = 1e-4  # of the median: nearer to the optimum nobody needs to be
_SAMPLES = 4096
_LOW, _HIGH = -5.0, 5.0

_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_C = np.array([1.0, 1.2, 3.0, 3.2])


def sphere(z: Array) -> float:
    return float(z @ z)


def ellipsoid(z: Array) -> float:
    return float(10.0 ** np.linspace(0.0, 4.0, len(z)) @ z**2)


def rastrigin(z: Array) -> float:
    return float(10.0 * (len(z) - np.cos(2 * np.pi * z).sum()) + z @ z)


def rosenbrock(z: Array) -> float:
    x = z + 1.0
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def branin(x: Array) -> float:
    a, b = x
    bowl = (b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6) ** 2
    return float(bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10 - 0.397887)


def hartmann6(x: Array) -> float:
    return float(3.32237 - _HARTMANN_C @ np.exp(-(_HARTMANN_A * (x - _HARTMANN_P) ** 2).sum(axis=1)))


@dataclass(frozen=True, slots=True)
class Rotated:
    """f(R (x - shift)) over [-5, 5]^d, with the optimum inside of [-4, 4]^d."""

    function: Callable[[Array], float]
    rotation: Array  # (d, d), orthogonal
    shift: Array  # (d,)

    def __call__(self, params: Params) -> Result:
        """Compute it."""
        return Result(max(0.0, self.function(self.rotation @ (_numbers(params) - self.shift))), params)


@dataclass(frozen=True, slots=True)
class Plain:
    """A function of the numbers as they are."""

    function: Callable[[Array], float]

    def __call__(self, params: Params) -> Result:
        """Compute it."""
        return Result(max(0.0, self.function(_numbers(params))), params)


@dataclass(frozen=True, slots=True)
class Mixed:
    """A bowl over floats, integers and logarithms, another one for each category; one branch has a parameter of its own.

    With `fails`, a corner of the space fails, as trainings with too high a learning rate do.
    """

    fails: bool

    def __call__(self, params: Params) -> Result:
        """Compute it."""
        rate, width, kind = (params[name] for name in ("rate", "width", "kind"))
        assert isinstance(rate, float)
        assert isinstance(width, int)
        assert isinstance(params["x"], float)
        centre, offset = {"a": (-3.0, 0.0), "b": (-2.0, 0.4), "c": (-4.0, 0.8)}[str(kind)]
        if self.fails and math.log10(rate) > -1.0 and width > 64:
            return Result(None, params)
        value = offset + 0.3 * (math.log10(rate) - centre) ** 2 + 0.2 * (math.log2(width) - 6.0) ** 2
        value += (params["x"] - 0.3) ** 2 + 0.5 * (1.0 - math.cos(6.0 * math.pi * (params["x"] - 0.3)))
        value += 0.1 * abs(int(params["depth"] or 0) - 3)
        if "drop" in params:
            value += (float(params["drop"] or 0.0) - 0.2) ** 2
        return Result(value, params)


def _numbers(params: Params) -> Array:
    return np.array([float(v or 0.0) for v in params.values()])


def _box(dimensions: int, low: float = _LOW, high: float = _HIGH) -> SearchSpace:
    return SearchSpace.from_dict({f"x{i}": {"type": "float", "low": low, "high": high} for i in range(dimensions)})


def _mixed_space() -> SearchSpace:
    return SearchSpace.from_dict(
        {
            "rate": {"type": "float", "low": 1e-6, "high": 1.0, "log": True},
            "width": {"type": "int", "low": 4, "high": 512, "log": True},
            "depth": {"type": "ordinal", "choices": [1, 2, 3, 5, 8]},
            "kind": {"type": "categorical", "choices": ["c", "a", "b"]},
            "drop": {"type": "float", "low": 0.0, "high": 0.9, "when": {"kind": ["a", "b"]}},
            "x": {"type": "float", "low": 0.0, "high": 1.0},
        }
    )


def _rotated(function: Callable[[Array], float], dimensions: int) -> tuple[SearchSpace, Callable[[Params], Result]]:
    rng = np.random.default_rng(zlib.crc32(f"{function.__name__}_{dimensions}".encode()))
    rotation = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0]
    return _box(dimensions), Rotated(function, rotation, rng.uniform(-4.0, 4.0, dimensions))


def _branin_space() -> SearchSpace:
    return SearchSpace.from_dict(
        {"x0": {"type": "float", "low": -5.0, "high": 10.0}, "x1": {"type": "float", "low": 0.0, "high": 15.0}}
    )


_ROTATED = ((sphere, 5), (ellipsoid, 5), (rastrigin, 3), (rosenbrock, 4), (ellipsoid, 10), (rastrigin, 8))
_MAKERS: dict[str, Callable[[], tuple[SearchSpace, Callable[[Params], Result]]]] = {
    **{f"{f.__name__}_{d}": partial(_rotated, f, d) for f, d in _ROTATED},
    "branin": lambda: (_branin_space(), Plain(branin)),
    "hartmann6": lambda: (_box(6, 0.0, 1.0), Plain(hartmann6)),
    "mixed": lambda: (_mixed_space(), Mixed(fails=False)),
    "mixed_fails": lambda: (_mixed_space(), Mixed(fails=True)),
}
NAMES = tuple(f"synthetic/{name}" for name in _MAKERS)


@cache
def make(id_: str) -> Task:
    """The task of an id of `NAMES`. Slow: the median is measured."""
    name = id_.removeprefix("synthetic/")
    return _task(name, *_MAKERS[name]())


def _task(name: str, space: SearchSpace, evaluate: Callable[[Params], Result]) -> Task:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = [v for p in space.sample(rng, _SAMPLES) if (v := evaluate(p).value) is not None]
    median = float(np.median(values))
    stats = Stats(best=_FLOOR * median, median=median, log=True)
    return Task(
        id=f"synthetic/{name}",
        family="synthetic",
        words="A function of the parameters. Nothing is known of it.",
        metric="value",
        direction="minimize",
        space=space,
        stats=stats,
        evaluate=evaluate,
        default=space.default(),
    )

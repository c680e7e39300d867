"""Honest training: scikit-learn models on the real tables, a few tenths of a second a trial.

A quarter of the rows is the test set (the data's own mask where it has one), which no optimizer sees; a quarter of the
rest is the validation set, whose error is the objective. Splits and training seeds are fixed. A model that diverges
fails.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evals.tasks.base import Array, Params, Record, Result, Source, Stats, Task, Value
from llmhpo import SearchSpace

_MAX_TRAIN = 1500  # rows; the rest of a large table is left out, so that a trial takes tenths of a second
_STATS = Path(__file__).with_name("real_stats.json")  # written by evals.make_mini from random search
_FOREST_TREES = 60

Build = Callable[[Params], Any]  # the scikit-learn estimator of a configuration


class Splits(NamedTuple):
    """Standardised features and targets of the three parts."""

    train: tuple[Array, Array]
    validation: tuple[Array, Array]
    test: tuple[Array, Array]


class Recipe(NamedTuple):
    """A model, its space and its defaults (scikit-learn's own where it has them)."""

    words: str
    space: dict[str, object]
    default: Params
    build: Build
    classifies: bool = False


def _log(low: float, high: float) -> dict[str, object]:
    return {"type": "int" if isinstance(low, int) else "float", "low": low, "high": high, "log": True}


def _linear(low: float, high: float, **more: object) -> dict[str, object]:
    return {"type": "int" if isinstance(low, int) else "float", "low": low, "high": high, **more}


def _boosting(p: Params) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(**p, early_stopping=False, random_state=0)


def _network(p: Params) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(**_mlp(p), random_state=0)


def _classifier_network(p: Params) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(**_mlp(p), random_state=0)


def _mlp(p: Params) -> dict[str, Any]:
    rest: dict[str, Any] = {k: v for k, v in p.items() if k not in ("width", "depth")}
    return {**rest, "hidden_layer_sizes": (p["width"],) * int(p["depth"] or 1)}


def _svr(p: Params) -> Any:
    from sklearn.svm import SVR

    return SVR(**p, max_iter=20_000)


def _forest(p: Params) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    rest: dict[str, Any] = {k: v for k, v in p.items() if k != "kind"}
    make = ExtraTreesRegressor if p["kind"] == "extra_trees" else RandomForestRegressor
    return make(**rest, n_estimators=_FOREST_TREES, bootstrap=True, random_state=0, n_jobs=1)


def _any_model(p: Params) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    model, rest = p["model"], {k.partition("__")[2]: v for k, v in p.items() if k != "model"}
    if model == "svr":
        return _svr({**rest, "kernel": "rbf"})
    return KNeighborsRegressor(**rest) if model == "knn" else _boosting(rest)


_NETWORK_SPACE: dict[str, object] = {
    "width": _log(8, 128),
    "depth": _linear(1, 3),
    "solver": {"type": "categorical", "choices": ["adam", "sgd"]},
    "momentum": _linear(0.0, 0.99, when={"solver": "sgd"}),
    "activation": {"type": "categorical", "choices": ["relu", "tanh", "logistic"]},
    "learning_rate_init": _log(1e-5, 1.0),
    "alpha": _log(1e-7, 1.0),
    "batch_size": _log(16, 512),
    "max_iter": _linear(5, 40),
}
_NETWORK_DEFAULT: Params = {
    "width": 100,
    "depth": 1,
    "solver": "adam",
    "activation": "relu",
    "learning_rate_init": 0.001,
    "alpha": 0.0001,
    "batch_size": 200,
    "max_iter": 40,
}
_RECIPES: dict[str, Recipe] = {
    "bike": Recipe(
        "gradient boosting of histograms (scikit-learn) on the UCI bike sharing table",
        {
            "learning_rate": _log(0.005, 1.0),
            "max_iter": _log(5, 150),
            "max_leaf_nodes": _log(4, 128),
            "min_samples_leaf": _log(1, 200),
            "l2_regularization": _log(1e-6, 100.0),
            "max_features": _linear(0.1, 1.0),
        },
        {
            "learning_rate": 0.1,
            "max_iter": 100,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 20,
            "l2_regularization": 1e-6,
            "max_features": 1.0,
        },
        _boosting,
    ),
    "concrete": Recipe(
        "support vector regression (scikit-learn) on the UCI concrete strength table",
        {
            "kernel": {"type": "categorical", "choices": ["rbf", "poly", "linear", "sigmoid"]},
            "C": _log(1e-3, 1e4),
            "epsilon": _log(1e-4, 1.0),
            "gamma": _log(1e-5, 10.0) | {"when": {"kernel": ["rbf", "poly", "sigmoid"]}},
            "degree": _linear(2, 5, when={"kernel": "poly"}),
        },
        {"kernel": "rbf", "C": 1.0, "epsilon": 0.1, "gamma": 0.125},
        _svr,
    ),
    "elevators": Recipe(
        "multilayer perceptron (scikit-learn) on the elevators table: control of an aircraft",
        _NETWORK_SPACE,
        _NETWORK_DEFAULT,
        _network,
    ),
    "skillcraft": Recipe(
        "random forest or extremely randomised trees (scikit-learn) on the UCI SkillCraft1 table: a player's league",
        {
            "kind": {"type": "categorical", "choices": ["random_forest", "extra_trees"]},
            "max_features": _linear(0.05, 1.0),
            "max_samples": _linear(0.1, 1.0),
            "max_depth": _linear(1, 25),
            "min_samples_leaf": _log(1, 64),
            "min_samples_split": _log(2, 64),
        },
        {
            "kind": "random_forest",
            "max_features": 1.0,
            "max_samples": 1.0,
            "max_depth": 25,
            "min_samples_leaf": 1,
            "min_samples_split": 2,
        },
        _forest,
    ),
    "airfoil": Recipe(
        "choice of a model (gradient boosting, support vectors, nearest neighbours; scikit-learn) and its "
        "hyperparameters on the UCI airfoil self-noise table",
        {
            "model": {"type": "categorical", "choices": ["boosting", "svr", "knn"]},
            "boosting__learning_rate": _log(0.005, 1.0) | {"when": {"model": "boosting"}},
            "boosting__max_iter": _log(5, 150) | {"when": {"model": "boosting"}},
            "boosting__max_leaf_nodes": _log(4, 64) | {"when": {"model": "boosting"}},
            "svr__C": _log(1e-3, 1e4) | {"when": {"model": "svr"}},
            "svr__gamma": _log(1e-4, 100.0) | {"when": {"model": "svr"}},
            "svr__epsilon": _log(1e-4, 1.0) | {"when": {"model": "svr"}},
            "knn__n_neighbors": _log(1, 50) | {"when": {"model": "knn"}},
            "knn__weights": {"type": "categorical", "choices": ["uniform", "distance"], "when": {"model": "knn"}},
            "knn__p": _linear(1.0, 4.0, when={"model": "knn"}),
        },
        {
            "model": "boosting",
            "boosting__learning_rate": 0.1,
            "boosting__max_iter": 100,
            "boosting__max_leaf_nodes": 31,
        },
        _any_model,
    ),
    "digits": Recipe(
        "multilayer perceptron (scikit-learn) on the optical digits that come with scikit-learn",
        _NETWORK_SPACE,
        _NETWORK_DEFAULT,
        _classifier_network,
        classifies=True,
    ),
}


@dataclass(frozen=True)
class Training:
    """Fits a recipe's model and measures its validation error: RMSE of the standardised target, or the error rate."""

    path: Path | None  # None: the table comes with scikit-learn
    recipe: Recipe

    @cached_property
    def splits(self) -> Splits:
        """The three parts of the table, fixed once and for all."""
        mask = None
        if self.path is None:
            from sklearn.datasets import load_digits

            X, y = load_digits(return_X_y=True)
        else:
            with np.load(self.path) as file:
                X, y = np.asarray(file["X"], dtype=float), np.asarray(file["y"], dtype=float)
                mask = np.asarray(file["test_mask"], dtype=bool)
        rng = np.random.default_rng(0)
        if mask is None:
            mask = np.zeros(len(X), dtype=bool)
            mask[rng.permutation(len(X))[: len(X) // 4]] = True
        seen = rng.permutation(np.flatnonzero(~mask))
        validation, train = seen[: len(seen) // 4], seen[len(seen) // 4 :][:_MAX_TRAIN]
        X = (X - X[train].mean(axis=0)) / np.where(X[train].std(axis=0) > 0, X[train].std(axis=0), 1.0)
        if not self.recipe.classifies:
            y = (y - y[train].mean()) / y[train].std()
        return Splits((X[train], y[train]), (X[validation], y[validation]), (X[mask], y[mask]))

    def __call__(self, params: Params) -> Result:
        """Train and measure."""
        start = time.perf_counter()
        splits = self.splits
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of runs that have not converged: that is what is tuned
            try:
                model = self.recipe.build(params).fit(*splits.train)
                value, test = self._error(model, splits.validation), self._error(model, splits.test)
            except ValueError:  # scikit-learn's word for weights or predictions that are not finite
                return Result(None, params, time.perf_counter() - start)
        ok = math.isfinite(value) and value < 1e3
        return Result(value if ok else None, params, time.perf_counter() - start, test=test)

    def _error(self, model: Any, part: tuple[Array, Array]) -> float:
        X, y = part
        prediction = model.predict(X)
        return float(np.mean(prediction != y) if self.recipe.classifies else np.sqrt(np.mean((prediction - y) ** 2)))


def _task(name: str, path: Path | None, stats: dict[str, dict[str, float]]) -> Task:
    recipe = _RECIPES[name]
    space = SearchSpace.from_dict(recipe.space)
    reference = stats.get(f"real/{name}") or {"best": 0.0, "median": 1.0, "rs30_norm_regret": math.nan}
    kept: dict[str, Value] = dict(recipe.default)
    return Task(
        id=f"real/{name}",
        family="real",
        words=recipe.words + ("" if recipe.classifies else "; the target is standardised"),
        metric="validation_error" if recipe.classifies else "validation_rmse",
        direction="minimize",
        space=space,
        stats=Stats(reference["best"], reference["median"], rs30=reference["rs30_norm_regret"]),
        evaluate=Training(path, recipe),
        default=kept,
    )


def _reference() -> dict[str, dict[str, float]]:
    stats: dict[str, dict[str, float]] = json.loads(_STATS.read_text()) if _STATS.exists() else {}
    return stats


def read(record: Record, source: Source) -> Task:
    """The task of a record of kind "real"."""
    return _task(str(record["dataset"]["name"]), source.root / record["file"], _reference())


def builtin() -> list[Task]:
    """The tasks whose table comes with scikit-learn."""
    return [_task("digits", None, _reference())]

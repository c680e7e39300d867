"""scikit-learn's face: `LLMSearchCV`, a search over hyperparameters with cross-validation, like `GridSearchCV`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmhpo.errors import ConfigError, MissingExtraError, SpaceError
from llmhpo.llm import ModelSpec
from llmhpo.param import Param, param_from_dict
from llmhpo.space import Params, SearchSpace
from llmhpo.study import Study
from llmhpo.usage import Usage

try:
    import numpy as np
    from joblib import effective_n_jobs
    from sklearn.model_selection import check_cv
    from sklearn.model_selection._search import BaseSearchCV  # what dask-ml and scikit-optimize build on, too
    from sklearn.utils import check_random_state
except ImportError:
    raise MissingExtraError("llmhpo.sklearn", "sklearn", "scikit-learn") from None

_NO_FIT = re.compile(r"All the \d+ fits failed")
_PLAIN = (str, int, float, bool, type(None))


class LLMSearchCV(BaseSearchCV):  # type: ignore[misc]
    """Search over an estimator's hyperparameters with cross-validation, by the proposers of `llmhpo.optimize`.

    `param_space` maps names of parameters (`"clf__C"` within a pipeline) to what they may be: a table as in study.toml
    (`{"type": "float", "low": 1e-3, "high": 1e3, "log": True}`), an Optuna distribution, a list of values of any kind, or a
    frozen `scipy.stats` distribution (`uniform`, `loguniform`, `randint`). The estimator's own values are tried first, where
    they lie in the space. `task` describes the data and the goal in words, for the model.

    `n_iter` configurations are evaluated. `llm`, `max_tokens`, `max_usd`, `storage` and `study_name` are as for
    `optimize`, all else is as for `GridSearchCV`; a list of several metrics in `scoring` needs `refit` to name the one that
    is searched for. With `storage` and `study_name` a search that was stopped goes on where it was, on the same data.

    After `fit`, `usage_` holds the model's bill and `study_trials_` the trials with their sources and reasons.

    Raises: SpaceError, ConfigError (when fitted, as scikit-learn wants it).
    """

    def __init__(
        self,
        estimator: Any,
        param_space: Mapping[str, object],
        *,
        n_iter: int = 25,
        task: str = "",
        llm: ModelSpec = "auto",
        max_tokens: int | None = None,
        max_usd: float | None = None,
        storage: str | None = None,
        study_name: str | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator=estimator, scoring=scoring, n_jobs=n_jobs, refit=refit, cv=cv, verbose=verbose,
            pre_dispatch=pre_dispatch, error_score=error_score, return_train_score=return_train_score,
        )  # fmt: skip
        self.param_space = param_space
        self.n_iter = n_iter
        self.task = task
        self.llm = llm
        self.max_tokens = max_tokens
        self.max_usd = max_usd
        self.storage = storage
        self.study_name = study_name
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **params: Any) -> LLMSearchCV:
        """Search, then (`refit`) fit the best configuration on all of the data. `X`: (n_samples, n_features)."""
        self._folds = check_cv(self.cv, y).get_n_splits(X, y, params.get("groups"))
        super().fit(X, y, **params)
        return self

    def _run_search(self, evaluate_candidates: Callable[[list[dict[str, Any]]], Mapping[str, Any]]) -> None:
        if isinstance(self.n_iter, bool) or not isinstance(self.n_iter, int) or self.n_iter < 1:
            raise ConfigError(f"n_iter={self.n_iter!r} is not a whole number from 1 on")
        choices = Choices(self.param_space, self.estimator.get_params())
        score = f"mean_test_{self.refit}" if isinstance(self.refit, str) else "mean_test_score"
        at_once = max(1, effective_n_jobs(self.n_jobs) // self._folds)
        with Study(
            choices.space,
            task=self.task or f"hyperparameters of {self.estimator!r}"[:900],
            metric=score,
            direction="maximize",
            n_trials=self.n_iter,
            llm=self.llm,
            storage=self.storage,
            study_name=self.study_name,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            max_tokens=self.max_tokens,
            max_usd=self.max_usd,
        ) as study:
            rows, broken = 0, None
            open_ = list(study.pending)
            while open_ or len(study.trials) < self.n_iter:
                batch = open_ or study.ask(min(at_once, self.n_iter - len(study.trials)))
                open_ = []
                try:
                    results = evaluate_candidates([choices.of(t.params) for t in batch])
                except ValueError as error:
                    if not _NO_FIT.search(str(error)):
                        raise
                    broken = (
                        error  # every fit of this batch failed: a matter of its configurations, unless all batches do
                    )
                    for trial in batch:
                        study.tell(trial, failed=str(error).strip().splitlines()[-1])
                    continue
                for trial, value in zip(batch, self._scores(results, score)[rows:], strict=True):
                    well = math.isfinite(value)
                    study.tell(trial, value) if well else study.tell(trial, failed="the score is not a finite number")
                rows += len(batch)
            if rows == 0 and study.best is None:
                raise broken or ConfigError(
                    f"study {self.study_name!r} has spent its {self.n_iter} trials, none of them well; raise n_iter"
                )
            if rows == 0:  # a finished study: its best is what there is to refit
                assert study.best is not None
                evaluate_candidates([choices.of(study.best.params)])
            self.study_trials_ = study.trials
            self.usage_: Usage = study.result.usage

    def _scores(self, results: Mapping[str, Any], name: str) -> list[float]:
        if name not in results:
            known = ", ".join(n.removeprefix("mean_test_") for n in results if n.startswith("mean_test_"))
            raise ConfigError(
                f"refit={self.refit!r}: with several metrics it must name the one to search for; known: {known}"
            )
        scores: list[float] = results[name].tolist()
        return scores


class Choices:
    """A `param_space` as a search space, and its configurations as what an estimator is given.

    Values that are no plain data (tuples, functions, estimators) are known to the search by their `repr`. `given` are the
    estimator's own values, which become the defaults.

    Raises: SpaceError.
    """

    def __init__(self, param_space: Mapping[str, object], given: Mapping[str, object]) -> None:
        if not isinstance(param_space, Mapping) or not param_space:
            raise SpaceError(f"param_space={param_space!r} is not a mapping from parameters to their values")
        self._objects: dict[str, dict[object, object]] = {}
        self.space = SearchSpace([self._param(name, raw, given) for name, raw in param_space.items()])

    def of(self, params: Params) -> dict[str, object]:
        """A configuration in the estimator's own values."""
        return {name: self._objects.get(name, {}).get(value, value) for name, value in params.items()}

    def _param(self, name: str, raw: object, given: Mapping[str, object]) -> Param:
        if isinstance(raw, Sequence | np.ndarray) and not isinstance(raw, str):
            raw = self._listed(name, list(raw))
        elif hasattr(raw, "ppf") and hasattr(raw, "dist"):
            raw = _from_scipy(name, raw)
        param = param_from_dict(name, raw)
        own = next(
            (label for label, value in self._objects.get(name, {}).items() if value is given.get(name)), given.get(name)
        )
        if name not in given or param.has_default or not isinstance(own, _PLAIN) or param.check(own) is not None:
            return param
        return Param(name, param.distribution, param.doc, param.unit, param.when, param.cast(own), param.ordered)

    def _listed(self, name: str, values: list[object]) -> dict[str, object]:
        values = [v.item() if isinstance(v, np.generic) else v for v in values]
        if all(isinstance(v, _PLAIN) for v in values):
            return {"type": "categorical", "choices": values}
        labels = [v if isinstance(v, _PLAIN) else repr(v)[:200] for v in values]
        if len(set(labels)) < len(labels):
            raise SpaceError(f"{name}: two of its values look alike ({labels!r}); give values with different repr()")
        self._objects[name] = dict(zip(labels, values, strict=True))
        return {"type": "categorical", "choices": labels}


def _from_scipy(name: str, frozen: Any) -> dict[str, object]:
    """The range of a frozen distribution of scipy.stats. Raises: SpaceError."""
    kind = frozen.dist.name
    if kind not in ("uniform", "loguniform", "reciprocal", "randint"):
        raise SpaceError(
            f"{name}: scipy.stats.{kind} has no range of equal weight; use uniform, loguniform or randint, a list, or a "
            'table such as {"type": "float", "low": 0.1, "high": 10, "log": True}'
        )
    low, high = (float(end) for end in frozen.support())
    if kind == "randint":
        return {"type": "int", "low": int(low), "high": int(high)}
    return {"type": "float", "low": low, "high": high, "log": kind != "uniform"}

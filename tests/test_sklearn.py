"""`LLMSearchCV` as scikit-learn's users know searches, and under scikit-learn's own checks."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform, norm, randint, uniform
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from llmhpo.errors import ConfigError, SpaceError
from llmhpo.sklearn import Choices, LLMSearchCV

X, y = load_iris(return_X_y=True)
C = {"type": "float", "low": 1e-3, "high": 1e3, "log": True}


def search(estimator: Any, space: Any, **settings: Any) -> LLMSearchCV:
    return LLMSearchCV(estimator, space, **{"n_iter": 5, "llm": "none", "cv": 3, "random_state": 0} | settings)


def checked(estimator: Any) -> Counter[tuple[str, str]]:
    """How scikit-learn's own checks ended: (check, status)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    return Counter((r["check_name"], r["status"]) for r in results)


def test_scikit_learn_s_own_checks_pass_but_for_those_of_array_libraries_that_are_not_here() -> None:
    found = checked(search(LogisticRegression(), {"C": C}, n_iter=2, cv=2))
    assert {name.startswith("check_array_api") for name, status in found if status != "passed"} <= {True}
    assert sum(n for (_, status), n in found.items() if status == "passed") > 45


def test_scikit_learn_s_own_checks_end_as_those_of_its_grid_search() -> None:
    """check_supervised_y_2d fails for both: Ridge takes a column for y as one of several targets, and warns of nothing."""
    space = {"alpha": [0.1, 1.0]}
    assert checked(search(Ridge(), space, n_iter=2, cv=2)) == checked(GridSearchCV(Ridge(), space, cv=2))


def test_a_search_has_what_a_grid_search_has() -> None:
    found = search(KNeighborsClassifier(), {"n_neighbors": randint(1, 30)}, return_train_score=True).fit(X, y)
    assert found.best_score_ == max(found.cv_results_["mean_test_score"])
    assert found.best_estimator_.n_neighbors == found.best_params_["n_neighbors"]
    assert found.score(X, y) > 0.9
    assert len(found.cv_results_["params"]) == 5
    assert "mean_train_score" in found.cv_results_
    assert found.usage_.calls == 0


def test_the_estimator_s_own_values_come_first() -> None:
    found = search(LogisticRegression(C=2.5, max_iter=9000), {"C": C}).fit(X, y)
    assert found.cv_results_["params"][0] == {"C": 2.5}
    assert found.study_trials_[0].proposal.source == "default"


def test_the_same_seed_finds_the_same() -> None:
    runs = [search(LogisticRegression(max_iter=9000), {"C": C}).fit(X, y).cv_results_["params"] for _ in range(2)]
    assert runs[0] == runs[1]


def test_parameters_of_a_pipeline_are_searched_by_their_path() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=9000))
    found = search(pipeline, {"logisticregression__C": C, "standardscaler__with_mean": [True, False]}).fit(X, y)
    assert set(found.best_params_) == {"logisticregression__C", "standardscaler__with_mean"}


def test_several_metrics_with_the_one_to_search_for() -> None:
    found = search(LogisticRegression(max_iter=9000), {"C": C}, scoring=["accuracy", "f1_macro"], refit="f1_macro")
    found.fit(X, y)
    assert found.best_score_ == max(found.cv_results_["mean_test_f1_macro"])


def test_several_metrics_without_the_one_to_search_for_are_refused() -> None:
    with pytest.raises((ConfigError, ValueError), match="refit"):
        search(LogisticRegression(max_iter=9000), {"C": C}, scoring=["accuracy", "f1_macro"], refit=False).fit(X, y)


def test_a_configuration_that_fails_costs_a_trial_and_no_more() -> None:
    found = search(LogisticRegression(max_iter=9000), {"solver": ["lbfgs", "none such"]}, n_iter=2).fit(X, y)
    assert [t.outcome.status for t in found.study_trials_ if t.outcome] == ["ok", "failed"]
    assert found.best_params_ == {"solver": "lbfgs"}


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_that_fails_on_some_folds_has_no_score() -> None:
    folds = [(range(150), range(9)), (range(9), range(150))]  # the second trains on one class
    found = search(LogisticRegression(max_iter=9000), {"C": [0.5, 1.0]}, n_iter=2, cv=folds).fit(X, y)
    assert [t.outcome.message for t in found.study_trials_ if t.outcome] == ["the score is not a finite number"] * 2


def test_an_estimator_that_never_fits_says_why() -> None:
    with pytest.raises(ValueError, match="fits failed"):
        search(LogisticRegression(), {"solver": ["none such", "nor this"]}, n_iter=2).fit(X, y)


def test_a_search_that_is_kept_goes_on_where_it_was(tmp_path: Path) -> None:
    kept = {"storage": f"sqlite:///{tmp_path / 's.db'}", "study_name": "iris"}
    search(KNeighborsClassifier(), {"n_neighbors": randint(1, 30)}, n_iter=3, **kept).fit(X, y)
    more = search(KNeighborsClassifier(), {"n_neighbors": randint(1, 30)}, n_iter=5, **kept).fit(X, y)
    assert len(more.cv_results_["params"]) == 2
    assert len(more.study_trials_) == 5


def test_a_search_can_be_cloned() -> None:
    first = search(LogisticRegression(), {"C": C}, task="flowers")
    assert clone(first).get_params()["task"] == "flowers"


def test_values_of_any_kind_are_given_to_the_estimator_as_they_are() -> None:
    sizes = [(10,), (20, 20)]
    choices = Choices({"hidden_layer_sizes": sizes}, {"hidden_layer_sizes": (20, 20)})
    default = choices.space.default()
    assert choices.of(default) == {"hidden_layer_sizes": (20, 20)}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (uniform(2, 3), {"type": "float", "low": 2.0, "high": 5.0}),
        (loguniform(0.1, 10), {"type": "float", "low": 0.1, "high": 10.0, "log": True}),
        (randint(1, 5), {"type": "int", "low": 1, "high": 4}),
        (np.array([1, 2, 4]), {"type": "categorical", "choices": [1, 2, 4]}),
    ],
)
def test_distributions_of_scipy_and_arrays_are_read(raw: object, expected: dict[str, object]) -> None:
    assert Choices({"p": raw}, {}).space.to_dict() == {"p": expected}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "is not a mapping"),
        ({"C": norm(0, 1)}, "norm has no range"),
        ({"C": 3}, "'C': expected a table"),
        ({"C": [object, object]}, "look alike"),
    ],
)
def test_what_is_no_space_is_refused_by_name(space: Any, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        search(LogisticRegression(), space).fit(X, y)


@pytest.mark.parametrize("n_iter", [0, 2.5, True])
def test_a_number_of_iterations_that_is_none_is_refused(n_iter: Any) -> None:
    with pytest.raises(ConfigError, match="n_iter"):
        search(LogisticRegression(), {"C": C}, n_iter=n_iter).fit(X, y)

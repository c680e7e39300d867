"""A forest on scikit-learn's breast cancer data. Style: nested dataclasses with a hand-made parser of name=value words."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


@dataclass
class ForestConfig:
    n_estimators: int = 60
    max_depth: int = 8
    min_samples_leaf: int = 2
    max_features: float = 0.5  # share of the features tried at each split
    criterion: Literal["gini", "entropy"] = "gini"
    bootstrap: bool = True


@dataclass
class RunConfig:
    version: ClassVar[str] = "1"
    forest: ForestConfig = field(default_factory=ForestConfig)
    ccp_alpha: float = field(default=0.0, metadata={"help": "pruning strength"})
    seed: int = 0
    folds: int = 3
    n_jobs: int = 1
    columns: list[str] = field(default_factory=list)


def override(config: RunConfig, words: list[str]) -> None:
    for word in words:
        name, _, value = word.partition("=")
        *outer, last = name.split(".")
        target = config
        for part in outer:
            target = getattr(target, part)
        setattr(target, last, type(getattr(target, last))(json.loads(value) if value[0] != '"' else value))


def main() -> None:
    config = RunConfig()
    override(config, sys.argv[1:])
    f = config.forest
    model = RandomForestClassifier(
        n_estimators=f.n_estimators,
        max_depth=f.max_depth,
        min_samples_leaf=f.min_samples_leaf,
        max_features=f.max_features,
        criterion=f.criterion,
        bootstrap=f.bootstrap,
        ccp_alpha=config.ccp_alpha,
        random_state=config.seed,
        n_jobs=config.n_jobs,
    )
    X, y = load_breast_cancer(return_X_y=True)
    score = float(cross_val_score(model, X, y, cv=config.folds, scoring="roc_auc").mean())
    text = json.dumps({"roc_auc": score})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)


if __name__ == "__main__":
    main()

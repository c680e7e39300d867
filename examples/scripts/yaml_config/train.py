"""Gradient boosting on scikit-learn's diabetes. Style: one YAML file, its path the only argument."""

import argparse
import json
import os
from pathlib import Path

import yaml
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import cross_val_score


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="config.yaml", help="YAML file with every setting")
    config = yaml.safe_load(Path(parser.parse_args().config).read_text())
    m = config["model"]
    model = HistGradientBoostingRegressor(
        learning_rate=float(m["learning_rate"]),  # YAML 1.1 takes 1e-1 for a text
        max_iter=config["budget"]["max_iter"],
        max_leaf_nodes=m["max_leaf_nodes"],
        min_samples_leaf=m["min_samples_leaf"],
        l2_regularization=float(m["l2_regularization"]),
        max_bins=m["max_bins"],
        loss=m["loss"],
        early_stopping=m["early_stopping"],
        random_state=config["seed"],
    )
    X, y = load_diabetes(return_X_y=True)
    X = X[:, : config["data"]["n_features"]]
    score = -float(cross_val_score(model, X, y, cv=config["data"]["folds"], scoring="neg_mean_absolute_error").mean())
    text = json.dumps({"mae": score})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)


if __name__ == "__main__":
    main()

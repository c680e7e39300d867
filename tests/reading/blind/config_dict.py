# quick baseline, no CLI
import lightgbm as lgb
import numpy as np
import pandas as pd
from sklearn.datasets import make_friedman1
from sklearn.metrics import mean_squared_error

CFG = {
    "seed": 2024,
    "n_folds": 5,
    "target": "y",
    "use_log_target": False,
    "lgb": {
        "objective": "regression",
        "metric": "rmse",
        "learning_rate": 0.03,
        "num_leaves": 63,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "min_data_in_leaf": 20,
        "lambda_l2": 1.0,
        "verbosity": -1,
    },
    "num_boost_round": 800,
    "early_stopping_rounds": 50,
}
CLIP_Q = 0.01


def features(X):
    df = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
    lo, hi = df.quantile(CLIP_Q), df.quantile(1 - CLIP_Q)
    return df.clip(lo, hi, axis=1)


def run(cfg=CFG):
    rng = np.random.default_rng(cfg["seed"])
    X, y = make_friedman1(n_samples=600, noise=1.0, random_state=cfg["seed"])
    y = np.log1p(y - y.min()) if cfg["use_log_target"] else y
    X, fold, oof = features(X), rng.integers(0, cfg["n_folds"], len(y)), np.zeros(len(y))
    for k in range(cfg["n_folds"]):
        tr, va = fold != k, fold == k
        booster = lgb.train(
            cfg["lgb"], lgb.Dataset(X[tr], y[tr]), num_boost_round=cfg["num_boost_round"],
            valid_sets=[lgb.Dataset(X[va], y[va])],
            callbacks=[lgb.early_stopping(cfg["early_stopping_rounds"], verbose=False)],
        )
        oof[va] = booster.predict(X[va])
    print("CV RMSE: %.5f" % mean_squared_error(y, oof) ** 0.5)


if __name__ == "__main__":
    run()

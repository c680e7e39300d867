"""Boosted trees on scikit-learn's breast cancer data. Style: XGBoost's own interface, settings in a table."""

import json
import os

import xgboost as xgb
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

X, y = load_breast_cancer(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)

params = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "booster": "gbtree",
    "eta": 0.1,
    "max_depth": 4,
    "min_child_weight": 1.0,
    "gamma": 0.0,
    "subsample": 0.9,
    "colsample_bytree": 0.8,
    "lambda": 1.0,
    "alpha": 0.0,
    "tree_method": "hist",
    "nthread": 1,
    "seed": 0,
    "verbosity": 0,
}
booster = xgb.train(params, xgb.DMatrix(X_train, y_train), num_boost_round=60)
prediction = booster.predict(xgb.DMatrix(X_val))
accuracy = float(((prediction > 0.5) == y_val).mean())

text = json.dumps({"val_accuracy": accuracy})
if "LLMHPO_RESULT" in os.environ:
    with open(os.environ["LLMHPO_RESULT"], "w") as file:
        file.write(text)
else:
    print(text)

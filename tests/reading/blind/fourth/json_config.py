"""Reads config.json beside it (or the file given), nothing else."""
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

cfg = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("json_config.json")).read_text())
X, y = load_digits(return_X_y=True)
X = X / cfg["data"]["scale"]
if cfg["classifier"] == "knn":
    model = KNeighborsClassifier(n_neighbors=cfg["knn"]["neighbors"], weights=cfg["knn"]["weights"])
else:
    model = LogisticRegression(C=cfg["logreg"]["C"], max_iter=cfg["logreg"]["max_iter"])
model.fit(X[:1200], y[:1200])
print(json.dumps({"error_rate": float(np.mean(model.predict(X[1200:]) != y[1200:]))}))

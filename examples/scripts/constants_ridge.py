# Kernel ridge regression on scikit-learn's diabetes. Style: no command line at all, constants at the top.
import json
import os

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import KFold

ALPHA = 1e-1  # strength of the penalty
GAMMA = 0.05
DEGREE, COEF0 = 3, 1.0
KERNEL = "rbf"
N_FOLDS = 5
SEED = 0
OUTPUT = "predictions.npy"
SCALE = 20.0  # of the inputs; not a hyperparameter by name

X, y = load_diabetes(return_X_y=True)
X = X * SCALE
total = 0.0
count = 0
for train, test in KFold(N_FOLDS, shuffle=True, random_state=SEED).split(X):
    model = KernelRidge(alpha=ALPHA, kernel=KERNEL, gamma=GAMMA, degree=DEGREE, coef0=COEF0)
    mean = y[train].mean()
    model.fit(X[train], y[train] - mean)
    residual = y[test] - mean - model.predict(X[test])
    total += float(np.square(residual).sum())
    count += len(test)

rmse = (total / count) ** 0.5
text = json.dumps({"rmse": rmse})
if "LLMHPO_RESULT" in os.environ:
    with open(os.environ["LLMHPO_RESULT"], "w") as file:
        file.write(text)
else:
    print(text)

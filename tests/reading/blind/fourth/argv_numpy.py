"""usage: argv_numpy.py [lr] [ridge] [features]"""
import sys

import numpy as np

lr = float(sys.argv[1]) if len(sys.argv) > 1 else 0.05
ridge = float(sys.argv[2]) if len(sys.argv) > 2 else 1e-3
features = int(sys.argv[3]) if len(sys.argv) > 3 else 50

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 5))
y = np.sin(X).sum(1)
W = rng.standard_normal((5, features))
Z = np.cos(X @ W)
w = np.zeros(features)
for _ in range(300):
    w -= lr * (Z[:150].T @ (Z[:150] @ w - y[:150]) / 150 + ridge * w)
print("test_mse", np.mean((Z[150:] @ w - y[150:]) ** 2))

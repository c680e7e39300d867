"""Options that are added in a loop from a table."""
import argparse

OPTIONS = {
    "lr": (float, 0.02, "learning rate"),
    "l2": (float, 1e-5, "L2 penalty"),
    "units": (int, 48, "hidden units"),
    "epochs": (int, 15, "passes"),
}

ap = argparse.ArgumentParser()
for name, (kind, default, text) in OPTIONS.items():
    ap.add_argument(f"--{name}", type=kind, default=default, help=text)
ap.add_argument("--solver", default="adam", choices=["adam", "sgd", "lbfgs"])
ap.add_argument("--early-stopping", action="store_true")
opt = ap.parse_args()

from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier

X, y = load_iris(return_X_y=True)
m = MLPClassifier((opt.units,), alpha=opt.l2, learning_rate_init=opt.lr, max_iter=opt.epochs, solver=opt.solver,
                  early_stopping=opt.early_stopping, random_state=0)
import warnings

warnings.simplefilter("ignore")
print("mean accuracy over folds:", cross_val_score(m, X, y, cv=3).mean())

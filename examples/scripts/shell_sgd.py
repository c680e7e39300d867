"""A linear classifier on scikit-learn's digits, started by shell_sgd.sh."""

import argparse
import json
import os
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import cross_val_score

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, required=True, help="strength of the penalty")
parser.add_argument("--eta0", type=float, default=0.1, help="first learning rate")
parser.add_argument("--penalty", choices=["l2", "l1", "elasticnet"], default="l2")
parser.add_argument("--l1-ratio", type=float, default=0.15, help="share of l1 in elasticnet")
parser.add_argument("--schedule", choices=["constant", "adaptive", "invscaling"], default="adaptive")
parser.add_argument("--max-iter", type=int, default=100)
parser.add_argument("--run-name", default="run")
parser.add_argument("--seed", type=int, default=0)

if __name__ == "__main__":
    args = parser.parse_args()
    model = SGDClassifier(
        alpha=args.alpha,
        eta0=args.eta0,
        penalty=args.penalty,
        l1_ratio=args.l1_ratio,
        learning_rate=args.schedule,
        max_iter=args.max_iter,
        random_state=args.seed,
    )
    X, y = load_digits(return_X_y=True)
    text = json.dumps({"accuracy": float(cross_val_score(model, X / 16, y, cv=3).mean()), "max_iter": args.max_iter})
    Path(os.environ["LLMHPO_RESULT"]).write_text(text) if "LLMHPO_RESULT" in os.environ else print(text)

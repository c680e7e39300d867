#!/usr/bin/env python
"""Forecasting models for the yearly sunspot series: `subcommands.py train ...`, `subcommands.py plot ...`."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("-v", "--verbose", action="count", default=0)
    sub = p.add_subparsers(dest="cmd", required=True)

    t = sub.add_parser("train", help="fit a model and print its validation error")
    t.add_argument("--model", choices=("gbm", "ridge"), default="gbm")
    t.add_argument("--lags", type=int, default=12, help="how many past years the model sees")
    t.add_argument("--lr", "--learning-rate", dest="learning_rate", type=positive, default=0.1)
    t.add_argument("--trees", type=int, default=80, metavar="N", help="number of boosting rounds")
    t.add_argument("--depth", type=int, default=3, choices=range(1, 9))
    t.add_argument("--subsample", type=float, default=1.0)
    t.add_argument("--alpha", type=positive, default=1.0, help="ridge penalty")
    t.add_argument("--diff", action=argparse.BooleanOptionalAction, default=False, help="model the differences instead of the levels")
    t.add_argument("--out", type=Path, default=None)
    t.add_argument("--seed", type=int, default=0)

    d = sub.add_parser("plot", help="draw a saved forecast")
    d.add_argument("file", type=Path)
    d.add_argument("--dpi", type=int, default=120)
    return p


def train(args: argparse.Namespace) -> float:
    rng = np.random.default_rng(1)
    year = np.arange(300)
    y = 50 + 45 * np.sin(2 * np.pi * year / 11) + 8 * rng.standard_normal(300)
    if args.diff:
        y = np.diff(y)
    X = np.stack([y[i : len(y) - args.lags + i] for i in range(args.lags)], axis=1)
    z = y[args.lags :]
    cut = int(0.8 * len(z))
    if args.model == "gbm":
        model = GradientBoostingRegressor(
            learning_rate=args.learning_rate,
            n_estimators=args.trees,
            max_depth=args.depth,
            subsample=args.subsample,
            random_state=args.seed,
        )
    else:
        model = Ridge(alpha=args.alpha)
    model.fit(X[:cut], z[:cut])
    return float(np.mean(np.abs(model.predict(X[cut:]) - z[cut:])))


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.cmd == "plot":
        print(json.loads(args.file.read_text()))
        return 0
    mae = train(args)
    print(f"validation MAE: {mae:.3f}")
    if args.out:
        args.out.write_text(json.dumps({"mae": mae}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""OmegaConf: structured defaults, then the command line on top (key=value)."""
from dataclasses import dataclass, field

from omegaconf import OmegaConf


@dataclass
class Tree:
    max_depth: int = 6
    eta: float = 0.3
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    reg_lambda: float = 1.0
    min_child_weight: float = 1.0


@dataclass
class Conf:
    tree: Tree = field(default_factory=Tree)
    rounds: int = 100
    test_size: float = 0.2
    seed: int = 13
    nthread: int = 1


cfg = OmegaConf.merge(OmegaConf.structured(Conf), OmegaConf.from_cli())

import xgboost as xgb
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

X, y = load_diabetes(return_X_y=True)
a, b, c, d = train_test_split(X, y, test_size=cfg.test_size, random_state=cfg.seed)
dtrain, dtest = xgb.DMatrix(a, c), xgb.DMatrix(b, d)
booster = xgb.train({**OmegaConf.to_container(cfg.tree), "nthread": cfg.nthread, "objective": "reg:squarederror"}, dtrain, cfg.rounds)
print("rmse:", float(((booster.predict(dtest) - d) ** 2).mean() ** 0.5))

"""A Hydra application that trains a small classifier and returns its error.

    python app.py                                                          # once, as configured
    python app.py -m hydra/sweeper=llmhpo hydra.sweeper.direction=minimize \\
        'model=choice(ridge,svm)' 'scale=tag(log,interval(0.01,10))'       # a study of 20 trials
"""

import hydra
import numpy as np
from omegaconf import DictConfig
from sklearn.datasets import load_wine
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    X, y = load_wine(return_X_y=True)
    model = SVC(C=1 / cfg.scale) if cfg.model.kind == "svm" else RidgeClassifier(alpha=cfg.scale)
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X[:, : cfg.columns], y, cv=3)
    return float(1 - np.mean(scores))


if __name__ == "__main__":
    main()

"""Tabular model with Hydra groups."""
import hydra
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def run(cfg: DictConfig) -> float:
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    if cfg.model.name == "gbdt":
        model = HistGradientBoostingClassifier(
            learning_rate=cfg.model.learning_rate,
            max_leaf_nodes=cfg.model.max_leaf_nodes,
            l2_regularization=cfg.model.l2,
            random_state=cfg.seed,
        )
    else:
        model = make_pipeline(StandardScaler(), SGDClassifier(alpha=cfg.model.alpha, penalty=cfg.model.penalty, random_state=cfg.seed))
    score = float(np.mean(cross_val_score(model, X, y, cv=cfg.cv.folds)))
    print("accuracy:", round(score, 4))
    return score


if __name__ == "__main__":
    run()

"""An Optuna study with llmhpo's sampler, its trials logged to MLflow by Optuna's own callback.

pip install 'llmhpo[demo]' 'optuna-integration[mlflow]'
python mlflow_logging.py && mlflow ui --backend-store-uri sqlite:///mlflow.db
"""

import sys

import optuna
from optuna_integration import MLflowCallback
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet
from sklearn.model_selection import cross_val_score

from llmhpo import LLMSampler

X, y = load_diabetes(return_X_y=True)


def objective(trial: optuna.Trial) -> float:
    model = ElasticNet(
        alpha=trial.suggest_float("alpha", 1e-4, 10.0, log=True), l1_ratio=trial.suggest_float("l1_ratio", 0.0, 1.0)
    )
    return float(-cross_val_score(model, X, y, scoring="neg_root_mean_squared_error", cv=3).mean())


def main(llm: str = "auto", n_trials: int = 20) -> optuna.Study:
    """Trials go to the MLflow experiment named like the study, a run each, with their source as a tag."""
    sampler = LLMSampler(llm, task="elastic net on 442 patients, 10 standardised columns; the metric is the RMSE")
    study = optuna.create_study(study_name="elastic-net", sampler=sampler)
    log = MLflowCallback(tracking_uri="sqlite:///mlflow.db", metric_name="rmse")
    study.optimize(objective, n_trials=n_trials, callbacks=[log])
    return study


if __name__ == "__main__":
    print(main(*sys.argv[1:2]).best_trial.params)

"""An Optuna study with llmhpo's sampler, its trials logged to Weights & Biases by Optuna's own callback.

pip install 'llmhpo[demo]' 'optuna-integration[wandb]'
python wandb_logging.py                       # WANDB_MODE=offline keeps everything in ./wandb, for `wandb sync` later
"""

import sys

import optuna
from optuna_integration import WeightsAndBiasesCallback
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
    """Trials are the steps of one run of W&B."""
    sampler = LLMSampler(llm, task="elastic net on 442 patients, 10 standardised columns; the metric is the RMSE")
    study = optuna.create_study(study_name="elastic-net", sampler=sampler)
    log = WeightsAndBiasesCallback(metric_name="rmse", wandb_kwargs={"project": "elastic-net"})
    study.optimize(objective, n_trials=n_trials, callbacks=[log])
    return study


if __name__ == "__main__":
    print(main(*sys.argv[1:2]).best_trial.params)

"""XGBoost: `xgboost.train(..., evals=[(valid, "valid")], callbacks=[ReportCallback("valid-rmse")])`, and its scikit-learn models."""

from __future__ import annotations

from typing import Any

from xgboost.callback import TrainingCallback

from llmhpo.callbacks.monitor import HandIn, Monitor


class ReportCallback(TrainingCallback):  # type: ignore[misc]
    """Reports `metric`, "DATA-METRIC" as XGBoost prints it ("validation_0-logloss"), after every round. See `Monitor`."""

    def __init__(self, metric: str, hand_in: HandIn = "last") -> None:
        super().__init__()
        self._monitor = Monitor(metric, hand_in)

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Called by XGBoost; False goes on."""
        latest = {f"{data}-{name}": values[-1] for data, log in evals_log.items() for name, values in log.items()}
        self._monitor.see({k: v[0] if isinstance(v, tuple) else v for k, v in latest.items()}, epoch)
        return False

    def after_training(self, model: Any) -> Any:
        """Called by XGBoost."""
        self._monitor.finish()
        return model

"""Hugging Face transformers: `Trainer(..., callbacks=[ReportCallback("eval_loss")])`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from llmhpo.callbacks.monitor import HandIn, Monitor


class ReportCallback(TrainerCallback):  # type: ignore[misc]
    """Reports `metric` ("eval_loss", "eval_accuracy", ...) at every evaluation. See `Monitor`."""

    def __init__(self, metric: str = "eval_loss", hand_in: HandIn = "last") -> None:
        self._monitor = Monitor(metric, hand_in)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Called by `Trainer`."""
        if state.is_world_process_zero:
            self._monitor.see(metrics or {}, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `Trainer`."""
        if state.is_world_process_zero:
            self._monitor.finish()

"""Keras: `model.fit(..., callbacks=[ReportCallback("val_loss")])`."""

from __future__ import annotations

from typing import Any

from keras.callbacks import Callback

from llmhpo.callbacks.monitor import HandIn, Monitor


class ReportCallback(Callback):  # type: ignore[misc]
    """Reports `metric` after every epoch. See `Monitor`."""

    def __init__(self, metric: str = "val_loss", hand_in: HandIn = "last") -> None:
        super().__init__()
        self._monitor = Monitor(metric, hand_in)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Called by `fit`."""
        self._monitor.see(logs or {}, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Called by `fit`."""
        self._monitor.finish()

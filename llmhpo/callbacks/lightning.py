"""Lightning: `Trainer(callbacks=[ReportCallback("val_loss")])`. For `pytorch_lightning` as well, where lightning is not installed."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback

from llmhpo.callbacks.monitor import HandIn, Monitor


class ReportCallback(Callback):  # type: ignore[misc]
    """Reports `metric`, as the module logs it, after every validation; from the process of rank 0. See `Monitor`."""

    def __init__(self, metric: str = "val_loss", hand_in: HandIn = "last") -> None:
        self._monitor = Monitor(metric, hand_in)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Called by `Trainer`."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._monitor.see(trainer.callback_metrics, trainer.current_epoch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Called by `Trainer`."""
        if trainer.is_global_zero:
            self._monitor.finish()

"""LightGBM: `lightgbm.train(..., valid_sets=[valid], callbacks=[ReportCallback("valid_0-l2")])`, and its scikit-learn models."""

from __future__ import annotations

from typing import Any

from llmhpo.callbacks.monitor import HandIn, Monitor


class ReportCallback:
    """Reports `metric`, "DATA-METRIC" ("valid_0-l2"), after every round. See `Monitor`.

    LightGBM tells a callback of no end: the value so far is handed in after every round, so that early stopping loses none.
    """

    order = 25  # before early stopping (30), which ends a round by an exception

    def __init__(self, metric: str, hand_in: HandIn = "last") -> None:
        self._monitor = Monitor(metric, hand_in)

    def __call__(self, env: Any) -> None:
        """Called by LightGBM."""
        values = {f"{data}-{name}": value for data, name, value, *_ in env.evaluation_result_list or []}
        self._monitor.see(values, env.iteration - env.begin_iteration)
        self._monitor.finish()

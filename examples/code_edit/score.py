"""The metric, taken where no candidate's code runs: from the probabilities that it wrote, and labels that it never saw."""

import numpy as np


def score(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`predictions` (n, 10), probabilities of the digits; `labels` (n,)."""
    if predictions.shape != (len(labels), 10):
        raise ValueError(f"probabilities of shape {(len(labels), 10)} are asked for, not {predictions.shape}")
    if predictions.min() < 0 or np.abs(predictions.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("a row is no distribution: its entries must be from 0 to 1 and have the sum 1")
    right = predictions[np.arange(len(labels)), labels]
    return {
        "log_loss": float(-np.log(np.clip(right, 1e-6, 1.0)).mean()),
        "accuracy": float((predictions.argmax(axis=1) == labels).mean()),
    }

"""Target transforms: what makes losses over many orders of magnitude, and diverged runs, fit for a Gaussian process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from llmhpo.surrogates.base import Array, Prediction

_LEAST_SPREAD = 1e-290  # of the range: below it the distances in units of the spread overflow


@dataclass(frozen=True, slots=True)
class Warp:
    """A monotone map, kept as knots: `losses` rising strictly, `scores` rising strictly, both (k,)."""

    losses: Array
    scores: Array

    def forward(self, losses: Array) -> Array:
        """Losses to scores of about unit scale; linear beyond the ends."""
        return _interpolate(losses, self.losses, self.scores)

    def backward(self, scores: Array) -> Array:
        """Scores to losses; beyond the ends linear at the slope of the outer fifth."""
        return _interpolate(scores, self.scores, self.losses)

    def unwarp(self, prediction: Prediction) -> Prediction:
        """A prediction in losses: the median, and half the width of the band of one standard deviation."""
        upper = self.backward(prediction.mean + prediction.std)
        lower = self.backward(prediction.mean - prediction.std)
        return Prediction(self.backward(prediction.mean), 0.5 * (upper - lower))


def fit_warp(losses: Array, normal_share: float = 0.5) -> Warp:
    """Fit to finite `losses` (n,).

    The scores are a blend: `normal_share` of normal scores by rank, which no outlier moves, and the rest a logarithm
    of the distance to the best, which keeps the distances among the good ones.
    """
    knots, counts = np.unique(losses, return_counts=True)
    if len(knots) < 2:
        return Warp(np.array([knots[0], knots[0] + 1.0]), np.array([0.0, 1.0]))
    n = len(losses)
    middle = np.cumsum(counts) - 0.5 * counts
    normal = ndtri(middle / n)
    spread = float(np.median(losses) - knots[0])
    spread = spread if spread > 0 else float(np.mean(losses) - knots[0])
    spread = max(spread, _LEAST_SPREAD * float(knots[-1] - knots[0]))
    logs = np.log1p((knots - knots[0]) / spread)
    logs = (logs - np.average(logs, weights=counts)) / max(_std(logs, counts.astype(float)), 1e-12)
    scores = normal_share * normal + (1.0 - normal_share) * logs
    apart = np.diff(knots) > 1e-290  # else the slopes between knots overflow
    keep = np.concatenate([[True], (np.diff(scores) > 1e-12) & apart])
    return Warp(knots[keep], scores[keep])


def fit_noisy_warp(losses: Array) -> Warp:
    """Fit to finite `losses` (n,) that are noisy: linear up to the median, a logarithm of the distance to it beyond.

    Equal noise among the good ones stays equal. The distances to the best value, which `fit_warp` spreads, are those to
    the luckiest one here.
    """
    knots = np.unique(losses)
    low, middle, high = np.percentile(losses, [25, 50, 75])
    spread = float(high - low) or float(knots[-1] - knots[0])
    if not spread > 0:
        return Warp(np.array([knots[0], knots[0] + 1.0]), np.array([0.0, 1.0]))
    spread = max(spread, _LEAST_SPREAD * float(knots[-1] - knots[0]))
    scores = (knots - middle) / spread
    scores = np.where(scores > 0, np.log1p(np.maximum(scores, 0.0)), scores)
    keep = np.concatenate([[True], (np.diff(scores) > 1e-12) & (np.diff(knots) > 1e-290)])
    return Warp(knots[keep], scores[keep])


def _std(values: Array, counts: Array) -> float:
    mean = np.average(values, weights=counts)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))


def _interpolate(x: Array, xs: Array, ys: Array) -> Array:
    if len(xs) < 2:
        return np.full(np.shape(x), ys[0])
    tail = max(1, len(xs) // 5)
    out: Array = np.interp(x, xs, ys)
    low = (ys[tail] - ys[0]) / (xs[tail] - xs[0])
    high = (ys[-1] - ys[-1 - tail]) / (xs[-1] - xs[-1 - tail])
    out = np.where(x < xs[0], ys[0] + low * (x - xs[0]), out)
    return np.where(x > xs[-1], ys[-1] + high * (x - xs[-1]), out)

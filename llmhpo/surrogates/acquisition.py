"""Acquisition functions, for targets to be minimised."""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx, log_ndtr

from llmhpo.surrogates.base import Array

_LOG_2PI = float(np.log(2.0 * np.pi))


def log_ei(mean: Array, std: Array, best: float) -> Array:
    """Logarithm of the expected improvement below `best`, (m,); finite however small the improvement.

    Source: Ament et al., NeurIPS 2023 (arXiv 2310.20708), equation 9.
    """
    z = (best - mean) / std
    out = np.empty_like(z)
    near = z > -1.0
    zn = z[near]
    out[near] = np.log(np.exp(-0.5 * zn * zn - 0.5 * _LOG_2PI) + zn * np.exp(log_ndtr(zn)))
    zf = z[~near]
    ratio = np.sqrt(0.5 * np.pi) * erfcx(-zf / np.sqrt(2.0)) * -zf  # -> 1 - 1 / z^2
    gap = np.where(zf < -1e4, 1.0 / np.maximum(zf * zf, 1.0), 1.0 - ratio)
    out[~near] = -0.5 * zf * zf - 0.5 * _LOG_2PI + np.log(np.maximum(gap, 1e-300))
    return out + np.log(std)

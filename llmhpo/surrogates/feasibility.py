"""How likely a trial is to end well: learned from trials that failed, so that failures never enter the objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmhpo.surrogates.base import Array
from llmhpo.surrogates.gp import GaussianProcess

_GULF = 1000.0


class Feasibility:
    """Probability of a good end over the encoded space; 1 everywhere while nothing has failed.

    A Gaussian process on labels (1 well, 0 failed), clipped to [0.02, 1]; far from all trials it returns to the share
    of trials that ended well. Least-squares classification, not calibrated: it is there to rank.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self._gp: GaussianProcess | None = None
        self._groups = groups
        self._constant = 1.0
        self._share = 0.0  # of the trials that ended well; 0 where none did, or none failed

    def fit(self, X: Array, ok: Array) -> None:
        """Fit to `X` (n, d) and `ok` (n,) of booleans."""
        ok = np.asarray(ok, dtype=bool)
        self._gp = None
        self._share = 0.0 if ok.all() else float(ok.mean())
        if ok.all():
            self._constant = 1.0
        elif not ok.any():
            self._constant = 1.0 / (len(ok) + 1.0)
        else:
            self._gp = GaussianProcess(self._groups)
            self._gp.fit(X, ok.astype(float))

    def predict(self, X: Array) -> Array:
        """Probabilities (m,)."""
        if self._gp is None:
            return np.full(len(X), self._constant)
        return np.clip(self._gp.predict(X).mean, 0.02, 1.0)

    def log_weight(self, X: Array) -> Array:
        """What to add to a logarithmic acquisition, (m,): log probability, and a gulf below where failure is expected.

        The logarithm of an acquisition falls without bound as a region is exhausted, that of a probability does not: by
        the sum alone a region that always fails would in the end be preferred to one that is merely well known.
        """
        p = self.predict(X)
        weight: Array = np.log(p) - _GULF * (p < 0.5 * self._share)
        return weight

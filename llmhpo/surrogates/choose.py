"""Which surrogate to believe: the bent Gaussian process, until another has shown that it predicts unseen trials better."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import ndtri

from llmhpo.surrogates.base import Array, CrossValidated, Posterior, Prediction
from llmhpo.surrogates.density import Density
from llmhpo.surrogates.ensemble import DeepEnsemble
from llmhpo.surrogates.fantasy import KernelState
from llmhpo.surrogates.forest import Forest
from llmhpo.surrogates.gp import GaussianProcess, Hyperparameters, State
from llmhpo.surrogates.inputwarp import InputWarp, WarpedProcess
from llmhpo.surrogates.quantile import QuantileForest

Groups = Sequence[Sequence[int]]
SURROGATES: dict[str, Callable[[Groups, bool], CrossValidated]] = {
    "warped": lambda groups, noisy: WarpedProcess(groups, noisy=noisy),
    "gp": lambda groups, noisy: GaussianProcess(groups, noisy=noisy),
    "forest": lambda _groups, _noisy: Forest(),
    "density": lambda groups, _noisy: Density(groups),
    "quantile": lambda _groups, _noisy: QuantileForest(),
    "ensemble": lambda _groups, _noisy: DeepEnsemble(),
}
CANDIDATES = ("warped", "quantile")  # the first is believed until another has shown better; see `decide`

_FROM, _GROWTH, _MOST = 60, 1.25, 150  # no gain was seen at 50 rows; more rows would decide a little better, and cost
_OPTIMISM = 10.0  # nats: a process has seen the rows it is judged by when its hyperparameters were fitted
_FITTED_TO_ALL = frozenset({"warped", "gp"})
_STD_FLOOR, _WORST = 0.03, -20.0  # tied rows and single outliers must not decide
_REMEMBERED = 64
_T = TypeVar("_T")
_decisions: OrderedDict[bytes, str] = OrderedDict()
_tunings: OrderedDict[bytes, tuple[InputWarp, Hyperparameters]] = OrderedDict()


class Chosen(NamedTuple):
    """A fitted surrogate under its name in `SURROGATES`."""

    name: str
    model: CrossValidated
    groups: Groups

    def predict(self, X: Array) -> Prediction:
        """Mean and standard deviation at `X` (m, d)."""
        return self.model.predict(X)

    def state(self, X: Array) -> Posterior:
        """Predictions at `X` (m, d) in a form that takes fantasies."""
        if isinstance(self.model, GaussianProcess | WarpedProcess):
            return self.model.state(X)
        return KernelState(self.model.predict(X), X, self.groups)

    def after(self, posterior: Posterior, X: Array) -> Posterior:
        """A posterior of this surrogate where points `X` (k, d) beside its own were observed at their means, before any `believe`."""
        if isinstance(posterior, State) and isinstance(self.model, GaussianProcess | WarpedProcess):
            return posterior.after(*self.model.points(X))
        assert isinstance(posterior, KernelState)
        return posterior.after(X)


def choose(
    X: Array,
    z: Array,
    groups: Groups,
    *,
    noisy: bool = False,
    candidates: Sequence[str] = CANDIDATES,
    history: tuple[Array, Array] | None = None,
    tuned_on: tuple[Array, Array] | None = None,
) -> Chosen:
    """The surrogate that the data speak for, fitted to `X` (n, d) and `z` (n,).

    Where these are a subset of more trials, `history` has the first of all, in the order of the trials, so that the decision
    need not be taken anew at every trial; and `tuned_on` those rows that the process's hyperparameters are found from, for the same
    reason. What was found for them before is remembered.
    """
    name = decide(*(history or (X, z)), groups, noisy=noisy, candidates=candidates)
    model = SURROGATES[name](groups, noisy)
    if tuned_on is not None and isinstance(model, WarpedProcess):
        rows, targets = (np.ascontiguousarray(part) for part in tuned_on)
        key = _digest((tuple(map(tuple, groups)), noisy), rows, targets)
        model.fit_known(X, z, _remembered(_tunings, key, lambda: model.tune(rows, targets)))
    else:
        model.fit(X, z)
    return Chosen(name, model, groups)


def decide(X: Array, z: Array, groups: Groups, *, noisy: bool = False, candidates: Sequence[str] = CANDIDATES) -> str:
    """The name of the candidate that predicts unseen rows best, by log-likelihood; the first one unless it is clear.

    Each candidate predicts rows that it was not fitted to (leave-one-out in closed form, trees that have not seen the
    row). Another than the first is chosen where its mean log-likelihood is better by one standard error of the
    differences, after ten nats are charged to processes for hyperparameters that have seen all rows. It is a function
    of the configurations and the ranks of the targets of the first `decided_by` rows: a restart decides alike, a
    change of scale changes nothing, and a decision holds until there are a quarter more rows. Remembered decisions only
    save time.
    """
    m = decided_by(len(z))
    if m == 0 or len(candidates) == 1:
        return candidates[0]
    X, targets = np.ascontiguousarray(X[:m], dtype=float), _normal_scores(np.asarray(z)[:m])
    key = _digest((tuple(candidates), tuple(map(tuple, groups)), noisy), X, targets)
    return _remembered(_decisions, key, lambda: _best(X, targets, groups, noisy, candidates))


def _digest(question: object, X: Array, targets: Array) -> bytes:
    return hashlib.sha256(repr((question, X.shape)).encode() + X.tobytes() + targets.tobytes()).digest()


def _remembered(memory: OrderedDict[bytes, _T], key: bytes, work: Callable[[], _T]) -> _T:
    if key not in memory:
        memory[key] = work()
        while len(memory) > _REMEMBERED:
            memory.popitem(last=False)
    return memory[key]


def forget() -> None:
    """Forget remembered decisions and hyperparameters: to measure what one takes, or that a restart takes the same."""
    _decisions.clear()
    _tunings.clear()


def decided_by(n: int) -> int:
    """How many of `n` rows, the first ones, decide: 0 below 60, then in steps of a quarter, at most 150."""
    if n < _FROM:
        return 0
    m = _FROM
    while int(m * _GROWTH) <= min(n, _MOST):
        m = int(m * _GROWTH)
    return m


def log_likelihoods(model: CrossValidated, z: Array) -> Array:
    """Log densities of the fitted targets `z` (n,) under the model's held-out predictions, (n,)."""
    prediction = model.held_out()
    std = np.maximum(prediction.std, _STD_FLOOR * float(z.std()) + 1e-12)
    density: Array = -0.5 * ((z - prediction.mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    return np.maximum(density, _WORST)


def _best(X: Array, z: Array, groups: Groups, noisy: bool, candidates: Sequence[str]) -> str:
    believed: Array | None = None
    best, most = candidates[0], 0.0
    for name in candidates:
        model = SURROGATES[name](groups, noisy)
        model.fit(X, z)
        score = log_likelihoods(model, z) - (_OPTIMISM / len(z) if name in _FITTED_TO_ALL else 0.0)
        if believed is None:
            believed = score
            continue
        gain = score - believed
        margin = float(gain.mean() - gain.std() / np.sqrt(len(z)))
        if margin > most:
            best, most = name, margin
    return best


def _normal_scores(z: Array) -> Array:
    """Of each target by its rank, (n,); equal targets share the middle of theirs."""
    _, which, counts = np.unique(z, return_inverse=True, return_counts=True)
    scores: Array = ndtri((np.cumsum(counts) - 0.5 * counts) / len(z))[which]
    return scores

"""Who has earned how much say: learned from what each source's trials achieved, and recomputed from the history alone."""

from __future__ import annotations

import math

import numpy as np

from llmhpo.columns import Columns, columns
from llmhpo.trial import REPEAT, Context

_PRIOR_ODDS = 4.0  # that a model knows something; most that people point at do
UNTRIED = _PRIOR_ODDS / (1.0 + _PRIOR_ODDS)  # trust in a model of which nothing has been tried
_COMPACT_ODDS = 0.4  # of one of a few hundred million weights: a fair guess, no more
_KNOWING = 3.0  # share of others that a knowing model's trial beats: Beta(3, 1)
_ENOUGH_OTHERS = 3  # trials to compare with for full evidence
_GAIN_PRIOR = (1.0, 4.0)  # of Beta: one trial in five improves on the best
_MEMORY = 0.9  # what a trial of a source still counts after the source's next one
_REMEMBERED = 400  # trials of a source: 0.9 to that power is nothing
_PLATEAU = 8  # trials without improvement, at least


def trust(context: Context, *, compact: bool = False) -> float:
    """Probability that the model's proposals are better than anybody's, in [0, 1].

    Each of its trials is evidence: the share w of the other sources' trials that it beats is Beta(3, 1) for a model that
    knows something and uniform for one that does not; a failed trial beats none. Few trials to compare with are weak
    evidence. Without evidence it is 0.8, and 0.29 for a `compact` model.
    """
    evidence = columns(context).results.once("evidence", lambda: _evidence(columns(context)))
    log_odds = math.log(_COMPACT_ODDS if compact else _PRIOR_ODDS) + evidence
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, log_odds))))


def credit(context: Context) -> float:
    """What a model's words count, in [0, 1]: all as long as its trials take nothing from the trust it began with."""
    return min(1.0, trust(context) / UNTRIED)


def _evidence(table: Columns) -> float:
    """Logarithm of the odds that the model's trials add."""
    results = table.results
    others = np.sort(results.losses[~table.of("llm", REPEAT)[results.ok]])
    if len(others) == 0:
        return 0.0
    by_model = table.of("llm")
    failures = int(by_model[results.ended[results.failed]].sum())
    losses = results.losses[by_model[results.ok]]
    above = len(others) - np.searchsorted(others, losses, side="right")
    equal = np.searchsorted(others, losses, side="right") - np.searchsorted(others, losses, side="left")
    won = np.concatenate([above + 0.5 * equal, np.zeros(failures)])
    each = math.log(_KNOWING) + (_KNOWING - 1.0) * np.log((won + 0.5) / (len(others) + 1))
    return min(1.0, len(others) / _ENOUGH_OTHERS) * math.fsum(each)


def gains(context: Context) -> dict[str, float]:
    """Source -> how likely its next trial improves on the best: mean of a Beta that forgets, failed trials counted as none."""
    return columns(context).results.once("gains", lambda: _gains(columns(context)))


def _gains(table: Columns) -> dict[str, float]:
    results = table.results
    losses = np.full(len(table.trials), np.inf)
    losses[results.ok] = results.losses
    counted = results.ended[~table.of(REPEAT)[results.ended]]
    losses = losses[counted]
    before = np.minimum.accumulate(np.append(np.inf, losses))[:-1]
    gained = np.where(np.isfinite(before) | np.isinf(losses), losses < before, 0.5)
    one, zero = _GAIN_PRIOR
    means = {}
    for source in table.sources:
        latest = gained[table.of(source)[counted]][-_REMEMBERED:][::-1]
        weights = _MEMORY ** np.arange(len(latest))
        if len(latest):
            a, total = float(weights @ latest), float(weights.sum())
            means[source] = (one + a) / (one + zero + total)
    return means


def unknown_gain() -> float:
    """What `gains` would say of a source without trials."""
    return _GAIN_PRIOR[0] / sum(_GAIN_PRIOR)


def plateaued(context: Context) -> bool:
    """Whether the last third of the trials, and at least eight, brought no improvement."""
    losses = columns(context).results.losses
    quiet = max(_PLATEAU, len(losses) // 3)
    return len(losses) > quiet and bool(losses[-quiet:].min() >= losses[:-quiet].min())

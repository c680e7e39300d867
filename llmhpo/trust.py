"""Who has earned how much say: learned from what each source's trials achieved, and recomputed from the history alone."""

from __future__ import annotations

import math

from llmhpo.trial import REPEAT, Context, Trial

_PRIOR_ODDS = 4.0  # that a model knows something; most that people point at do
UNTRIED = _PRIOR_ODDS / (1.0 + _PRIOR_ODDS)  # trust in a model of which nothing has been tried
_COMPACT_ODDS = 0.4  # of one of a few hundred million weights: a fair guess, no more
_KNOWING = 3.0  # share of others that a knowing model's trial beats: Beta(3, 1)
_ENOUGH_OTHERS = 3  # trials to compare with for full evidence
_GAIN_PRIOR = (1.0, 4.0)  # of Beta: one trial in five improves on the best
_MEMORY = 0.9  # what a trial of a source still counts after the source's next one
_PLATEAU = 8  # trials without improvement, at least


def trust(context: Context, *, compact: bool = False) -> float:
    """Probability that the model's proposals are better than anybody's, in [0, 1].

    Each of its trials is evidence: the share w of the other sources' trials that it beats is Beta(3, 1) for a model that
    knows something and uniform for one that does not; a failed trial beats none. Few trials to compare with are weak
    evidence. Without evidence it is 0.8, and 0.29 for a `compact` model.
    """
    others = [
        context.task.loss(t.value)
        for t in context.finished
        if t.proposal.source not in ("llm", REPEAT) and t.value is not None
    ]
    log_odds = math.log(_COMPACT_ODDS if compact else _PRIOR_ODDS)
    if others:
        weight = min(1.0, len(others) / _ENOUGH_OTHERS)
        for trial in context.trials:
            if trial.proposal.source == "llm" and trial.outcome is not None:
                log_odds += weight * _evidence(context, trial, others)
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, log_odds))))


def credit(context: Context) -> float:
    """What a model's words count, in [0, 1]: all as long as its trials take nothing from the trust it began with."""
    return min(1.0, trust(context) / UNTRIED)


def _evidence(context: Context, trial: Trial, others: list[float]) -> float:
    won = 0.0
    if trial.value is not None:
        loss = context.task.loss(trial.value)
        won = sum((loss < o) + 0.5 * (loss == o) for o in others)
    share = (won + 0.5) / (len(others) + 1)
    return math.log(_KNOWING) + (_KNOWING - 1.0) * math.log(share)


def gains(context: Context) -> dict[str, float]:
    """Source -> how likely its next trial improves on the best: mean of a Beta that forgets, failed trials counted as none."""
    a: dict[str, float] = {}
    b: dict[str, float] = {}
    best = math.inf
    for trial in context.trials:
        if trial.outcome is None or trial.proposal.source == REPEAT:
            continue
        source = trial.proposal.source
        loss = math.inf if trial.value is None else context.task.loss(trial.value)
        gain = float(loss < best) if math.isfinite(best) or trial.value is None else 0.5
        best = min(best, loss)
        a[source] = _MEMORY * a.get(source, 0.0) + gain
        b[source] = _MEMORY * b.get(source, 0.0) + 1.0 - gain
    one, zero = _GAIN_PRIOR
    return {s: (one + a[s]) / (one + zero + a[s] + b[s]) for s in a}


def unknown_gain() -> float:
    """What `gains` would say of a source without trials."""
    return _GAIN_PRIOR[0] / sum(_GAIN_PRIOR)


def plateaued(context: Context) -> bool:
    """Whether the last third of the trials, and at least eight, brought no improvement."""
    losses = [context.task.loss(t.value) for t in context.finished if t.value is not None]
    quiet = max(_PLATEAU, len(losses) // 3)
    return len(losses) > quiet and min(losses[-quiet:]) >= min(losses[:-quiet])

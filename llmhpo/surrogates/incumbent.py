"""Which configuration is the best so far: the one best observed, or, where values are noisy, the one expected to be best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one configuration that was run at least once. Values in the metric's own units.

    `trial` is its first one that ended well, `n` how many did, `open` how many run. `mean` is the plain mean of their
    values; `value` and `std` are the surrogate's: that mean shrunk towards what similar configurations gave, and how
    uncertain it still is.
    """

    trial: Trial
    n: int
    open: int
    mean: float
    value: float
    std: float


def estimates(context: Context) -> list[Estimate]:
    """All configurations that ended well, the best expected value first; the earlier of equals.

    Revisions of the code know nothing of each other here: the same configuration of two of them is two.
    """
    codes = dict.fromkeys(t.proposal.code for t in context.finished)
    parts = [context.within(code) for code in codes] if len(codes) > 1 else [context]
    known = [e for part in parts for e in _estimates(part)]
    return sorted(known, key=lambda e: (context.task.loss(e.value), e.trial.number))


def _estimates(context: Context) -> list[Estimate]:
    """Of one revision of the code, in the order of their first trials."""
    groups: dict[str, list[Trial]] = {}
    for trial in context.finished:
        groups.setdefault(context.space.key(trial.params), []).append(trial)
    if not groups:
        return []
    running = [context.space.key(t.params) for t in context.pending]
    means = [_mean(trials) for trials in groups.values()]
    prediction = fit_screen(context).predict([trials[0].params for trials in groups.values()])
    fitted = fit_screen(context).fitted
    return [
        Estimate(trials[0], len(trials), running.count(key), mean, value if fitted else mean, std)
        for (key, trials), mean, value, std in zip(
            groups.items(), means, prediction.mean.tolist(), prediction.std.tolist(), strict=True
        )
    ]


def incumbent(context: Context) -> Trial | None:
    """The trial that stands for the best configuration; None while none ended well.

    With a noisy task it is the first trial of the configuration with the best `Estimate.value`, whose own value may be
    worse than another's. Else it is the trial with the best value.
    """
    if not context.task.noisy:
        return context.best
    return next((e.trial for e in estimates(context)), None)


def settled(context: Context) -> Context:
    """The context with each configuration once, its value the expected one: what a reader without statistics is shown.

    A context of an exact task is returned as it is.
    """
    if not context.task.noisy:
        return context
    merged = {e.trial.number: _with_value(e.trial, e.value) for e in estimates(context)}
    trials = [merged.get(t.number, t) for t in context.trials if t.value is None or t.number in merged]
    return replace(context, trials=tuple(trials))


def _with_value(trial: Trial, value: float) -> Trial:
    assert isinstance(trial.outcome, Outcome)
    return replace(trial, outcome=replace(trial.outcome, value=value))


def _mean(trials: Sequence[Trial]) -> float:
    return float(np.mean([t.value for t in trials if t.value is not None]))

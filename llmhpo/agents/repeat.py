"""When to run a configuration again: where values are noisy and it is open which of the leaders is the best."""

from __future__ import annotations

import math

import numpy as np

from llmhpo.columns import columns
from llmhpo.surrogates.incumbent import Estimate, estimates
from llmhpo.trial import CARRIED, IMPORTED, REPEAT, Context, Proposal

_FROM = 8  # trials before the first repeat: what else there is, is not known yet
_SHARE = 0.12  # of the trials, at most and at the end; before, as much less as budget is left: with a quarter the search lost
# more by the configurations it did not see (its best one was at .107 instead of .084) than the choice gained
_UNKNOWN_PROGRESS = 0.5  # of a study whose end is not known
_MOST = 6  # runs of one configuration
_DOUBT = 1.0  # standard deviations by which two leaders must lie apart
_ELSEWHERE = (CARRIED, IMPORTED)  # what others have run is not run again here
_NEGLIGIBLE = 0.01  # uncertainty, as a share of the spread of all values, that is not worth a trial


def repeat_proposal(context: Context) -> Proposal | None:
    """The configuration to run once more, if any is: the leader or its closest rival, whichever is known worse.

    None for an exact task, while there are few trials, when repeats have had their share of them, and where leader and
    rivals lie further apart than they are uncertain.
    Source: the leader and its upper-confidence challenger, LUCB, Kalyanakrishnan et al., ICML 2012.
    """
    if not context.task.noisy:
        return None
    table = columns(context)
    begun = len(context.trials) - int(table.of(*_ELSEWHERE).sum())
    if begun < _FROM:
        return None
    repeats = int(table.of(REPEAT).sum())
    left = context.budget_left
    progress = _UNKNOWN_PROGRESS if left is None else begun / (begun + left)
    if repeats + 1 > _SHARE * progress * (begun + 1):
        return None
    known = [e for e in estimates(context) if e.trial.proposal.source not in _ELSEWHERE]
    if len(known) < 2:
        return None
    chosen = _most_doubtful(context, known)
    if chosen is None:
        return None
    value = f"{chosen.value:.4g} +- {chosen.std:.2g}"
    why = f"run {chosen.n + chosen.open + 1} of trial {chosen.trial.number}'s configuration, expected at {value} so far"
    return Proposal(context.space.complete(chosen.trial.params), REPEAT, why)


def _most_doubtful(context: Context, known: list[Estimate]) -> Estimate | None:
    """The leader, which is the first of the `known`, or its rival: whichever another run teaches more about."""
    loss = context.task.loss
    leader = known[0]
    rival = min(known[1:], key=lambda e: loss(e.value) - _DOUBT * e.std)
    apart = loss(rival.value) - loss(leader.value)
    spread = float(np.subtract(*np.percentile([e.mean for e in known], [75, 25])))
    open_ = [e for e in (leader, rival) if e.n + e.open < _MOST and e.std > _NEGLIGIBLE * spread]
    if not open_ or apart > _DOUBT * math.hypot(leader.std, rival.std):
        return None
    return max(open_, key=lambda e: e.std / math.sqrt(1 + e.open))

"""What a revision takes over from the one it was made from: its best configuration, and what its trials have shown."""

from __future__ import annotations

import math
from dataclasses import replace

from llmhpo.agents.edit.tree import paired_value, parent_code
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import CARRIED, Context, Trial


def inherited(params: Params, space: SearchSpace) -> Params | None:
    """A configuration of another revision in `space`: defaults for what it lacks; None where it does not fit."""
    whole = {**space.default(), **{name: value for name, value in params.items() if name in space}}
    fitted = space.coerce(space.drop_inactive(whole))
    return fitted if isinstance(fitted, dict) else None


def with_inheritance(context: Context, code: str) -> Context:
    """The context of one revision, and before its own trials those of its ancestors, as if it had run them.

    A parameter that they did not have takes its default. Their values are moved by what the edits between changed at the
    configurations that were run on both sides, so that what is carried over says where to look, and not how good it is.
    """
    own = context.within(code)
    seen = {own.space.key(t.params) for t in own.trials}
    carried: list[Trial] = []
    shift = 0.0
    for revision in reversed(context.lineage(code)):
        parent = parent_code(context, revision)
        shift += _effect(context, revision.id, parent)
        for trial in reversed(context.within(parent).finished):
            params = inherited(trial.params, own.space)
            if params is None or (key := own.space.key(params)) in seen or trial.value is None:
                continue
            if not math.isfinite(trial.value + shift):  # a training that diverged says where nothing is to be found
                continue
            seen.add(key)
            carried.append(_carried(trial, params, trial.value + shift, code))
    return replace(own, trials=(*sorted(carried, key=lambda t: t.number), *own.trials))


def _effect(context: Context, code: str, parent: str) -> float:
    """By how much an edit moved the value where it was run as its parent had been; 0 where it was not."""
    for trial in context.within(code).finished:
        if (before := paired_value(context, parent, trial)) is not None and trial.value is not None:
            return trial.value - before
    return 0.0


def _carried(trial: Trial, params: Params, value: float, code: str) -> Trial:
    assert trial.outcome is not None
    proposal = replace(trial.proposal, params=params, source=CARRIED, code=code)
    return replace(trial, proposal=proposal, outcome=replace(trial.outcome, value=value), evaluated=None)

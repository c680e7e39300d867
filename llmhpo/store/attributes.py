"""Our types as attributes of Optuna's trials and studies, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, cast

from optuna.trial import FrozenTrial, TrialState

from llmhpo.revision import Revision
from llmhpo.steering import Steering
from llmhpo.store.ledger import batch_from_dict, code_record, trust_record
from llmhpo.store.rows import Ending
from llmhpo.transfer import Transfer
from llmhpo.trial import Attempt, Batch, Outcome, Params, Proposal, Provenance, Trial

PREFIX = "llmhpo:"  # of a study's attributes
EVALUATED = "evaluated"
ATTEMPT = "attempt:"
_CURVE_POINTS = 100  # intermediate values written to Optuna for its plots; the whole curve lies in the attribute

STATES = {
    "ok": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "timeout": TrialState.FAIL,
    "oom": TrialState.FAIL,
    "invalid": TrialState.FAIL,
}


def proposal_attrs(proposal: Proposal) -> dict[str, Any]:
    """What Optuna has no place for in a proposal."""
    attrs: dict[str, Any] = {"source": proposal.source}
    if proposal.rationale:
        attrs["rationale"] = proposal.rationale
    if proposal.provenance is not None:
        attrs["provenance"] = asdict(proposal.provenance)
    return attrs | code_record(proposal)


def outcome_attrs(outcome: Outcome) -> dict[str, Any]:
    """What Optuna has no place for in an outcome."""
    attrs: dict[str, Any] = {"status": outcome.status, "seconds": round(outcome.seconds, 6)}
    if outcome.metrics:
        attrs["metrics"] = dict(outcome.metrics)
    if outcome.curve:
        attrs["curve"] = [list(point) for point in outcome.curve]
    if outcome.message:
        attrs["message"] = outcome.message
    if outcome.log_tail:
        attrs["log_tail"] = outcome.log_tail
    return attrs | trust_record(outcome)


def trial_from_optuna(frozen: FrozenTrial) -> Trial:
    """Our trial from Optuna's."""
    attrs = frozen.user_attrs
    provenance = attrs.get("provenance")
    proposal = Proposal(
        cast("Params", dict(frozen.params)),
        attrs.get("source", "unknown"),
        attrs.get("rationale", ""),
        None if provenance is None else Provenance(**provenance),
        attrs.get("code", ""),
        attrs.get("twin"),
    )
    if not frozen.state.is_finished():
        return Trial(frozen.number, proposal)
    ok = frozen.state == TrialState.COMPLETE and frozen.value is not None and math.isfinite(frozen.value)
    outcome = Outcome(
        status="ok" if ok else attrs.get("status", "failed"),
        value=frozen.value if ok else None,
        seconds=float(attrs.get("seconds", 0.0)),
        metrics=attrs.get("metrics", {}),
        curve=tuple((int(step), float(value)) for step, value in attrs.get("curve", ())),
        message=attrs.get("message", ""),
        log_tail=attrs.get("log_tail", ""),
        self_reported=bool(attrs.get("self_reported", False)),
        fingerprint=attrs.get("fingerprint", ""),
        flags=tuple(attrs.get("flags", ())),
        sandbox=attrs.get("sandbox", ""),
    )
    return Trial(frozen.number, proposal, outcome, attrs.get(EVALUATED))


def ending(trial: Trial) -> Ending:
    """How a trial that has an outcome ended, as it is written."""
    outcome = trial.outcome
    assert outcome is not None
    attrs = outcome_attrs(outcome)
    if trial.evaluated is not None:
        attrs[EVALUATED] = trial.evaluated
    curve = outcome.curve[:: max(1, -(-len(outcome.curve) // _CURVE_POINTS))]
    return Ending(trial.number, STATES[outcome.status], outcome.value, curve, attrs)


def attempt_attrs(attempt: Attempt) -> dict[str, Any]:
    """A launch of a trial."""
    return {f"{ATTEMPT}{attempt.index:03d}": asdict(attempt)}


def read_batches(attrs: Mapping[str, Any]) -> list[Batch]:
    """The consultations in a study's attributes, in order."""
    names = sorted(name for name in attrs if name.startswith(PREFIX + "batch:"))
    return [batch_from_dict(attrs[name]) for name in names]


def read_steering(attrs: Mapping[str, Any]) -> list[Steering]:
    """What the person has said since the study began, in order; the last one holds."""
    names = sorted(name for name in attrs if name.startswith(PREFIX + "steering:"))
    return [Steering.from_dict(attrs[name]) for name in names]


def read_baseline(attrs: Mapping[str, Any]) -> Revision | None:
    """The code that a study's edits start from; None where code is not edited."""
    raw = attrs.get(PREFIX + "baseline")
    return None if raw is None else Revision.from_dict(raw)


def read_transfers(attrs: Mapping[str, Any]) -> list[Transfer]:
    """What a study took over from others, in order."""
    names = sorted(name for name in attrs if name.startswith(PREFIX + "transfer:"))
    return [Transfer(**{**attrs[name], "ignored": tuple(attrs[name]["ignored"])}) for name in names]


def read_attempts(frozen: FrozenTrial) -> tuple[Attempt, ...]:
    """The launches of a trial, in order."""
    names = sorted(name for name in frozen.user_attrs if name.startswith(ATTEMPT))
    return tuple(Attempt(**frozen.user_attrs[name]) for name in names)


def without_secrets(outcome: Outcome, redact: Callable[[str], str]) -> Outcome:
    """An outcome with the secrets taken out of what its job said."""
    return replace(outcome, message=redact(outcome.message), log_tail=redact(outcome.log_tail))

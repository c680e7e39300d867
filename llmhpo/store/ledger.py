"""What a study has come to, as plain JSON: the form in which store and event log are compared, and decisions are run again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from llmhpo.prior import prior_from_dict
from llmhpo.revision import Revision
from llmhpo.store.journal import Entry, Journal
from llmhpo.trial import IMPORTED, Batch, Context, Outcome, Part, Proposal, Provenance, Tally, Trial
from llmhpo.usage import Usage

Record = dict[str, Any]
_REDACTED = re.escape(json.dumps("[key]")[1:-1])


@dataclass(slots=True)
class Ledger:
    """Trials and consultations by number, and `about`: name, seed, space and task of the study.

    An `end` holds `outcome` and `evaluated` of a trial that has ended; `baseline` is the code that may be edited, if any;
    `steering` what the person has said last.
    `asked` is the most that a request to the model may cost which has no answer yet, `lost` the same of those that never will.
    """

    about: Record = field(default_factory=dict)
    proposals: dict[int, Record] = field(default_factory=dict)
    ends: dict[int, Record] = field(default_factory=dict)
    batches: list[Record] = field(default_factory=list)
    baseline: Record | None = None
    steering: Record = field(default_factory=dict)
    asked: Usage = field(default_factory=Usage)
    lost: Usage = field(default_factory=Usage)

    @classmethod
    def of(cls, about: Record, context: Context) -> Self:
        """What a store holds."""
        ledger = cls(about, baseline=None if context.baseline is None else context.baseline.to_dict())
        for trial in context.trials:
            ledger.proposals[trial.number] = proposal_record(trial.proposal)
            if trial.outcome is not None:
                ledger.ends[trial.number] = end_record(trial)
        ledger.batches = [batch_record(b) for b in context.batches]
        ledger.steering = json.loads(json.dumps(context.steering.to_dict()))
        return ledger

    @classmethod
    def read(cls, entries: Iterable[Entry]) -> Self:
        """What a log tells."""
        ledger = cls()
        for entry in entries:
            ledger.apply(entry)
        return ledger

    def apply(self, entry: Entry) -> None:
        """Take in the next event of a log."""
        data = entry.data
        if entry.kind == "open":
            self.about = {k: data[k] for k in ("study", "seed", "space", "task")}
            self.lost, self.asked = Usage(**data.get("lost", {})), Usage()
        elif entry.kind == "asking":
            self.lost, self.asked = self.lost + self.asked, Usage(**data["at_most"])
        elif entry.kind == "request":
            self.asked = Usage()
        elif entry.kind == "decision":
            self.proposals[int(data["number"])] = data["proposal"]
        elif entry.kind == "result":
            self.ends[int(data["number"])] = {"outcome": data["outcome"], "evaluated": data["evaluated"]}
        elif entry.kind == "consulted":
            self.batches.append(data["batch"])
            if data["batch"]["usage"]["calls"]:  # the request is counted there
                self.asked = replace(self.asked, calls=0)
        elif entry.kind == "baseline":
            self.baseline = data["revision"]
        elif entry.kind == "steered":
            self.steering = data["steering"]
        elif entry.kind == "imported":
            self.proposals |= {int(n): t["proposal"] for n, t in data["trials"].items()}
            self.ends |= {int(n): {"outcome": t["outcome"], "evaluated": None} for n, t in data["trials"].items()}
        elif entry.kind == "snapshot":
            self.proposals = {int(n): p for n, p in data["proposals"].items()}
            self.ends = {int(n): e for n, e in data["ends"].items()}
            self.batches = list(data["batches"])
            self.baseline = data.get("baseline")
            self.steering = data.get("steering", {})

    def snapshot(self) -> Record:
        """All of it, as the data of an event."""
        whole: Record = {"proposals": self.proposals, "ends": self.ends, "batches": self.batches}
        whole |= {"steering": self.steering} if self.steering else {}
        return whole if self.baseline is None else whole | {"baseline": self.baseline}

    @property
    def is_empty(self) -> bool:
        """Whether nothing has happened yet."""
        return not (self.proposals or self.ends or self.batches or self.steering)

    def contradictions(self, kept: Self) -> list[str]:
        """What this log says and the store that is `kept` does not, one line each."""
        out = [
            f"the log is of {name} {self.about[name]!r}, the store of {kept.about[name]!r}"
            for name in ("study", "seed")
            if self.about and self.about[name] != kept.about[name]
        ]
        if self.baseline is not None and self.baseline != kept.baseline:
            out.append("the log began with another state of the code than the store")
        for what, mine, theirs in (
            ("proposal of trial", self.proposals, kept.proposals),
            ("result of trial", self.ends, kept.ends),
            ("consultation", dict(enumerate(self.batches)), dict(enumerate(kept.batches))),
        ):
            out += [f"{what} {n} is in the log and not in the store" for n in mine if n not in theirs]
            out += [
                f"{what} {n} is another in the log than in the store"
                for n in mine
                if n in theirs and not _is_same(mine[n], theirs[n])
            ]
        return out

    def missing(self, kept: Self) -> list[tuple[str, Record]]:
        """The events that would bring this log up to the store that is `kept`."""
        out: list[tuple[str, Record]] = []
        if self.baseline is None and kept.baseline is not None:
            out.append(("baseline", {"revision": kept.baseline}))
        if kept.steering and not _is_same(self.steering, kept.steering):
            out.append(("steered", {"steering": kept.steering}))
        out += [
            ("consulted", {"number": n, "batch": batch})
            for n, batch in enumerate(kept.batches)
            if n >= len(self.batches)
        ]
        foreign = {n for n, p in kept.proposals.items() if n not in self.proposals and p["source"] == IMPORTED}
        if foreign:  # committed together, and logged so
            trials = {n: {"proposal": kept.proposals[n], **kept.ends[n]} for n in sorted(foreign)}
            out.append(("imported", {"trials": trials}))
        for n in sorted(kept.proposals.keys() - foreign):
            if n not in self.proposals:
                out.append(("decision", {"number": n, "budget_left": None, "proposal": kept.proposals[n]}))
            if n in kept.ends and n not in self.ends:
                out.append(("result", {"number": n, **kept.ends[n]}))
        return out


def bring_together(journal: Journal, kept: Ledger, most: int) -> Usage:
    """Make the log of a study tell what its store has `kept`, which is the truth; what lost requests may have cost.

    A crash keeps `most` events from the log. One that lacks more, or contradicts the store, is set aside.
    """
    logged = Ledger.read(journal.entries)
    lost = logged.lost + logged.asked
    missing, wrong = logged.missing(kept), logged.contradictions(kept)
    if journal.entries and (wrong or len(missing) > most):
        journal.set_aside(wrong[0] if wrong else f"it lacks {len(missing)} events of what the store holds")
        logged = Ledger()
    if logged.is_empty and not kept.is_empty and len(missing) > most:
        journal.append("snapshot", kept.snapshot())
    else:
        for kind, data in logged.missing(kept):
            journal.append(kind, {**data, "recovered": True})
    journal.forget()
    return lost


def _is_same(logged: object, kept: object) -> bool:
    """Whether both say the same, where the log may have a secret left out."""
    if logged == kept:
        return True
    a, b = (json.dumps(x, sort_keys=True) for x in (logged, kept))
    if a == b or "[key]" not in a:
        return a == b
    return re.fullmatch(re.escape(a).replace(_REDACTED, ".+?"), b) is not None


# --- our types as JSON ------------------------------------------------------------------------------------------------


def proposal_record(proposal: Proposal) -> Record:
    """A proposal as JSON reads it back."""
    provenance = None if proposal.provenance is None else asdict(proposal.provenance)
    record: Record = {
        "params": dict(proposal.params),
        "source": proposal.source,
        "rationale": proposal.rationale,
        "provenance": provenance,
    }
    return record | code_record(proposal)


def code_record(proposal: Proposal) -> Record:
    """What belongs to edited code in a proposal, as JSON; left out where code is not edited, as in studies of old."""
    record: Record = {} if proposal.code == "" else {"code": proposal.code}
    return record if proposal.twin is None else record | {"twin": proposal.twin}


def end_record(trial: Trial) -> Record:
    """How a trial ended, its curve and output left out: no proposer reads them."""
    assert trial.outcome is not None
    outcome: Record = {
        "status": trial.outcome.status,
        "value": trial.outcome.value,
        "seconds": round(trial.outcome.seconds, 6),  # as the store keeps it
        "metrics": dict(trial.outcome.metrics),
        "curve": [],
        "message": trial.outcome.message,
        "log_tail": "",
    }
    return {"outcome": outcome | trust_record(trial.outcome), "evaluated": trial.evaluated}


def trust_record(outcome: Outcome) -> Record:
    """What says how far an outcome is to be trusted, as JSON; what is not set is left out, as in studies of old."""
    record: Record = {
        "self_reported": outcome.self_reported,
        "fingerprint": outcome.fingerprint,
        "flags": list(outcome.flags),
        "sandbox": outcome.sandbox,
    }
    return {name: value for name, value in record.items() if value}


def batch_record(batch: Batch) -> Record:
    """A consultation as JSON reads it back."""
    record: Record = json.loads(json.dumps(asdict(replace(batch, revisions=()))))
    record["revisions"] = [r.to_dict() for r in batch.revisions]
    of_late = ("revisions", "code", "tally", "parts")  # left out where there are none, as in studies of old
    return {name: value for name, value in record.items() if value or name not in of_late}


def proposal_from_dict(raw: Mapping[str, Any]) -> Proposal:
    """A proposal from what `proposal_record` gave."""
    provenance = raw["provenance"]
    return Proposal(
        raw["params"],
        raw["source"],
        raw["rationale"],
        None if provenance is None else Provenance(**provenance),
        raw.get("code", ""),
        raw.get("twin"),
    )


def outcome_from_dict(raw: Mapping[str, Any]) -> Outcome:
    """An outcome from its fields as JSON has them."""
    curve: Sequence[Any] = raw["curve"]
    points = tuple((int(step), float(value)) for step, value in curve)
    return Outcome(**{**raw, "curve": points, "flags": tuple(raw.get("flags", ()))})


def batch_from_dict(raw: Mapping[str, Any]) -> Batch:
    """A consultation as it stands in an attribute of a study, read back."""
    proposals = tuple(proposal_from_dict(p) for p in raw["proposals"])
    prior = None if raw.get("prior") is None else prior_from_dict(raw["prior"])
    read = {
        "tally": _tally_from_dict(raw.get("tally")),
        "proposals": proposals,
        "usage": Usage(**raw["usage"]),
        "problems": tuple(raw["problems"]),
        "prior": prior,
        "revisions": tuple(Revision.from_dict(r) for r in raw.get("revisions", ())),
        "parts": tuple(
            Part(
                p["name"],
                p["first"],
                Usage(**p["usage"]),
                _tally_from_dict(p["tally"]),
                p["error"],
                p.get("seconds", 0.0),
            )
            for p in raw.get("parts", ())
        ),
    }
    return Batch(**{**raw, **read})


def _tally_from_dict(raw: Mapping[str, Any] | None) -> Tally | None:
    return None if raw is None else Tally(**{**raw, "critic": Usage(**raw["critic"])})

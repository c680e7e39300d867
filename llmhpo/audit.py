"""Checks on a study's record: do event log and store agree, and do the logged decisions follow from what was known?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from llmhpo.agents.base import Search
from llmhpo.agents.consult import Consultant
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.search import EditSearch
from llmhpo.agents.portfolio import Portfolio
from llmhpo.errors import LLMUnavailableError, StoreError
from llmhpo.journal import Entry, Reading, read_journal
from llmhpo.ledger import Ledger, Record, batch_from_dict, outcome_from_dict, proposal_from_dict, proposal_record
from llmhpo.llm.base import Completion, Request
from llmhpo.revision import Revision
from llmhpo.rules import StopRules, check
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Task, Trial
from llmhpo.usage import Caps, Price


@dataclass(frozen=True, slots=True)
class Audit:
    """What a check found: `problems`, one line each, and how many of what it looked at."""

    problems: tuple[str, ...]
    checked: int
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(path: Path, context: Context, study_name: str) -> Audit:
    """Check the log at `path` in itself, and against the store whose `context` is given. `checked` counts events.

    While the study runs, what has just been committed may be missing in the log for an instant.

    Raises: StoreError where there is no log.
    """
    reading = _read(path)
    logged = Ledger.read(reading.entries)
    about = {
        "study": study_name,
        "seed": context.seed,
        "space": context.space.to_dict(),
        "task": asdict(context.task),
    }
    kept = Ledger.of(about, context)
    problems = [reading.problem] if reading.problem else []
    problems += logged.contradictions(kept)
    for kind, data in logged.missing(kept):
        which = f"{kind} {data['number']}" if "number" in data else kind
        problems.append(f"{which} is in the store and not in the log")
    return Audit(tuple(problems), len(reading.entries), _notes(reading))


def replay(path: Path) -> Audit:
    """Decide again what the log at `path` says was decided, with no model and no training. `checked` counts decisions.

    Each proposal must come out of what the log says was known at that moment: proposers are functions of that alone.
    Decisions from before a gap in the log (`notes`) are taken as they stand, as are those of another version of llmhpo.

    Raises: StoreError where there is no log.
    """
    reading = _read(path)
    state, rules = Ledger(), StopRules()
    search: Search = Portfolio()
    problems = [reading.problem] if reading.problem else []
    checked = 0
    for entry in reading.entries:
        if entry.kind == "session":
            search, rules = _silent_search(entry), StopRules(**entry.data.get("rules", {}))
        elif entry.kind == "decision" and not entry.data.get("recovered"):
            checked += 1
            problems += _decide_again(entry, state, search)
        elif entry.kind == "stop" and entry.data["reason"] in ("target", "stale", "gain"):
            problems += _stop_again(entry, state, rules)
        state.apply(entry)
    return Audit(tuple(problems), checked, _notes(reading))


def _decide_again(entry: Entry, state: Ledger, search: Search) -> list[str]:
    """What is wrong with one decision."""
    proposal = search.suggest(_context(state, entry.data["budget_left"]), 1)[0]
    now, was = proposal_record(proposal), entry.data["proposal"]
    if all(now.get(key) == was.get(key) for key in ("params", "source", "code", "twin")):
        return []
    return [f"trial {entry.data['number']} was {_choice(was)}; decided again it is {_choice(now)}"]


def _choice(proposal: Record) -> str:
    code = f" of version {proposal['code'][:8]}" if proposal.get("code") else ""
    return f"{proposal['params']} from {proposal['source']}{code}"


def _stop_again(entry: Entry, state: Ledger, rules: StopRules) -> list[str]:
    """What is wrong with the end of a session that a rule made."""
    stop, was = check(rules, _context(state, entry.data["budget_left"])), entry.data["reason"]
    if stop is not None and stop.reason == was:
        return []
    return [f"a session was stopped for the reason {was!r}; by its rules it is {stop.reason if stop else 'not over'}"]


def _context(state: Ledger, budget_left: int | None) -> Context:
    """What was known when the log had come so far."""
    about = state.about
    trials = [_trial(number, state) for number in sorted(state.proposals)]
    batches = [batch_from_dict(b) for b in state.batches]
    space = SearchSpace.from_dict(about["space"])
    baseline = None if state.baseline is None else Revision.from_dict(state.baseline)
    return Context(Task(**about["task"]), space, tuple(trials), budget_left, about["seed"], tuple(batches), baseline)


def _trial(number: int, state: Ledger) -> Trial:
    proposal, end = proposal_from_dict(state.proposals[number]), state.ends.get(number)
    if end is None:
        return Trial(number, proposal)
    return Trial(number, proposal, outcome_from_dict(end["outcome"]), end["evaluated"])


def _read(path: Path) -> Reading:
    if not path.exists():
        raise StoreError(f"there is no event log {str(path)!r}; studies in memory and of older versions have none")
    return read_journal(path)


def _notes(reading: Reading) -> tuple[str, ...]:
    notes = []
    for entry in reading.entries:
        if entry.kind == "set_aside":
            notes.append(f"a damaged log was set aside as {entry.data['file']!r}: {entry.data['problem']}")
        elif entry.kind == "repaired":
            notes.append(f"{entry.data['bytes']} bytes of an incomplete line were cut off")
        elif entry.data.get("recovered"):
            which = f"{entry.kind} {entry.data['number']}" if "number" in entry.data else entry.kind
            notes.append(f"{which} was taken from the store after a crash")
        elif entry.kind == "snapshot":
            notes.append(
                f"{len(entry.data['proposals'])} trials were taken over from the store: how they came is not known"
            )
    return tuple(notes)


class _Silence:
    """A model that is never asked: it only has the length of replies that the real one had."""

    name, overhead_tokens = "silence", 0
    price: Price | None = None

    def __init__(self, *, compact: bool) -> None:
        self.compact = compact

    def complete(self, request: Request) -> Completion:
        raise LLMUnavailableError(f"a replay asks no model (request {request.number})")

    def count_tokens(self, text: str) -> int:
        return len(text)

    def close(self) -> None:
        return None


def _silent_search(entry: Entry) -> Search:
    model, edits = entry.data["model"], entry.data.get("edits")
    silent = None if model is None else Consultant(_Silence(compact=model["compact"]), caps=Caps())
    portfolio = Portfolio(silent)
    return portfolio if edits is None else EditSearch(portfolio, EditOptions.from_dict(edits))

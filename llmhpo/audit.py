"""Checks on a study's record: do event log and store agree, and do the logged decisions follow from what was known?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmhpo.agents.base import Search
from llmhpo.agents.consult import Consultant
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.search import EditSearch
from llmhpo.agents.portfolio import Portfolio
from llmhpo.errors import LLMUnavailableError, StoreError
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.health import Health, ToldHealth
from llmhpo.revision import Revision
from llmhpo.rules import StopRules, check
from llmhpo.space import SearchSpace
from llmhpo.steering import Steering
from llmhpo.store.journal import Entry, Reading, read_journal
from llmhpo.store.ledger import Ledger, Record, batch_from_dict, outcome_from_dict, proposal_from_dict, proposal_record
from llmhpo.trial import Batch, Context, Task, Trial
from llmhpo.usage import Caps, Price
from llmhpo.view import steered


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

    Each proposal must come out of what the log says was known at that moment: proposers are functions of that alone. So must when
    the model was asked, when it was not, and for how many; but for requests to edit code.
    Decisions from before a gap in the log (`notes`) are taken as they stand, as are those of another version of llmhpo.

    Raises: StoreError where there is no log.
    """
    reading = _read(path)
    known, rules = _Known(), StopRules()
    search: Search = Portfolio()
    problems = [reading.problem] if reading.problem else []
    checked = 0
    for entry in reading.entries:
        if entry.kind == "session":
            search, rules = _silent_search(entry), StopRules(**entry.data.get("rules", {}))
        elif entry.kind == "decision" and not entry.data.get("recovered"):
            checked += 1
            problems += _decide_again(entry, known, search)
        elif entry.kind == "question":
            problems += _ask_again(entry, known, search)
        elif entry.kind == "stop" and entry.data["reason"] in ("target", "stale", "gain"):
            problems += _stop_again(entry, known, rules)
        elif entry.kind == "consulted" and entry.data["batch"]["fatal"]:
            _silence(search)
        known.apply(entry)
    return Audit(tuple(problems), checked, _notes(reading))


def _decide_again(entry: Entry, known: _Known, search: Search) -> list[str]:
    """What is wrong with one decision, and with not asking the model before it."""
    context, problems = known.context(entry.data["budget_left"]), []
    if "declined" in entry.data and (n := _wanted(search, context, entry.data["declined"]["service"])):
        problems.append(
            f"before trial {entry.data['number']} the model was not asked; decided again it is asked for {n}"
        )
    proposal = search.suggest(context, 1)[0]
    now, was = proposal_record(proposal), entry.data["proposal"]
    if any(now.get(key) != was.get(key) for key in ("params", "source", "code", "twin")):
        problems.append(f"trial {entry.data['number']} was {_choice(was)}; decided again it is {_choice(now)}")
    return problems


def _ask_again(entry: Entry, known: _Known, search: Search) -> list[str]:
    """What is wrong with asking the model, with when and for how many."""
    data = entry.data
    if "asked" not in data:  # of an earlier version
        return []
    n = _wanted(search, known.context(data["budget_left"], data["at"], data["pending"]), data["service"])
    if n in (None, data["asked"]):
        return []
    return [f"question {data['number']} asked the model for {data['asked']}; decided again it is asked for {n}"]


def _wanted(search: Search, context: Context, service: list[bool] | None) -> int | None:
    """For how many proposals the model is asked; None where that cannot be decided again: edits need an author."""
    if not isinstance(search, Portfolio):
        return None
    if search.consultant is not None and isinstance(search.consultant.llm, _Silence):
        search.consultant.llm.tell(service)
    return search.wants(context)


def _silence(search: Search) -> None:
    """After an error that makes asking pointless, which a session remembers."""
    if isinstance(search, Portfolio) and search.consultant is not None:
        search.consultant.silenced = True


def _choice(proposal: Record) -> str:
    code = f" of version {proposal['code'][:8]}" if proposal.get("code") else ""
    return f"{proposal['params']} from {proposal['source']}{code}"


def _stop_again(entry: Entry, known: _Known, rules: StopRules) -> list[str]:
    """What is wrong with the end of a session that a rule made."""
    stop, was = check(rules, known.context(entry.data["budget_left"])), entry.data["reason"]
    if stop is not None and stop.reason == was:
        return []
    return [f"a session was stopped for the reason {was!r}; by its rules it is {stop.reason if stop else 'not over'}"]


class _Known:
    """What was known when the log had come so far. Trials that have not changed stay the same objects."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._about: Record = {}
        self._trials: dict[int, Trial] = {}
        self._batches: list[Batch] = []

    def apply(self, entry: Entry) -> None:
        """Take in the next event."""
        ledger = self._ledger
        ledger.apply(entry)
        if entry.kind == "open" and self._about != ledger.about:
            self._about = ledger.about
            self._task, self._began = Task(**ledger.about["task"]), SearchSpace.from_dict(ledger.about["space"])
            self._steer()
        elif entry.kind == "steered":
            self._steer()
        elif entry.kind in ("decision", "result"):
            number = int(entry.data["number"])
            self._trials[number] = _trial(number, ledger)
        elif entry.kind == "imported":
            self._trials |= {n: _trial(n, ledger) for n in map(int, entry.data["trials"])}
        elif entry.kind == "snapshot":
            self._trials = {n: _trial(n, ledger) for n in sorted(ledger.proposals)}
            self._steer()
        self._batches = self._batches if entry.kind != "snapshot" else []
        self._batches += [batch_from_dict(b) for b in ledger.batches[len(self._batches) :]]

    def _steer(self) -> None:
        if not self._about:  # a snapshot stands before the event that opens the store
            return
        self._steering = Steering.from_dict(self._ledger.steering)
        self._space = steered(self._began, self._steering)

    def context(self, budget_left: int | None, at: int | None = None, pending: Sequence[int] = ()) -> Context:
        """The context then; of its first `at` trials, where it is older, and with `pending` ones as running."""
        trials = tuple(self._trials.values())[:at]
        if pending:
            running = frozenset(pending)
            trials = tuple(Trial(t.number, t.proposal) if t.outcome and t.number in running else t for t in trials)
        baseline = None if self._ledger.baseline is None else Revision.from_dict(self._ledger.baseline)
        seed = self._about["seed"]
        batches, steering = tuple(self._batches), self._steering
        return Context(self._task, self._space, trials, budget_left, seed, batches, baseline, steering=steering)


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
        self.health: Health | None = None

    def tell(self, service: Sequence[bool] | None) -> None:
        """The state of the service that the log says it was in, see `service_state`."""
        self.health = None
        if service is not None:
            self.health = ToldHealth()
            self.health.state = (service[0], service[1])

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

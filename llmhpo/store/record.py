"""The record of a study: an Optuna study in any storage Optuna has, written before a job starts and when it ends.

Our types go in and out here and nowhere else. What Optuna has no place for lies in user attributes: each trial's
`source`, `rationale`, `provenance`, `status`, `seconds`, ...; the study's space, task, seed and consultations.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from llmhpo.llm.redact import Redactor
from llmhpo.param import param_to_dict
from llmhpo.revision import Revision
from llmhpo.space import Params, SearchSpace
from llmhpo.steering import Steering
from llmhpo.store.attributes import (
    PREFIX,
    attempt_attrs,
    ending,
    proposal_attrs,
    read_attempts,
    read_baseline,
    read_batches,
    read_steering,
    read_transfers,
    without_secrets,
)
from llmhpo.store.held import HeldStudy
from llmhpo.store.identity import make_or_match, our_trial
from llmhpo.store.journal import Journal
from llmhpo.store.ledger import Ledger, Record, batch_record, bring_together, end_record, proposal_record
from llmhpo.store.storage import file_system
from llmhpo.transfer import Transfer
from llmhpo.trial import Attempt, Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.usage import Usage
from llmhpo.view import View, reworded, steered

_MOST_UNLOGGED = 2  # events that a crash between commit and log can lose; more of them, and the log was cut,
_GROUP = "group"  # unless so many were ever committed together: the name of the attribute that says it
MOST_TOGETHER = 16  # trials begun, or ended, by one commit
_LOG_CHARS = 2000  # of a trial's output that are kept; the whole log lies in the trial's directory


class Launch(NamedTuple):
    """How a trial is launched: the name of its folder, its seed, the command, the revision of the code."""

    folder: str
    seed: int
    command: str = ""
    code: str = ""


class Store:
    """One study, opened by the one controller that may write to it.

    Trials are kept in memory after the first read: while the store is open nobody else writes to the study, and if somebody
    takes it over all the same, nothing more can be written here (see `Lease`). What a method has committed when it returns
    survives any crash. `seed` is drawn and recorded when the study is created; an existing study keeps its own. A study that
    was ever opened with a `noisy` task stays noisy. `log` is the file of the event log, if there shall be one. `grown` names parameters
    that may have joined the space, or become wider, since another study was made whose space this one follows.

    Raises: StoreError (cannot be opened), StudyMismatchError (another space, metric or direction), StudyLockedError.
    """

    def __init__(
        self,
        storage: str | None,
        study_name: str,
        space: SearchSpace,
        task: Task,
        *,
        seed: int | None = None,
        log: Path | None = None,
        grown: Collection[str] = (),
        file_system: Callable[[Path], str] = file_system,
    ) -> None:
        self.study_name = study_name
        self._redact = Redactor.from_environment()
        self._lost = Usage()
        self._journal: Journal | None = None
        self._study = HeldStudy(storage, study_name, task.direction, file_system=file_system)
        try:
            self.task, self._began = make_or_match(self._study, space, task, seed, self._redact, grown)
            attrs = self._study.attrs
            self.seed = int(attrs[PREFIX + "seed"])
            self._baseline, self._batches = read_baseline(attrs), read_batches(attrs)
            self._steerings = read_steering(attrs)
            self.space = steered(self._began, self.steering)
            self._transfers = read_transfers(attrs)
            self._largest_group = int(attrs.get(PREFIX + _GROUP, _MOST_UNLOGGED))
            self._read_trials()
            if log is not None and self.epoch:
                self._open_journal(log)
            if grown:
                self._grow(space)
        except BaseException:
            self.close()
            raise

    def _read_trials(self) -> None:
        known = self._study.frozen()
        self._rows = self._study.rows(known)
        ours = sorted((t for t in known if t.state != TrialState.WAITING), key=lambda t: t.number)
        self._trials: dict[int, Trial] = {}  # by number, in the order of numbers
        self._snapshot: tuple[Trial, ...] | None = None
        # Revisions come from the batches: they are known before any trial is, whose parameters hang on their revision's space.
        spaces = {code: self._space_of(code) for code in ("", *(r.id for r in self.context().revisions))}
        self._trials, self._snapshot = {t.number: our_trial(t, spaces, self.study_name) for t in ours}, None
        self._attempts = {t.number: read_attempts(t) for t in ours if not t.state.is_finished()}

    def _open_journal(self, path: Path) -> None:
        self._journal = Journal(path)
        about = {"study": self.study_name, "seed": self.seed, "space": self._began.to_dict(), "task": asdict(self.task)}
        self._lost = bring_together(self._journal, Ledger.of(about, self.context()), self._largest_group)
        session = {**about, "epoch": self.epoch, "by": self._study.holder, "revision": self.space.revision}
        lost = {} if self._lost == Usage() else {"lost": asdict(self._lost)}
        self._journal.append("open", session | lost)

    def _space_of(self, code: str) -> SearchSpace:
        return self.context().space_of(code) if code else self.space

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number; those that run have no outcome."""
        if self._snapshot is None:
            self._snapshot = tuple(self._trials.values())
        return self._snapshot

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All consultations of the model, in order."""
        return tuple(self._batches)

    @property
    def steering(self) -> Steering:
        """What the person has said since the study began, as far as the study has taken it in."""
        return self._steerings[-1] if self._steerings else Steering()

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """What came from other studies, in order."""
        return tuple(self._transfers)

    @property
    def imported(self) -> int:
        """How many of the trials came from other studies; they count in no budget."""
        return sum(t.taken for t in self._transfers)

    @property
    def place(self) -> str:
        """Where it lies, as "URL#NAME"."""
        return f"{self._study.where or ''}#{self.study_name}"

    def context(self, budget_left: int | None = None) -> Context:
        """A snapshot of all that agents may see."""
        known = Context(
            reworded(self.task, self.steering),
            self.space,
            self.trials,
            budget_left,
            self.seed,
            self.batches,
            self._baseline,
            self.transfers,
            steering=self.steering,
        )
        return known if self._lost == Usage() else replace(known, lost=self._lost)

    # --- writing ----------------------------------------------------------------------------------------------------

    def log(self, kind: str, data: Mapping[str, Any]) -> None:
        """Write to the event log what the store has no place for. From any thread; nothing happens where there is no log.

        Raises: StoreError.
        """
        if self._journal is not None and self._journal.is_open:
            self._journal.append(kind, data)

    def begin(self, proposal: Proposal, budget_left: int | None = None) -> Trial:
        """Commit a trial as running, before its job is launched. `budget_left` is what its proposer was told."""
        return self.begin_all([proposal], budget_left)[0]

    def begin_all(
        self,
        proposals: Sequence[Proposal],
        budget_left: int | None = None,
        plan: Callable[[Trial], Launch] | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> list[Trial]:
        """Commit trials as running, together; with `plan`, which says how each is to be launched, their first attempts as well.

        The proposer of the first one was told `budget_left`, that of the next one less, and so on. `note` goes into the event log
        with the first one.
        """
        assert len(proposals) <= MOST_TOGETHER, "a crash may lose the events of one commit"
        templates = [self._template(p) for p in proposals]

        def work() -> list[tuple[Trial, tuple[Attempt, ...]]]:
            self._note_group(len(proposals))
            trials = [Trial(n, p) for n, p in zip(self._rows.begin(templates), proposals, strict=True)]
            first: list[tuple[Attempt, ...]] = [
                () if plan is None else (self._attempt_of(t, 1, plan(t)),) for t in trials
            ]
            begun = list(zip(trials, first, strict=True))
            self._rows.add({t.number: attempt_attrs(a) for t, attempts in begun for a in attempts})
            return begun

        begun = self._study.write(work)
        self._largest_group = max(self._largest_group, len(proposals))
        events: list[tuple[str, Record]] = []
        for i, (trial, attempts) in enumerate(begun):
            self._keep(trial)
            self._attempts[trial.number] = attempts
            left = None if budget_left is None else max(0, budget_left - i)
            decision = {"number": trial.number, "budget_left": left, "proposal": proposal_record(trial.proposal)}
            events.append(("decision", decision if i else {**decision, **(note or {})}))
            events += [("launch", {"number": trial.number, "attempt": asdict(a)}) for a in attempts]
        self._log_all(events)
        return [trial for trial, _ in begun]

    def _template(self, proposal: Proposal) -> FrozenTrial:
        space = self._space_of(proposal.code)
        return optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions={name: space[name].distribution for name in proposal.params},
            user_attrs=proposal_attrs(proposal),
        )

    def _note_group(self, size: int) -> None:
        """Within a transaction: keep with the study how many events a crash after it may keep from the log."""
        if size > self._largest_group:
            self._study.set(_GROUP, size)

    def _keep(self, trial: Trial) -> None:
        self._trials[trial.number], self._snapshot = trial, None

    def attempt(self, number: int, launch: Launch) -> Attempt:
        """Commit that a running trial is about to be launched, once more or for the first time, and with what."""
        known = self._attempts[number]
        attempt = self._attempt_of(self._trials[number], len(known) + 1, launch)
        self._study.write(lambda: self._rows.note(number, attempt_attrs(attempt)))
        self._attempts[number] = (*known, attempt)
        self._log_if("launch", lambda: {"number": number, "attempt": asdict(attempt)})
        return attempt

    def _attempt_of(self, trial: Trial, index: int, launch: Launch) -> Attempt:
        revision = self._space_of(trial.proposal.code).revision
        folder, seed, command, code = launch
        return Attempt(index, uuid.uuid4().hex, folder, seed, revision, command, self.epoch, code=code)

    def attempts(self, number: int) -> tuple[Attempt, ...]:
        """The launches of a trial that has not ended, oldest first."""
        return self._attempts[number]

    def cancel(self, number: int) -> None:
        """Commit that the last attempt at a trial was ended by us: it does not count as lost."""
        *before, last = self._attempts[number]
        last = replace(last, cancelled=True)
        self._study.write(lambda: self._rows.note(number, attempt_attrs(last)))
        self._attempts[number] = (*before, last)
        self._log_if("cancelled", lambda: {"number": number, "attempt": last.index})

    def finish(self, number: int, outcome: Outcome, evaluated: Params | None = None) -> Trial:
        """Commit how a running trial ended, and what was `evaluated` where that was not the proposed configuration.

        Optuna can change no parameter of a trial: its own tools go on to show the proposed one.
        """
        return self._finish([Trial(number, self._trials[number].proposal, self._kept(outcome), evaluated)])[0]

    def finish_all(self, outcomes: Mapping[int, Outcome]) -> list[Trial]:
        """Commit how running trials ended, as many together as one commit may hold; the trials in the order given."""
        done = [Trial(n, self._trials[n].proposal, self._kept(outcome)) for n, outcome in outcomes.items()]
        for start in range(0, len(done), MOST_TOGETHER):
            self._finish(done[start : start + MOST_TOGETHER])
        return done

    def _kept(self, outcome: Outcome) -> Outcome:
        """What is kept of an outcome, here and on record: of what a job printed the end, where somebody will want to read it."""
        clean = without_secrets(outcome, self._redact)
        is_read = clean.status != "ok" or self._baseline is not None  # whoever edits code is told what it printed
        return replace(clean, log_tail=clean.log_tail[-_LOG_CHARS:] if is_read else "")

    def _finish(self, done: list[Trial]) -> list[Trial]:
        assert all(self._trials[t.number].outcome is None for t in done), "a trial has ended already"
        endings = [ending(t) for t in done]

        def work() -> None:
            self._note_group(len(done))
            self._rows.end(endings)

        self._study.write(work)
        self._largest_group = max(self._largest_group, len(done))
        for trial in done:
            self._keep(trial)
            self._attempts.pop(trial.number, None)
        self._log_all([("result", {"number": t.number, **end_record(t)}) for t in done])
        return done

    def import_trials(self, transfer: Transfer, trials: Sequence[Trial]) -> None:
        """Commit trials of another study as history of this one, all or none of them; they get numbers of this study."""
        templates = [self._template(t.proposal) for t in trials]

        def work() -> list[int]:
            numbers = self._rows.begin(templates)
            self._rows.end([ending(replace(t, number=n)) for n, t in zip(numbers, trials, strict=True)])
            self._study.set(f"transfer:{len(self._transfers):03d}", asdict(transfer))
            return numbers

        taken = [replace(t, number=n) for n, t in zip(self._study.write(work), trials, strict=True)]
        self._transfers.append(transfer)
        for trial in taken:
            self._keep(trial)
        records = {t.number: {"proposal": proposal_record(t.proposal), **end_record(t)} for t in taken}
        self._log_if("imported", lambda: {"origin": transfer.origin, "trials": records})

    def record(self, batch: Batch) -> None:
        """Commit a consultation of the model: its proposals are paid for and survive a restart."""
        number = len(self._batches)
        self._study.write(lambda: self._study.set(f"batch:{number:05d}", batch_record(batch)))
        self._batches.append(batch)
        self._log_if("consulted", lambda: {"number": number, "batch": batch_record(batch)})

    def steer(self, steering: Steering, *, consulting: bool = False) -> Steering:
        """Commit what the person has said; what follows is decided by it. `consulting`: while the model is being asked.

        Raises: SpaceError where it does not fit the space, and then nothing is taken in.
        """
        steering = steering.taken_in(len(self._batches) + consulting, self.steering)
        notes = tuple(replace(n, text=self._redact(n.text)) for n in steering.notes)
        steering = replace(steering, notes=notes, task=self._redact(steering.task))
        if steering == self.steering:
            return steering
        space = steered(self._began, steering)
        View(space, steering.limits)
        number = len(self._steerings)
        self._study.write(lambda: self._study.set(f"steering:{number:05d}", steering.to_dict()))
        self._steerings.append(steering)
        self.space = self.space if space == self.space else space
        self._log_if("steered", lambda: {"number": number, "steering": steering.to_dict()})
        return steering

    def _grow(self, space: SearchSpace) -> None:
        """Take in a space that has grown from the one that this study began with."""
        fresh = [p for p in space.params if p.name not in self.space or p != self.space[p.name]]
        params = {**self.steering.params, **{p.name: param_to_dict(p) for p in fresh}}
        added = tuple(n for n in space.names if n not in self._began)
        if fresh:
            self.steer(replace(self.steering, params=params, added=added))

    def begin_edits(self, baseline: Revision) -> Revision:
        """Commit the code that edits start from, unless the study has begun with another; what it began with."""
        if self._baseline is None:
            self._study.write(lambda: self._study.set("baseline", baseline.to_dict()))
            self._baseline = baseline
            self.log("baseline", {"revision": baseline.to_dict()})
        return self._baseline

    def ask(self, context: Context, n: int, service: tuple[bool, bool] | None = None) -> None:
        """Commit that the model is being asked for `n` proposals about `context`, so that a restart can ask the same again.

        `service`: see `llm.health.service_state`.
        """
        pending = [t.number for t in context.pending]
        question = {"at": len(context.trials), "pending": pending, "budget_left": context.budget_left}
        self._study.write(lambda: self._study.set(f"question:{len(self._batches):05d}", question))
        self.log("question", {"number": len(self._batches), **question, "asked": n, "service": service})

    def _log_if(self, kind: str, data: Callable[[], Record]) -> None:
        if self._journal is not None:
            self._journal.append(kind, data())

    def _log_all(self, events: Sequence[tuple[str, Record]]) -> None:
        if self._journal is not None:
            self._journal.append_all(events)

    def open_question(self) -> Context | None:
        """The context of the last question, where its answer was never recorded."""
        raw = self._study.attrs.get(f"{PREFIX}question:{len(self._batches):05d}")
        if raw is None:
            return None
        trials = tuple(
            replace(t, outcome=None, evaluated=None) if t.number in raw["pending"] else t
            for t in self.trials[: raw["at"]]
        )
        return replace(self.context(raw["budget_left"]), trials=trials)

    def remember(self, name: str, value: str) -> str:
        """Keep a note with the study, secrets redacted, unless it has one of that name; the note it has."""
        value = self._redact(value)
        known = self._study.attrs.get(PREFIX + name)
        if known is None:
            self._study.write(lambda: self._study.set(name, value))
        return value if known is None else str(known)

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds of the sessions before this one, as they kept them."""
        now = f"{PREFIX}wall:{self.epoch}"
        return float(sum(v for k, v in self._study.attrs.items() if k.startswith(PREFIX + "wall:") and k != now))

    def keep_wall(self, seconds: float) -> None:
        """Commit how long this session has lasted."""
        self._study.write(lambda: self._study.set(f"wall:{self.epoch}", round(seconds, 3)))

    @property
    def epoch(self) -> int:
        """Of this controller, among all that the study had; 0 in memory."""
        return self._study.epoch

    def close(self) -> None:
        """Release the connections and the right to run this study."""
        if self._journal is not None:
            self._journal.close()
        self._study.close()

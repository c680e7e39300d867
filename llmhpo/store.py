"""The record of a study: an Optuna study in any storage Optuna has, written before a job starts and when it ends.

Our types go in and out here and nowhere else. What Optuna has no place for lies in user attributes: each trial's
`source`, `rationale`, `provenance`, `status`, `seconds`, ...; the study's space, task, seed and consultations.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from llmhpo.errors import StoreError, StudyLockedError, StudyMismatchError
from llmhpo.prior import prior_from_dict
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import Batch, Context, Outcome, Proposal, Provenance, Task, Trial
from llmhpo.usage import Usage

_PREFIX = "llmhpo:"
_EVALUATED = "evaluated"
_LOG_CHARS = 2000  # of a trial's output in the storage; the whole log lies in the trial's directory
_CURVE_POINTS = 100  # intermediate values written to Optuna for its plots; the whole curve lies in the attribute


class Store:
    """One study, opened by one controller.

    Trials are kept in memory after the first read: while the store is open nobody else writes to the study. `seed` is
    drawn and recorded when the study is created; an existing study keeps its own. A study that was ever opened with a `noisy`
    task stays noisy.

    Raises: StoreError (cannot be opened), StudyMismatchError (another space, metric or direction), StudyLockedError.
    """

    def __init__(
        self, storage: str | None, study_name: str, space: SearchSpace, task: Task, *, seed: int | None = None
    ) -> None:
        self.space, self.task, self.study_name = space, task, study_name
        self._lock = _lock(storage, study_name)
        try:
            self._storage = _open_storage(storage)
            with _storage_errors(storage):
                self._study_id, created = self._create_or_load()
                attrs = self._attrs()
                if created or _PREFIX + "space" not in attrs:
                    self._check_adoptable()
                    self._set("task", asdict(task))
                    self._set("seed", secrets.randbelow(2**31) if seed is None else seed)
                    self._set("space", space.to_dict())  # last: it is what makes a study one of ours
                else:
                    self._check_same(attrs)
                    self._keep_noisy(attrs[_PREFIX + "task"])
                self.seed = int(self._attrs()[_PREFIX + "seed"])
                self._trials = {t.number: self._ours(t) for t in self._frozen() if t.state != TrialState.WAITING}
                self._batches = _read_batches(self._attrs())
        except BaseException:
            self.close()
            raise

    # --- opening ----------------------------------------------------------------------------------------------------

    def _create_or_load(self) -> tuple[int, bool]:
        direction = StudyDirection.MINIMIZE if self.task.direction == "minimize" else StudyDirection.MAXIMIZE
        with _quiet_optuna():
            try:
                return self._storage.create_new_study([direction], self.study_name), True
            except optuna.exceptions.DuplicatedStudyError:
                study_id = self._storage.get_study_id_from_name(self.study_name)
        if self._storage.get_study_directions(study_id) != [direction]:
            raise StudyMismatchError(
                f"study {self.study_name!r} was created with another direction than {self.task.direction!r}; "
                "give the direction it has, or another study_name"
            )
        return study_id, False

    def _check_adoptable(self) -> None:
        """An empty or a foreign Optuna study may become ours only while it has no trials of another space."""
        if self._frozen():
            raise StudyMismatchError(
                f"study {self.study_name!r} holds trials that llmhpo did not make; give another study_name, "
                "or use llmhpo.LLMSampler on that study"
            )

    def _check_same(self, attrs: Mapping[str, Any]) -> None:
        was = SearchSpace.from_dict(attrs[_PREFIX + "space"])
        if was.revision != self.space.revision:
            raise StudyMismatchError(
                f"study {self.study_name!r} was made with another search space (revision {was.revision}, now "
                f"{self.space.revision}: {_difference(was, self.space)}); give another study_name or go back to that space"
            )
        metric = attrs[_PREFIX + "task"]["metric"]
        if metric != self.task.metric:
            raise StudyMismatchError(
                f"study {self.study_name!r} was made for the metric {metric!r}, now {self.task.metric!r}; "
                "give another study_name or the old metric"
            )

    def _keep_noisy(self, was: Mapping[str, Any]) -> None:
        """Its trials were run with seeds of their own: to take their values for exact would be wrong."""
        if was.get("noisy", False):
            self.task = replace(self.task, noisy=True)
        elif self.task.noisy:
            self._set("task", {**was, "noisy": True})

    def _ours(self, frozen: FrozenTrial) -> Trial:
        if frozen.params != self.space.coerce(frozen.params):
            raise StudyMismatchError(
                f"trial {frozen.number} of study {self.study_name!r} does not fit its space ({self.space.coerce(frozen.params)}); "
                "somebody else wrote it: give another study_name"
            )
        trial = _from_optuna(frozen)
        if trial.evaluated is not None and trial.evaluated != self.space.coerce(trial.evaluated):
            raise StudyMismatchError(
                f"trial {frozen.number} of study {self.study_name!r} was told with a configuration that does not fit its "
                f"space ({self.space.coerce(trial.evaluated)}); somebody else wrote it: give another study_name"
            )
        return trial

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number; those that run have no outcome."""
        return tuple(self._trials[n] for n in sorted(self._trials))

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All consultations of the model, in order."""
        return tuple(self._batches)

    def context(self, budget_left: int | None = None) -> Context:
        """A snapshot of all that agents may see."""
        return Context(self.task, self.space, self.trials, budget_left, self.seed, self.batches)

    def _frozen(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def _attrs(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    # --- writing ----------------------------------------------------------------------------------------------------

    def begin(self, proposal: Proposal) -> Trial:
        """Commit a trial as running, before its job is launched."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions={name: self.space[name].distribution for name in proposal.params},
            user_attrs=_proposal_attrs(proposal),
        )
        with _storage_errors(self.study_name):
            trial_id = self._storage.create_new_trial(self._study_id, template)
            number = self._storage.get_trial_number_from_id(trial_id)
        trial = Trial(number, proposal)
        self._trials[number] = trial
        return trial

    def finish(self, number: int, outcome: Outcome, evaluated: Params | None = None) -> Trial:
        """Commit how a running trial ended, and what was `evaluated` where that was not the proposed configuration.

        Optuna can change no parameter of a trial: its own tools go on to show the proposed one.
        """
        trial = self._trials[number]
        assert trial.outcome is None, f"trial {number} has ended already"
        with _storage_errors(self.study_name):
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            for step, value in outcome.curve[:: max(1, -(-len(outcome.curve) // _CURVE_POINTS))]:
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            for name, attr in _outcome_attrs(outcome).items():
                self._storage.set_trial_user_attr(trial_id, name, attr)
            if evaluated is not None:
                self._storage.set_trial_user_attr(trial_id, _EVALUATED, evaluated)
            values = None if outcome.value is None else [outcome.value]
            self._storage.set_trial_state_values(trial_id, _STATE[outcome.status], values)
        done = Trial(number, trial.proposal, outcome, evaluated)
        self._trials[number] = done
        return done

    def record(self, batch: Batch) -> None:
        """Commit a consultation of the model: its proposals are paid for and survive a restart."""
        with _storage_errors(self.study_name):
            self._set(f"batch:{len(self._batches):05d}", asdict(batch))
        self._batches.append(batch)

    def ask(self, context: Context) -> None:
        """Commit that the model is being asked about `context`, so that a restart can ask the same again."""
        pending = [t.number for t in context.pending]
        question = {"at": len(context.trials), "pending": pending, "budget_left": context.budget_left}
        with _storage_errors(self.study_name):
            self._set(f"question:{len(self._batches):05d}", question)

    def open_question(self) -> Context | None:
        """The context of the last question, where its answer was never recorded."""
        raw = self._attrs().get(f"{_PREFIX}question:{len(self._batches):05d}")
        if raw is None:
            return None
        trials = tuple(
            replace(t, outcome=None, evaluated=None) if t.number in raw["pending"] else t
            for t in self.trials[: raw["at"]]
        )
        return replace(self.context(raw["budget_left"]), trials=trials)

    def remember(self, name: str, value: str) -> str:
        """Keep a note with the study unless it has one of that name; the note it has."""
        known = self._attrs().get(_PREFIX + name)
        if known is None:
            with _storage_errors(self.study_name):
                self._set(name, value)
        return value if known is None else str(known)

    def _set(self, name: str, value: object) -> None:
        self._storage.set_study_user_attr(self._study_id, _PREFIX + name, value)

    def close(self) -> None:
        """Release the connections and the right to run this study."""
        if storage := getattr(self, "_storage", None):
            storage.remove_session()
            if isinstance(storage, optuna.storages.RDBStorage):
                storage.engine.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


# --- our types as attributes ------------------------------------------------------------------------------------------

_STATE = {
    "ok": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "timeout": TrialState.FAIL,
    "oom": TrialState.FAIL,
    "invalid": TrialState.FAIL,
}


def _proposal_attrs(proposal: Proposal) -> dict[str, Any]:
    attrs: dict[str, Any] = {"source": proposal.source}
    if proposal.rationale:
        attrs["rationale"] = proposal.rationale
    if proposal.provenance is not None:
        attrs["provenance"] = asdict(proposal.provenance)
    return attrs


def _outcome_attrs(outcome: Outcome) -> dict[str, Any]:
    attrs: dict[str, Any] = {"status": outcome.status, "seconds": round(outcome.seconds, 6)}
    if outcome.metrics:
        attrs["metrics"] = dict(outcome.metrics)
    if outcome.curve:
        attrs["curve"] = [list(point) for point in outcome.curve]
    if outcome.message:
        attrs["message"] = outcome.message
    if outcome.log_tail and outcome.status != "ok":
        attrs["log_tail"] = outcome.log_tail[-_LOG_CHARS:]
    return attrs


def _from_optuna(frozen: FrozenTrial) -> Trial:
    attrs = frozen.user_attrs
    provenance = attrs.get("provenance")
    proposal = Proposal(
        cast("Params", dict(frozen.params)),
        attrs.get("source", "unknown"),
        attrs.get("rationale", ""),
        None if provenance is None else Provenance(**provenance),
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
    )
    return Trial(frozen.number, proposal, outcome, attrs.get(_EVALUATED))


def _read_batches(attrs: Mapping[str, Any]) -> list[Batch]:
    names = sorted(name for name in attrs if name.startswith(_PREFIX + "batch:"))
    return [batch_from_dict(attrs[name]) for name in names]


def batch_from_dict(raw: Mapping[str, Any]) -> Batch:
    """A consultation as it stands in an attribute of a study, read back."""
    proposals = tuple(
        Proposal(
            p["params"], p["source"], p["rationale"], None if p["provenance"] is None else Provenance(**p["provenance"])
        )
        for p in raw["proposals"]
    )
    prior = None if raw.get("prior") is None else prior_from_dict(raw["prior"])
    usage, problems = Usage(**raw["usage"]), tuple(raw["problems"])
    return Batch(**{**raw, "proposals": proposals, "usage": usage, "problems": problems, "prior": prior})


def _difference(was: SearchSpace, now: SearchSpace) -> str:
    gone = [n for n in was.names if n not in now]
    new = [n for n in now.names if n not in was]
    changed = [n for n in was.names if n in now and was[n] != now[n]]
    parts = [("removed", gone), ("added", new), ("changed", changed)]
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names) or "another order"


# --- storages ---------------------------------------------------------------------------------------------------------


def sqlite_path(storage: str | None) -> Path | None:
    """The file behind a SQLite URL; None for any other storage."""
    if storage is None or not storage.startswith("sqlite:///"):
        return None
    name = storage.removeprefix("sqlite:///").partition("?")[0]
    return None if name in ("", ":memory:") else Path(name)


def _open_storage(storage: str | None) -> BaseStorage:
    with _storage_errors(storage), _quiet_optuna():
        if storage is None:
            return optuna.storages.InMemoryStorage()
        return optuna.storages.RDBStorage(storage)


@contextlib.contextmanager
def _storage_errors(where: str | None) -> Iterator[None]:
    """Turn what a storage raises into a StoreError that says where and what to do."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, ImportError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        raise StoreError(
            f"storage {where!r} cannot be used: {reason}; check that the folder is there and can be written to, "
            "or give another storage URL"
        ) from error


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own notes about studies off the user's screen."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _lock(storage: str | None, study_name: str) -> IO[str] | None:
    """The right to run a study in a SQLite file, held until the file is closed or the process ends.

    Raises: StudyLockedError naming the holder, StoreError where the folder cannot be written to.
    """
    path = sqlite_path(storage)
    if path is None or os.name != "posix":
        return None
    import fcntl

    lock_path = path.with_name(f"{path.name}.{study_name.replace(os.sep, '_')}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock_path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"storage {storage!r} cannot be used: {error.strerror}: {error.filename!r}; give a folder that can be written to"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise StudyLockedError(
            f"study {study_name!r} in {path} is being run by {holder}; wait for it, stop it, or give another study_name"
        ) from None
    file.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    file.write(f"pid {os.getpid()} on {socket.gethostname()} since {now}")
    file.flush()
    return file


def load_study(storage: str, study_name: str) -> Context:
    """Read a study without running it. Needs no space and takes no lock.

    Raises: StoreError where there is no such study, or it is not one of llmhpo's.
    """
    path = sqlite_path(storage)
    if path is not None and not path.exists():
        raise StoreError(f"there is no study yet: {path} does not exist; `llmhpo run` makes it")
    store = _open_storage(storage)
    with _storage_errors(storage):
        try:
            study_id = store.get_study_id_from_name(study_name)
        except KeyError:
            names = ", ".join(repr(s.study_name) for s in store.get_all_studies()) or "none"
            raise StoreError(f"{storage} holds no study named {study_name!r}; it holds: {names}") from None
        attrs = store.get_study_user_attrs(study_id)
        if not {_PREFIX + "space", _PREFIX + "task", _PREFIX + "seed"} <= set(attrs):
            raise StoreError(f"study {study_name!r} in {storage} was not made by llmhpo; use optuna's own tools for it")
        trials = tuple(
            _from_optuna(t) for t in store.get_all_trials(study_id, deepcopy=False) if t.state != TrialState.WAITING
        )
    task = Task(**attrs[_PREFIX + "task"])
    space = SearchSpace.from_dict(attrs[_PREFIX + "space"])
    return Context(task, space, trials, None, int(attrs[_PREFIX + "seed"]), tuple(_read_batches(attrs)))

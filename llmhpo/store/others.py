"""Reading studies that others have made: any Optuna study, in a database or a journal file. Nothing is written to them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from llmhpo.errors import ConfigError, StoreError, StudyMismatchError
from llmhpo.store.fit import fit_trials
from llmhpo.store.storage import close_storage, open_storage, quiet_optuna, shown, sqlite_path, storage_errors
from llmhpo.trial import Direction

if TYPE_CHECKING:
    from llmhpo.store.record import Store

WarmStart = str | optuna.Study
_SQLITE, _JOURNAL = b"SQLite format 3\x00", b'"op_code"'
_HEAD_BYTES = 4096


class Other(NamedTuple):
    """A study of somebody else: where it lies, without a password, and its trials."""

    origin: str
    trials: Sequence[FrozenTrial]


def check_warm_start(warm_start: WarmStart | Sequence[WarmStart], *, edits_code: bool) -> None:
    """Raises: ConfigError where code is edited: what another study measured may be due to other code."""
    if warm_start and edits_code:
        raise ConfigError(
            "warm_start takes over values that other code may have given, which no edit can be compared with; leave it out, or "
            "edit no code"
        )


def take_over(store: Store, warm_start: WarmStart | Sequence[WarmStart]) -> None:
    """Import the trials of other studies, of each once, however often the study is opened.

    Raises: as `read_other` and `fit_trials`; nothing of a study that raises is imported.
    """
    studies = [warm_start] if isinstance(warm_start, WarmStart) else list(warm_start)
    for study in studies:
        other = read_other(study, store.task.direction, but=store.place)
        if other.origin not in {t.origin for t in store.transfers}:
            store.import_trials(*fit_trials(other.trials, other.origin, store.space, store.task))


def read_other(study: WarmStart, direction: Direction, but: str = "") -> Other:
    """The study that "URL#NAME" or "FILE#NAME" names, or an Optuna study itself. NAME may be left out where there is one.

    FILE is a SQLite file or one of Optuna's journals. `but` is "URL#NAME" of the study that reads, which is none of these.

    Raises: ConfigError, StoreError, StudyMismatchError for another direction and for several objectives.
    """
    if isinstance(study, optuna.Study):
        _check_direction(study.study_name, study.directions, direction)
        return Other(study.study_name, study.get_trials(deepcopy=False))
    if not isinstance(study, str) or not study:
        raise ConfigError(f'warm_start={study!r} is no study; write "sqlite:///old.db#name", or give an optuna.Study')
    where, name = study.rpartition("#")[::2] if "#" in study else (study, "")
    with contextlib.ExitStack() as stack, storage_errors(where):
        storage = _open(where)
        stack.callback(close_storage, storage)
        every = {s.study_name: s._study_id for s in storage.get_all_studies()}
        # Where none is named, the confirmations of a study, NAME:confirm and the like, are no choice beside it.
        known = every if name else {n: i for n, i in every.items() if n.rpartition(":")[0] not in every}
        if name not in known and (name or len(known) != 1):
            what = f"no study named {name!r}" if name else f"{len(known) or 'no'} studies"
            names = (
                f"write URL#NAME with one of these names: {', '.join(map(repr, known))}" if known else "leave it out"
            )
            raise ConfigError(f"warm_start={shown(where)!r} holds {what}; {names}")
        found = name or next(iter(known))
        if but and _same_place(where, but.rpartition("#")[0]) and found == but.rpartition("#")[2]:
            raise ConfigError(f"warm_start={study!r} is this very study; its own trials are its history already")
        _check_direction(found, storage.get_study_directions(known[found]), direction)
        return Other(f"{shown(where)}#{found}", storage.get_all_trials(known[found], deepcopy=False))


def _open(where: str) -> BaseStorage:
    """A storage that is there already: to open one that is not would make it."""
    path = sqlite_path(where) if "://" in where else Path(where)
    if path is not None:
        head = _head(path)
        if not head.startswith(_SQLITE) and "://" not in where:
            if _JOURNAL not in head:
                raise StoreError(f"{str(path)!r} is neither a SQLite file nor a journal of Optuna's")
            with quiet_optuna():
                return JournalStorage(JournalFileBackend(str(path)))
        if not _has_studies(path):
            raise StoreError(f"{str(path)!r} holds no Optuna studies; name the file that Optuna writes to")
        where = f"sqlite:///{path}"
    try:
        return open_storage(where)
    except RuntimeError as error:
        raise StoreError(
            f"{shown(where)!r} was written by another version of Optuna: {error}; run: optuna storage upgrade --storage URL"
        ) from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise StoreError(f"warm_start: {str(path)!r} cannot be read: {error.strerror}; correct the path") from None


def _has_studies(path: Path) -> bool:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file,
    ):
        query = "SELECT count(*) FROM sqlite_master WHERE name IN ('studies', 'trials')"
        return bool(file.execute(query).fetchone()[0] == 2)
    return False


def _same_place(one: str, other: str) -> bool:
    a, b = (sqlite_path(s) or (None if "://" in s else Path(s)) for s in (one, other))
    return one == other if a is None or b is None else a.resolve() == b.resolve()


def _check_direction(name: str, theirs: Sequence[StudyDirection], direction: Direction) -> None:
    if len(theirs) != 1:
        raise StudyMismatchError(
            f"warm_start: study {name!r} has {len(theirs)} objectives; one with a single one is needed"
        )
    if theirs[0].name.lower() != direction:
        raise StudyMismatchError(
            f"warm_start: study {name!r} was to {theirs[0].name.lower()}, this one is to {direction}: its values are of another "
            "metric; leave it out, or correct the direction"
        )

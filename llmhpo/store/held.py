"""One study in Optuna's storage, held by this process: found or made, written to under a lease, its attributes read."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from llmhpo.errors import StudyMismatchError
from llmhpo.store.attributes import PREFIX
from llmhpo.store.lease import Lease
from llmhpo.store.rows import Rows, make_rows, read_trials
from llmhpo.store.storage import (
    close_storage,
    file_system,
    one_transaction,
    open_storage,
    patiently,
    quiet_optuna,
    shown,
    sqlite_path,
    storage_errors,
)
from llmhpo.trial import Direction

_T = TypeVar("_T")


class HeldStudy:
    """The study `name` in the storage `where` (None: in memory), made where there is none.

    It is given free by `close`, and when nobody refers to this object any more.

    Raises: StoreError (cannot be opened), StudyMismatchError (another direction), StudyLockedError.
    """

    def __init__(
        self,
        where: str | None,
        name: str,
        direction: Direction,
        *,
        file_system: Callable[[Path], str] = file_system,
    ) -> None:
        self.where, self.name = where, name
        self.storage = open_storage(where, to_write=True, file_system=file_system)
        self._close: weakref.finalize[..., HeldStudy] = weakref.finalize(self, close_storage, self.storage)
        self._lease: Lease | None = None
        try:
            self._lease = self._take_lease()
            self._id = self._find_or_make(direction)
        except BaseException:
            self.close()
            raise

    def _take_lease(self) -> Lease | None:
        if not isinstance(self.storage, RDBStorage):
            return None  # in memory: nobody else can see it
        engine, one_machine = self.storage.engine, sqlite_path(self.where) is not None
        with storage_errors(self.where):
            lease = Lease(engine, self.name, shown(self.where), one_machine=one_machine)
        self._close.detach()
        self._close = weakref.finalize(self, _release, lease, self.storage)
        return lease

    def _find_or_make(self, wanted: Direction) -> int:
        direction = StudyDirection.MINIMIZE if wanted == "minimize" else StudyDirection.MAXIMIZE
        with quiet_optuna():
            try:
                study_id = self.storage.get_study_id_from_name(self.name)
            except KeyError:
                study_id = self.write(lambda: self.storage.create_new_study([direction], self.name))
        if self.storage.get_study_directions(study_id) != [direction]:
            raise StudyMismatchError(
                f"study {self.name!r} was created with another direction than {wanted!r}; "
                "give the direction it has, or another study_name"
            )
        return study_id

    @property
    def epoch(self) -> int:
        """Of this controller, among all that the study had; 0 in memory."""
        return 0 if self._lease is None else self._lease.epoch

    @property
    def holder(self) -> str:
        """This process, as others are told of it; "" in memory."""
        return "" if self._lease is None else str(self._lease.me)

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The study's attributes, by their names with `PREFIX`."""
        return self.storage.get_study_user_attrs(self._id)

    def frozen(self) -> list[FrozenTrial]:
        """All trials, as Optuna has them: see `read_trials`."""
        return read_trials(self.storage, self._id)

    def rows(self, known: list[FrozenTrial]) -> Rows:
        """What writes trials to it, `known` being those that it has."""
        return make_rows(self.storage, self._id, known)

    def write(self, work: Callable[[], _T]) -> _T:
        """Do `work` as one transaction, which counts only while the study is ours.

        Raises: StoreError; StudyLockedError where somebody has taken it over.
        """

        def attempt() -> _T:
            with self._fenced():
                return work()

        with storage_errors(self.where):
            return patiently(attempt, self.where)

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[None]:
        if self._lease is None or not isinstance(self.storage, RDBStorage):
            yield
            return
        with one_transaction(self.storage) as connection:
            self._lease.renew(connection)
            yield

    def set(self, name: str, value: object) -> None:
        """Within `write`: set an attribute, named without `PREFIX`."""
        self.storage.set_study_user_attr(self._id, PREFIX + name, value)

    def close(self) -> None:
        """Release the connections and the right to run this study. May be called again."""
        self._close()


def _release(lease: Lease, storage: RDBStorage) -> None:
    lease.release()
    close_storage(storage)

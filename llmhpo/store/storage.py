"""Where studies lie: Optuna's storages opened so that what is committed stays, and what to do where they cannot be written.

SQLite runs in WAL mode with synchronous FULL: a commit that has returned survives a power cut. A network file system keeps
neither its locks nor its shared memory, so SQLite is refused there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import event, orm
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from llmhpo.disk import MESSAGE, is_full, when_there_is_space
from llmhpo.errors import StoreError

_log = logging.getLogger("llmhpo")
_T = TypeVar("_T")

_BUSY_S = 5.0  # SQLite itself waits so long for a lock; then we say so and go on waiting
_PATIENCE_S = 600.0  # of a file that stays locked
_RETRY_S = 0.5
_MAKING_TRIES = 20
_MAKING = re.compile(
    r"already exists|UNIQUE constraint failed: (?:alembic_version|version_info)|duplicate key value violates unique"
)
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|ceph|lustre|gpfs|beegfs|pvfs2|orangefs|ncpfs|davfs\d?|gfs2|ocfs2"
    r"|fuse\.(?:sshfs|s3fs|gcsfuse|rclone|glusterfs|ceph|davfs\d?|smbnetfs|curlftpfs|blobfuse\d?|juicefs|nfs\w*|goofys|mount-s3)"
)


def sqlite_path(storage: str | None) -> Path | None:
    """The file behind a SQLite URL; None for any other storage."""
    if storage is None or not storage.startswith("sqlite:///"):
        return None
    name = storage.removeprefix("sqlite:///").partition("?")[0]
    return None if name in ("", ":memory:") else Path(name)


def file_system(path: Path) -> str:
    """The type of the file system that `path` lies or would lie on, as Linux names it; "" where that is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, found, depth = path.resolve(), "", -1
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4]))
        if (place == point or point in place.parents) and len(point.parts) >= depth:
            found, depth = right.split()[0], len(point.parts)
    return found


def shown(storage: str | None) -> str:
    """A storage URL without its password."""
    try:
        return "memory" if storage is None else make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return str(storage)


def open_storage(
    storage: str | None, *, to_write: bool = False, file_system: Callable[[Path], str] = file_system
) -> BaseStorage:
    """The storage behind a URL, in memory for None; `to_write` makes a SQLite file durable first.

    Raises: StoreError where it cannot be opened, and for SQLite on a network file system.
    """
    if storage is None:
        return optuna.storages.InMemoryStorage()
    path = sqlite_path(storage)
    with storage_errors(storage), quiet_optuna():
        if path is not None and to_write:
            _refuse_network(path, file_system(path))
            folder = path.parent
            when_there_is_space(lambda: folder.mkdir(parents=True, exist_ok=True), f"folder {str(folder)!r}")
        opened = patiently(lambda: _make(storage), storage)
        if opened.engine.dialect.name == "sqlite":
            event.listen(opened.engine, "connect", _harden if path is not None and to_write else _wait_for_locks)
            opened.engine.dispose()  # the connection that Optuna has opened already was not made so
        return opened


def _make(storage: str) -> RDBStorage:
    """Optuna's storage; where others make its tables at this very moment, they are let go first."""
    for left in range(_MAKING_TRIES, -1, -1):
        try:
            return RDBStorage(driven(storage))
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if not left or not _MAKING.search(_reason(error)):
                raise
        time.sleep(_RETRY_S)
    raise AssertionError("not reached")


def driven(storage: str) -> str:
    """The URL with the driver of our extra where it names none: `postgresql://` alone is psycopg 3's since SQLAlchemy 2.1."""
    scheme, colon, rest = storage.partition("://")
    is_bare = scheme in ("postgresql", "postgres") and find_spec("psycopg") is None
    return f"postgresql+psycopg2{colon}{rest}" if is_bare else storage


def _refuse_network(path: Path, kind: str) -> None:
    if _NETWORK.fullmatch(kind):
        raise StoreError(
            f"SQLite file {str(path)!r} lies on a network file system ({kind}), whose locks and shared memory cannot be relied "
            "on: trials could be lost; give a storage on a local disk, or a PostgreSQL URL (postgresql+psycopg2://...)"
        )


def _wait_for_locks(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={int(1000 * _BUSY_S)}")


def _harden(connection: Any, record: object) -> None:
    _wait_for_locks(connection, record)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def close_storage(storage: BaseStorage) -> None:
    """Release the connections."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


@contextlib.contextmanager
def one_transaction(storage: RDBStorage) -> Iterator[Connection]:
    """Everything that Optuna writes meanwhile becomes one transaction with what is done on the connection."""
    with storage.engine.begin() as connection:
        usual = storage.scoped_session
        make = orm.sessionmaker(bind=connection, join_transaction_mode="rollback_only")
        storage.scoped_session = orm.scoped_session(make)
        try:
            yield connection
        finally:
            storage.scoped_session.remove()
            storage.scoped_session = usual


def patiently(work: Callable[[], _T], storage: str | None) -> _T:
    """Do a transaction. While the disk is full, or somebody keeps a SQLite file locked, say so and try again.

    Raises: what `work` raises for other reasons, and where the file is locked for ten minutes.
    """
    start, told = time.monotonic(), False
    while True:
        try:
            return work()
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            obstacle = _obstacle(_reason(error), storage)
            waited = time.monotonic() - start
            if not obstacle or (obstacle == _LOCKED and waited > _PATIENCE_S):
                raise
            if not told:
                _log.warning("storage %r: %s; the study waits, and goes on by itself", shown(storage), obstacle)
            told = True
        time.sleep(_RETRY_S)


_LOCKED = "another process keeps the file locked (`fuser FILE` names it)"


def _obstacle(reason: str, storage: str | None) -> str:
    """What keeps a SQLite file from being written, where that can pass; else ""."""
    path = sqlite_path(storage)
    if "database or disk is full" in reason:
        return MESSAGE
    if re.search("disk I/O error|unable to open database file", reason) and path is not None and is_full(path.parent):
        return MESSAGE
    return _LOCKED if re.search(r"database (?:table )?is locked", reason) else ""


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(getattr(cause, "orig", None) or cause).splitlines() or [type(cause).__name__])[0]


@contextlib.contextmanager
def storage_errors(where: str | None) -> Iterator[None]:
    """Turn what a storage raises into a StoreError that says where and what to do."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, ImportError) as error:
        raise StoreError(
            f"storage {shown(where)!r} cannot be used: {_reason(error)}; {_remedy(where, error)}, or give another storage URL"
        ) from error


def _remedy(where: str | None, error: Exception) -> str:
    if isinstance(error.__cause__ or error, ImportError):
        return "install its driver (PostgreSQL: pip install 'llmhpo[postgresql]')"
    if where is None or sqlite_path(where) is not None or "://" not in where:
        return "check that the folder is there and can be written to"
    return (
        "check that its server runs and can be reached, and the URL: postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
    )


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own notes about studies off the user's screen."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def write_durably(path: Path, text: str) -> None:
    """Write a file so that after a crash it is there as a whole, or not at all. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

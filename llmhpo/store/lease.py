"""The right to run a study: one row in its own storage, with an epoch that grows with every new holder.

Each transaction of a controller first touches its row under its epoch (`Lease.renew`), so a controller that was taken for dead, and was
not, can write nothing after its successor has begun. No wall clock is read anywhere: a holder on this machine is looked up
among the living processes, and one elsewhere must not let its beat stand still for `DEAD_S` of the watcher's monotonic time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, create_engine, insert, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from llmhpo.errors import StudyLockedError
from llmhpo.store.storage import driven, patiently

BEAT_S = 5.0
DEAD_S = 30.0
_POLL_S = 0.5
_log = logging.getLogger("llmhpo")

_LEASES = Table(
    "llmhpo_lease",
    MetaData(),
    Column("study_name", String(512), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("host", String(255), nullable=False),  # "" where nobody holds it
    Column("boot", String(64), nullable=False),
    Column("pid_space", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("born", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, told from every other one: a number is used again, but not with the same tick of birth since a boot."""

    host: str
    boot: str
    pid_space: str
    pid: int
    born: int

    @classmethod
    def this_process(cls) -> Holder:
        """Who asks."""
        boot, space = "", ""
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            space = str(Path("/proc/self/ns/pid").readlink())
            space += str(Path("/proc/self/ns/time").readlink())  # another one counts other ticks since the boot
        return cls(socket.gethostname()[:255], boot, space, os.getpid(), _born(os.getpid()) or 0)

    def lives(self, asker: Holder, *, one_machine: bool) -> bool | None:
        """Whether it lives, as far as `asker` can see without waiting; None where it cannot.

        `one_machine` says that only one machine at a time can reach the storage: then another boot is an earlier one.
        """
        if self.host == asker.host and self.boot and asker.boot and self.boot != asker.boot and one_machine:
            return False
        same = (self.boot, self.pid_space) == (asker.boot, asker.pid_space)
        if not same or (not self.boot and self.host != asker.host) or os.name != "posix":
            return None
        if self.boot:
            return _born(self.pid) == self.born
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def _born(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None where it is dead, a zombie included, or there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in b"ZX" else int(fields[19])


class Lease:
    """The right to run one study, held until `release` or until somebody else has taken it.

    `where` names the storage in messages. `one_machine`: see `Holder.lives`. `me` is the process that asks.

    Raises: StudyLockedError naming the holder. Where only the beat can tell, this takes up to `dead_s` seconds.
    """

    def __init__(
        self,
        engine: Engine,
        study_name: str,
        where: str,
        *,
        one_machine: bool,
        me: Holder | None = None,
        beat_s: float = BEAT_S,
        dead_s: float = DEAD_S,
    ) -> None:
        self._engine, self._name, self._where, self._one_machine = engine, study_name, where, one_machine
        self.me = me or Holder.this_process()
        self._dead_s, self._pid = dead_s, os.getpid()
        patiently(lambda: _create_table(engine), where)
        self.epoch = self._take()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), name="llmhpo-lease", daemon=True)
        self._thread.start()

    def renew(self, connection: Connection) -> None:
        """Within a transaction: make sure that the study is still ours. Whatever it commits is fenced.

        Raises: StudyLockedError.
        """
        mine = (_LEASES.c.study_name == self._name) & (_LEASES.c.epoch == self.epoch)
        if connection.execute(update(_LEASES).where(mine).values(beat=_LEASES.c.beat + 1)).rowcount != 1:
            row = self._read(connection)
            raise StudyLockedError(
                f"study {self._name!r} in {self._where} has been taken over by {_holder(row) if row else 'somebody'}; nothing more "
                "is written here: this process was taken for dead, because it had stood still for long"
            )

    def release(self) -> None:
        """Give the study free. May be called again; does nothing in a forked child."""
        if self._stop.is_set() or os.getpid() != self._pid:
            return
        self._stop.set()
        mine = (_LEASES.c.study_name == self._name) & (_LEASES.c.epoch == self.epoch)
        with (
            contextlib.suppress(SQLAlchemyError),
            self._engine.begin() as connection,
        ):  # a dead holder is seen as dead anyway
            connection.execute(update(_LEASES).where(mine).values(host=""))
        if self._thread is not threading.current_thread():  # a collected store is released from any thread
            self._thread.join()

    # --- taking -----------------------------------------------------------------------------------------------------

    def _take(self) -> int:
        while True:
            row = self._look()
            if row is not None and row["host"] and self._is_alive(row):
                raise StudyLockedError(
                    f"study {self._name!r} in {self._where} is being run by {_holder(row)}; wait for it, end it by /pause in "
                    "llmhpo chat or by SIGTERM (it saves, and goes on when run again), or give another study_name"
                )
            # A holder that was stopped within a write keeps a SQLite file locked, and is not watched anew for that.
            if epoch := patiently(partial(self._put, row), self._where):
                return epoch

    def _look(self) -> dict[str, Any] | None:
        def look() -> dict[str, Any] | None:
            with self._engine.connect() as connection:
                return self._read(connection)

        return patiently(look, self._where)

    def _put(self, row: dict[str, Any] | None) -> int:
        with contextlib.suppress(IntegrityError), self._engine.begin() as connection:
            return self._swap(connection, row)
        return 0

    def _swap(self, connection: Connection, row: dict[str, Any] | None) -> int:
        """Put this process in the place of what was read, if that still stands there; the new epoch, or 0."""
        if row is None:
            connection.execute(insert(_LEASES).values(study_name=self._name, epoch=1, beat=0, **asdict(self.me)))
            return 1
        seen = [_LEASES.c[name] == row[name] for name in ("study_name", "epoch", "beat", "host")]
        epoch = int(row["epoch"]) + 1
        swapped = connection.execute(update(_LEASES).where(*seen).values(epoch=epoch, **asdict(self.me)))
        return epoch if swapped.rowcount == 1 else 0

    def _is_alive(self, row: dict[str, Any]) -> bool:
        lives = _holder(row).lives(self.me, one_machine=self._one_machine)
        if lives is not None:
            return lives
        _log.warning(
            "study %r was last run by %s; waiting up to %.0f s for a sign of life",
            self._name,
            _holder(row),
            self._dead_s,
        )
        end = time.monotonic() + self._dead_s
        while time.monotonic() < end:
            time.sleep(min(_POLL_S, self._dead_s))
            now = self._look()
            if now is None or not now["host"]:
                return False
            if (now["epoch"], now["beat"]) != (row["epoch"], row["beat"]):
                return True
        return False

    def _read(self, connection: Connection) -> dict[str, Any] | None:
        row = connection.execute(select(_LEASES).where(_LEASES.c.study_name == self._name)).mappings().first()
        return None if row is None else dict(row)

    def _beat(self, beat_s: float) -> None:
        while not self._stop.wait(beat_s):
            try:
                with self._engine.begin() as connection:
                    self.renew(connection)
            except StudyLockedError:
                return  # the next write says so
            except SQLAlchemyError:
                continue  # locked, or a connection that broke: the next beat may come through


@dataclass(frozen=True, slots=True)
class Running:
    """Who runs a study, and under which epoch. `is_here`: whether that is a process of this machine that lives."""

    holder: Holder
    epoch: int
    is_here: bool


def who_runs(storage: str, study_name: str) -> Running | None:
    """The live controller of a study, as far as can be seen without waiting; takes no lock.

    A holder on another machine counts as live until it gives the study free. None also where the storage cannot be read.
    """
    try:
        engine = create_engine(driven(storage))
        try:
            with engine.connect() as connection:
                row = connection.execute(select(_LEASES).where(_LEASES.c.study_name == study_name)).mappings().first()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError):  # no such table yet, or no driver: whoever opens the storage tells of that
        return None
    if row is None or not row["host"]:
        return None
    holder = _holder(dict(row))
    lives = holder.lives(Holder.this_process(), one_machine=storage.startswith("sqlite:"))
    return None if lives is False else Running(holder, int(row["epoch"]), bool(lives))


def _holder(row: dict[str, Any]) -> Holder:
    return Holder(row["host"], row["boot"], row["pid_space"], row["pid"], row["born"])


def _create_table(engine: Engine) -> None:
    try:
        _LEASES.metadata.create_all(engine)
    except (OperationalError, ProgrammingError, IntegrityError):  # somebody else makes it at this instant
        time.sleep(_POLL_S)
        _LEASES.metadata.create_all(engine)

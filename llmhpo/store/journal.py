"""The event log of a study: JSON lines that are only ever appended, each with a number and a checksum over all before it.

    {"seq": 7, "time": "2026-01-31T12:00:00+00:00", "kind": "result", "data": {...}, "sum": "32 hex digits"}

`sum` is the head of the SHA-256 of the line before's sum and of this line without its own, so that a changed, removed or
inserted line is seen. The store is the truth and is committed first; the log says in which order things happened, and what was
said to a model. Each line is on the disk when `append` returns.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmhpo.disk import when_there_is_space
from llmhpo.errors import StoreError, StudyLockedError
from llmhpo.llm.redact import Redactor
from llmhpo.store.storage import sqlite_path, sync_folder

_log = logging.getLogger("llmhpo")
_SUM = re.compile(rb',"sum":"([0-9a-f]{32})"\}$')

Data = Mapping[str, Any]


class Entry(NamedTuple):
    """One event."""

    seq: int
    kind: str
    data: dict[str, Any]


class Head(NamedTuple):
    """Where a log ends: the next number, the last checksum, the bytes so far."""

    seq: int = 0
    sum: str = ""
    size: int = 0


class Reading(NamedTuple):
    """What a log holds up to its end or its first damage; `problem` says what that is ("" where all is well).

    `is_torn` says that nothing but the last line is incomplete, as a crash in the midst of an append leaves it.
    """

    entries: list[Entry]
    head: Head
    problem: str = ""
    is_torn: bool = False


def read_journal(path: Path) -> Reading:
    """Read a log and check it; a missing one is empty. Raises: StoreError where it cannot be read at all."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Reading([], Head())
    except OSError as error:
        raise StoreError(
            f"event log {str(path)!r} cannot be read: {error.strerror}; correct its access rights"
        ) from error
    entries: list[Entry] = []
    head = Head()
    while head.size < len(data):
        end = data.find(b"\n", head.size)
        line = data[head.size : end if end >= 0 else len(data)]
        entry = _check(line, head)
        if entry is None or end < 0:
            is_torn = end < 0
            what = "is incomplete, as a crash leaves it" if is_torn else "does not fit its checksum or its place"
            return Reading(entries, head, f"line {len(entries) + 1} of {str(path)!r} {what}", is_torn)
        entries.append(entry)
        head = Head(entry.seq + 1, _sum(line, head.sum), end + 1)
    return Reading(entries, head)


def _check(line: bytes, head: Head) -> Entry | None:
    """The event of a line that follows on `head`; None for any other line."""
    match = _SUM.search(line)
    if match is None or match[1].decode() != _sum(line, head.sum):
        return None
    try:
        raw = json.loads(line)
        entry = Entry(raw["seq"], raw["kind"], raw["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if entry.seq == head.seq and isinstance(entry.data, dict) else None


def _sum(line: bytes, before: str) -> str:
    """The checksum of a line, its own sum left out."""
    return hashlib.sha256(before.encode() + _SUM.sub(b"}", line)).hexdigest()[:32]


class Journal:
    """The log of one study, open for appending by the one controller that runs it; threads may share it.

    What lies there and is damaged is set aside under another name (`NAME.damaged-N`), and a new log begins that says so; of a log
    that a crash has torn, the incomplete line is cut off, and the log says so. `entries` are those that it held when it was opened.

    Raises: StoreError where the file cannot be read or made.
    """

    def __init__(self, path: Path, redact: Redactor | None = None) -> None:
        self.path = path
        self._redact = redact or Redactor.from_environment()
        self._lock = threading.Lock()
        self._is_dirty = False
        reading = read_journal(path)
        self.entries: Sequence[Entry] = reading.entries
        self._head = reading.head
        self._fd = self._open()
        if reading.is_torn:
            self._cut()
        elif reading.problem:
            self.set_aside(reading.problem)

    def _open(self) -> int:
        def make() -> int:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

        try:
            fd = when_there_is_space(make, f"event log {str(self.path)!r}")
            sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"event log {str(self.path)!r} cannot be written: {error.strerror}; give a folder that can be written to"
            ) from error
        return fd

    def _cut(self) -> None:
        """Take a torn last line off, and keep what it said."""
        torn = os.pread(self._fd, os.fstat(self._fd).st_size - self._head.size, self._head.size)
        os.ftruncate(self._fd, self._head.size)
        self.append("repaired", {"torn": self._redact(torn.decode("utf-8", "replace"))[:4000], "bytes": len(torn)})

    def set_aside(self, problem: str) -> None:
        """Begin a new log; the old one is kept under another name, and the new one says why."""
        taken = {p.name for p in self.path.parent.glob(f"{self.path.name}.damaged-*")}
        number = next(n for n in range(1, len(taken) + 2) if f"{self.path.name}.damaged-{n}" not in taken)
        aside = self.path.with_name(f"{self.path.name}.damaged-{number}")
        os.close(self._fd)
        self.path.rename(aside)
        self.entries, self._head = [], Head()
        self._fd = self._open()
        _log.warning("event log: %s; it is set aside as %r, and a new one begins", problem, str(aside))
        self.append("set_aside", {"file": aside.name, "problem": problem, "sha256": _file_hash(aside)})

    def append(self, kind: str, data: Data) -> None:
        """Write one event, secrets redacted. While the disk is full, say so, wait, and go on when there is space.

        Raises: StoreError where the file cannot be written for another reason, StudyLockedError where somebody else wrote to it.
        """
        self.append_all([(kind, data)])

    def append_all(self, events: Sequence[tuple[str, Data]]) -> None:
        """Write events by one write, which a crash may cut off within any of them. Raises: as `append`."""
        with self._lock:
            after, lines = self._head, []
            for kind, data in events:
                line, after = self._line(kind, data, after)
                lines.append(line)
            try:
                when_there_is_space(lambda: self._write(b"".join(lines)), f"event log {str(self.path)!r}")
            except OSError as error:
                raise StoreError(
                    f"event log {str(self.path)!r} cannot be written: {error.strerror}; mend the disk"
                ) from error
            self._head, self._is_dirty = after, False

    def _line(self, kind: str, data: Data, head: Head) -> tuple[bytes, Head]:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        event = {"seq": head.seq, "time": now, "kind": kind, "data": _redacted(data, self._redact)}
        body = json.dumps(event, separators=(",", ":"), allow_nan=False).encode()
        digest = _sum(body, head.sum)
        line = body[:-1] + f',"sum":"{digest}"}}\n'.encode()
        return line, Head(head.seq + 1, digest, head.size + len(line))

    def _write(self, data: bytes) -> None:
        """Append as a whole or not at all: a raw write may stop short without an error. Raises: OSError."""
        try:
            size = os.fstat(self._fd).st_size
            if size != self._head.size:
                if not self._is_dirty:
                    raise StudyLockedError(
                        f"somebody else has written to the event log {str(self.path)!r}; one controller runs a study at a time"
                    )
                os.ftruncate(self._fd, self._head.size)  # an append of ours that was interrupted
            self._is_dirty = True
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._head.size)
            raise

    def forget(self) -> None:
        """Let go of `entries`, which may be a hundred megabytes."""
        self.entries = []

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_open(self) -> bool:
        """Whether it still takes events."""
        return self._fd >= 0


def journal_path(storage: str | None, study_name: str, folder: Path | None = None) -> Path | None:
    """Where the log of a study lies: beside its SQLite file; with another storage in the study's own `folder`, if it has one."""
    path = sqlite_path(storage)
    if path is None:
        return None if folder is None else folder / "events.jsonl"
    name = re.sub(r"[^\w.-]+", "-", study_name).strip(".-") or "study"
    alone = path.name == "study.db" and path.parent.name == name
    return path.with_name("events.jsonl" if alone else f"{path.name}.{name}.events.jsonl")


def _redacted(value: object, redact: Redactor) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(k)): _redacted(v, redact) for k, v in value.items()}
    return [_redacted(v, redact) for v in value] if isinstance(value, list | tuple) else value


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

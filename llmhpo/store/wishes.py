"""What the person asks of a study while another process runs it: a file beside the study that the controller looks at.

Only the controller writes to a study. Who talks to it, from whatever process, appends a line here that holds the whole state
asked for; the controller takes the last one in, before its next decision. With no controller, the next one does. To end a
session the same way, `ask_to_pause` names its epoch, so that an old request never stops a later one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError, SpaceError, StoreError
from llmhpo.steering import Steering
from llmhpo.store.lock import locked
from llmhpo.store.record import Store
from llmhpo.store.storage import write_durably

_log = logging.getLogger("llmhpo")

Pause = Literal["", "drain", "now"]
_FILE, _PAUSE = "wishes.jsonl", "pause.json"
_MOST_BYTES = 50_000_000  # beyond it, nobody asks for anything any more: something else fills the file


@dataclass(frozen=True, slots=True)
class Wish:
    """The state that is asked for from now on, and `what` was said, in the words of a command. `undoes`: the wish of this index."""

    what: str
    steering: Steering
    undoes: int = -1
    at: str = ""


class Wishes:
    """The file of wishes in a study's folder. Lines that are cut off or damaged are left out of account."""

    def __init__(self, folder: Path) -> None:
        self._path, self._pause = folder / _FILE, folder / _PAUSE
        self._seen: tuple[int, int] | None = None
        self._first = 0  # epoch of the run that listens, whose later sessions have later ones
        self._known: list[Wish] = []

    @property
    def all(self) -> list[Wish]:
        """Every wish so far, oldest first."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._known, self._seen = self._read(), stamp
        return list(self._known)

    def _stamp(self) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            found = self._path.stat()
            return found.st_mtime_ns, found.st_size
        return 0, 0

    def _read(self) -> list[Wish]:
        try:
            with self._path.open("rb") as file:
                data = file.read(_MOST_BYTES)
        except OSError:
            return []
        wishes = []
        for line in data.split(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError, ConfigError, RecursionError):
                raw = json.loads(line)
                wishes.append(
                    Wish(str(raw["what"]), Steering.from_dict(raw["steering"]), int(raw["undoes"]), str(raw["at"]))
                )
        return wishes

    @property
    def changed(self) -> bool:
        """Whether there is something new since `all` was last read."""
        return self._stamp() != (self._seen or (0, 0))

    @property
    def last(self) -> Steering | None:
        """The state that is asked for; None while nobody has asked for anything."""
        wishes = self.all
        return wishes[-1].steering if wishes else None

    def add(self, what: str, change: Callable[[Steering], Steering], now: Steering, *, undoes: int = -1) -> Steering:
        """Ask for what `change` makes of the latest state; of `now` where nobody has asked for anything yet.

        Raises: StoreError where the file cannot be written.
        """
        try:
            # Each line is a whole state: of two that began alike, one would be lost.
            with locked(self._path.with_suffix(".lock")):
                steering = change(self.last or now)
                at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                line = {"what": what, "at": at, "undoes": undoes, "steering": steering.to_dict()}
                self._append((json.dumps(line, separators=(",", ":")) + "\n").encode())
        except OSError as error:
            raise StoreError(
                f"{str(self._path)!r} cannot be written: {error.strerror}; nothing was changed: mend the folder"
            ) from None
        return steering

    def _append(self, line: bytes) -> None:
        def write() -> None:
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # its writer was killed in the midst of it
                os.write(fd, b"\n" + line if torn else line)
                os.fsync(fd)
            finally:
                os.close(fd)

        when_there_is_space(write, f"file {str(self._path)!r}")

    def undoable(self) -> tuple[int, Wish] | None:
        """The latest wish that changed something and has not been undone, with its index."""
        wishes = self.all
        undone = {w.undoes for w in wishes}
        for k in range(len(wishes) - 1, -1, -1):
            if wishes[k].undoes < 0 and k not in undone and wishes[k].what:
                return k, wishes[k]
        return None

    # --- ending a session ---------------------------------------------------------------------------------------------

    def ask_to_pause(self, epoch: int, how: Pause) -> None:
        """Ask the session of this epoch to end: when its running trials have ended, or "now". Raises: StoreError."""
        try:
            write_durably(self._pause, json.dumps({"epoch": epoch, "how": how}))
        except OSError as error:
            raise StoreError(f"{str(self._pause)!r} cannot be written: {error.strerror}; mend the folder") from None

    def listen(self, epoch: int) -> None:
        """A run begins with this epoch: requests to it, and to sessions that it begins anew, are its own."""
        self._first = self._first or epoch

    def pause(self, epoch: int) -> Pause:
        """Whether the run that is at this epoch is asked to end, and how."""
        raw: Any = None
        with contextlib.suppress(OSError, ValueError):
            raw = json.loads(self._pause.read_text(encoding="utf-8"))
        asked = raw.get("epoch") if isinstance(raw, dict) else None
        if not isinstance(asked, int) or not (self._first or epoch) <= asked <= epoch:
            return ""
        return "now" if raw.get("how") == "now" else "drain"


def take_in(store: Store, wishes: Wishes, *, consulting: bool = False) -> None:
    """Commit the state that is asked for. What does not fit the study is warned of, and left out."""
    steering = wishes.last
    if steering is None:
        return
    try:
        store.steer(steering, consulting=consulting)
    except SpaceError as error:
        _log.warning("what was asked for does not fit the study, which goes on without it: %s", error)

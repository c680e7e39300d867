"""The terminal of a chat: a line to type on that is always there, a status line below it, and above it what is said meanwhile.

One program of prompt_toolkit runs for the whole session: between two of them what other threads say could be drawn over.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.utils import get_cwidth

from llmhpo.chat.base import COMMANDS

_REFRESH_S = 0.5
_GATHER_S = 0.05  # what is said within it is written at once: each time, the line to type on is drawn anew
_READ_S = 0.4  # a question is not answered by what is typed sooner after it can be read
_YES, _NO = ("y", "yes"), ("n", "no")
_STATUS_LINES = 3
_FIRST_COLUMN = re.compile(r" *(?:\S+ {2,})?")
_LONG_PASTE = 20  # lines, from which on a paste is shown as its size
_NAMED = ("narrow", "widen", "freeze", "plot")


def readable(text: str) -> str:
    """What was typed or pasted as valid Unicode without characters that a terminal would obey."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else " " for c in text)


class _SafeHistory(FileHistory):
    """A history file that takes any text, and no text from a file that is not valid UTF-8."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is no reason to lose what was typed
            super().store_string(readable(string))


class _Words(Completer):
    """Commands, and the names that their arguments take."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        del complete_event
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        head, space, rest = text[1:].partition(" ")
        if not space:
            for command in COMMANDS.values():
                if command.name.startswith(head.lower()):
                    yield Completion(command.name, -len(head), display_meta=command.help)
        elif " " not in rest and head in _NAMED:
            for name in self.names:
                if name.startswith(rest):
                    yield Completion(name, -len(rest))
        elif " " not in rest and head == "help":
            for name in COMMANDS:
                if name.startswith(rest):
                    yield Completion(name, -len(rest))


@dataclass(slots=True)
class _Question:
    """Something to agree to. `read_from`: since when it can be read."""

    done: threading.Event = field(default_factory=threading.Event)
    agreed: bool = False
    read_from: float = float("inf")


class Screen:
    """One terminal, read by the thread that calls `run`. All else may be called from any thread.

    `status`, `busy` and `names` may be set at any time, and are shown at the next refresh.
    """

    def __init__(self, history: Path | None = None) -> None:
        self.status = "reading the study ..."
        self.busy: Callable[[], str] = lambda: ""
        self._words = _Words()
        self._pastes: dict[str, str] = {}
        self._prompt: PromptSession[str] = PromptSession(
            self._shown_prompt,
            history=_history(history),
            completer=self._words,
            complete_while_typing=True,
            multiline=True,
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            refresh_interval=_REFRESH_S,
            prompt_continuation=lambda width, _line, _wrapped: " " * (width - 2) + ". ",
            reserve_space_for_menu=4,
            erase_when_done=True,
        )
        # What is typed while lines are written is not to be echoed there: that would shift the line that is drawn after them.
        self._prompt.app.input.cooked_mode = contextlib.nullcontext  # type: ignore[method-assign]
        self._prompt.default_buffer.on_text_changed += self._note_begin
        self._prompt.app.after_render += self._note_read
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unwritten: list[str] = []
        self._is_due = False  # writing
        self._tail = ""  # of a line that is being written
        self._begun: float | None = None  # when the line that is typed was begun
        self._question: _Question | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of parameters, to complete with."""
        return self._words.names

    @names.setter
    def names(self, names: tuple[str, ...]) -> None:
        self._words.names = names

    def run(self, on_line: Callable[[str], None], on_interrupt: Callable[[], bool]) -> None:
        """Read lines until `leave`, or the end of the terminal.

        Both functions are called while nothing is drawn, so they must not take long. `on_interrupt` says whether Ctrl-C stopped
        something.
        """
        self._on_line, self._on_interrupt = on_line, on_interrupt
        try:
            with patch_stdout(raw=True), contextlib.suppress(EOFError):
                self._prompt.prompt(pre_run=self._begin)
        finally:
            with self._lock:
                self._loop = None
            self.end_line()
            self._write()

    def leave(self) -> None:
        """End `run`."""
        self._soon(lambda: self._prompt.app.is_running and self._prompt.app.exit(result=""))

    # --- saying -------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Show lines above the one that is typed."""
        self._put("".join(f"{line}\n" for line in folded(text.rstrip("\n"), _columns())))

    def write(self, text: str) -> None:
        """Show a part of a line: what is not yet a whole line stands just above the one that is typed."""
        if not text:
            return
        with self._lock:
            *lines, self._tail = folded(self._tail + text, _columns() - 1)
            self._put("".join(f"{line}\n" for line in lines))

    def end_line(self) -> None:
        """No more of the line that was written in parts will come."""
        with self._lock:
            tail, self._tail = self._tail, ""
            if tail:
                self._put(f"{tail}\n")

    def _put(self, text: str) -> None:
        with self._lock:
            self._unwritten.append(text)
            loop, is_due = self._loop, self._is_due
            self._is_due = loop is not None
        if loop is None:
            self._write()
        elif not is_due:
            self._soon(lambda: loop.call_later(_GATHER_S, lambda: run_in_terminal(self._write)))

    def _write(self) -> None:
        with self._lock:
            text, self._is_due = "".join(self._unwritten), False
            self._unwritten.clear()
            sys.__stdout__.write(text)  # type: ignore[union-attr]  # there is a terminal
            sys.__stdout__.flush()  # type: ignore[union-attr]

    def _begin(self) -> None:
        with self._lock:
            self._loop = get_app().loop

    def _soon(self, do: Callable[[], object]) -> None:
        """Do something in the thread that reads."""
        with self._lock, contextlib.suppress(RuntimeError):  # it has ended: `run` writes what is left
            if self._loop is not None:
                self._loop.call_soon_threadsafe(do)

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(self, text: str) -> bool:
        """Put a question, and wait for the answer of the person, who goes on as before meanwhile.

        The answer is a line that was begun after the question could be read: nothing that was typed before is taken for one.
        """
        question = _Question()
        self.say(text)
        with self._lock:
            self.refuse()  # of a thread that was stopped just before it asked: nobody waits for that answer
            self._question = question
        self._soon(self._prompt.app.invalidate)
        question.done.wait()
        return question.agreed

    @property
    def asks(self) -> bool:
        """Whether a question stands."""
        return self._question is not None

    def refuse(self) -> None:
        """Answer the question that stands, if any, with no."""
        with self._lock:
            question, self._question = self._question, None
        if question is not None:
            question.done.set()

    def _note_begin(self, buffer: Buffer) -> None:
        if not buffer.text:
            self._begun = None
        elif self._begun is None:
            self._begun = time.monotonic()

    def _note_read(self, _: object) -> None:
        """It is on the screen, and so is nothing unread in the terminal: what is typed from now on was typed after it."""
        question = self._question
        if question is None or question.read_from < float("inf") or self._unwritten:
            return
        if not select.select([self._prompt.app.input.fileno()], [], [], 0)[0]:
            question.read_from = time.monotonic() + _READ_S

    def _is_answer(self, text: str, begun: float | None) -> bool:
        """Whether a line was for the question that stands."""
        question, word = self._question, text.strip().lower()
        if question is None or word not in (*_YES, *_NO):
            return False
        if begun is None or begun < question.read_from:
            self.say("(that was typed before the question could be read: y or n?)")
            return True
        question.agreed = word in _YES
        self.refuse()
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def _shown_prompt(self) -> FormattedText:
        asks = "agree? y or n > " if self.asks else "> "
        return FormattedText([("", f"{self._tail}\n" if self._tail else ""), ("class:prompt", asks)])

    def _toolbar(self) -> FormattedText:
        busy = self.busy()
        lines = folded(f"{busy} | {self.status}" if busy else self.status, _columns() - 2)[:_STATUS_LINES]
        return FormattedText([("class:bottom-toolbar.text", "\n".join(f" {line} " for line in lines))])

    def _take(self, buffer: Buffer) -> None:
        """What was typed."""
        text, begun = buffer.text, self._begun
        buffer.reset(append_to_history=bool(text.strip()))
        self._begun = None
        if not text.strip():
            return
        first, *more = readable(text).split("\n")
        self.say("\n".join([f"> {first}", *(f". {line}" for line in more)]))
        for mark, paste in self._pastes.items():
            text = text.replace(mark, paste)
        self._pastes.clear()
        if not self._is_answer(text, begun):
            self._on_line(readable(text))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add(Keys.Enter)
        def _(event: KeyPressEvent) -> None:
            self._take(event.current_buffer)

        @keys.add(Keys.Escape, Keys.Enter)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add(Keys.ControlC)
        @keys.add(Keys.SIGINT)
        def _(event: KeyPressEvent) -> None:
            if not self._on_interrupt():
                event.current_buffer.reset()
                self._begun = None
                self.say("(/quit leaves; a run goes on without you)")

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            text = readable(event.data)
            if (lines := text.count("\n") + 1) > _LONG_PASTE:
                mark = f"[paste {len(self._pastes) + 1}: {lines} lines]"
                self._pastes[mark], text = text, mark
            event.current_buffer.insert_text(text)

        return keys


def _history(path: Path | None) -> History:
    if path is None or not path.parent.is_dir():
        return InMemoryHistory()
    return _SafeHistory(str(path))


def _columns() -> int:
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def folded(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` columns, broken between words; a longer word is left whole.

    What goes on in the next line stands below where it began: behind the first column, where there are columns.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        if get_cwidth(line) <= width:
            lines.append(line)
            continue
        indent = " " * min(_FIRST_COLUMN.match(line).end(), width // 2)  # type: ignore[union-attr]  # it matches anything
        now = ""
        for piece in re.findall(r"\s*\S+|\s+$", line):
            if now.strip() and get_cwidth(now + piece.rstrip()) > width:
                lines.append(now.rstrip())
                now = indent + piece.lstrip()
            else:
                now += piece
        lines.append(now)
    return lines

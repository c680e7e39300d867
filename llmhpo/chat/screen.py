"""The terminal of a chat: a line to type on, a status line below it that another thread keeps, answers above."""

from __future__ import annotations

import contextlib
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.patch_stdout import patch_stdout

from llmhpo.chat.base import COMMANDS

_REFRESH_S = 0.5
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


class Screen:
    """One terminal, read by the thread that makes it.

    `status` and `names` may be set from any thread, and are shown at the next refresh.
    """

    def __init__(self, history: Path | None = None) -> None:
        self.status = "reading the study ..."
        self._words = _Words()
        self._pastes: dict[str, str] = {}
        self._history = history
        self._prompt: PromptSession[str] = PromptSession(
            history=self._history_of(),
            completer=self._words,
            complete_while_typing=True,
            multiline=True,
            key_bindings=self._keys(),
            bottom_toolbar=lambda: FormattedText([("class:bottom-toolbar.text", f" {self.status} ")]),
            refresh_interval=_REFRESH_S,
            prompt_continuation=lambda width, _line, _wrapped: " " * (width - 2) + ". ",
            reserve_space_for_menu=4,
        )
        self._lock = threading.Lock()
        self._reader, self._terminal = threading.current_thread(), sys.stdout

    @property
    def names(self) -> tuple[str, ...]:
        """Of parameters, to complete with."""
        return self._words.names

    @names.setter
    def names(self, names: tuple[str, ...]) -> None:
        self._words.names = names

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """While it is, what is written to standard output stands above the line that is typed."""
        self._terminal = sys.stdout
        with patch_stdout(raw=True):
            yield

    def read(self) -> str:
        """The next message of the person. Raises: KeyboardInterrupt for Ctrl-C, EOFError at the end."""
        self._pastes.clear()
        text = self._prompt.prompt("> ")
        for mark, paste in self._pastes.items():
            text = text.replace(mark, paste)
        return readable(text)

    def say(self, text: str) -> None:
        """Show text above the line. From any thread."""
        self.write(text.rstrip("\n") + "\n")

    def write(self, text: str) -> None:
        """Show a part of a line."""
        # The thread that reads writes between two prompts only, and at once: what still waits when a prompt begins is drawn over.
        stream = self._terminal if threading.current_thread() is self._reader else sys.stdout
        with self._lock:
            stream.write(text)
            stream.flush()

    def _history_of(self) -> History:
        if self._history is None or not self._history.parent.is_dir():
            return InMemoryHistory()
        return _SafeHistory(str(self._history))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add(Keys.Enter)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add(Keys.Escape, Keys.Enter)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add(Keys.BracketedPaste)
        def _(event: KeyPressEvent) -> None:
            text = readable(event.data)
            if (lines := text.count("\n") + 1) > _LONG_PASTE:
                mark = f"[paste {len(self._pastes) + 1}: {lines} lines]"
                self._pastes[mark], text = text, mark
            event.current_buffer.insert_text(text)

        return keys

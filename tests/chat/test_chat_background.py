"""What takes time is done in threads, one thing after the other, and can be left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmhpo.chat.background import Background
from llmhpo.chat.base import Session
from llmhpo.errors import ConfigError


class Seen:
    """What a session was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.waited, self.all_done = threading.Event(), threading.Event()
        self.background = Background(Session(Path("study.toml"), self.said.append, lambda _: True), "test")

    def wait(self, session: Session) -> None:
        """Work that lasts until the gate is opened."""
        self.begun.set()
        assert self.gate.wait(30)
        try:
            session.say("waited")
        finally:
            self.waited.set()

    def end(self, _: Session) -> None:
        self.all_done.set()

    def finish(self) -> list[str]:
        self.background.put("end", self.end)
        assert self.all_done.wait(30)
        return self.said


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_what_comes_meanwhile_is_done_afterwards(seen: Seen) -> None:
    assert seen.background.put("first", seen.wait)
    assert not seen.background.put("second", lambda session: session.say("second"))
    assert seen.background.what == "first"
    seen.gate.set()
    assert seen.finish() == ["waited", "second"]


def test_what_was_left_says_nothing_more_and_what_waited_is_dropped(seen: Seen) -> None:
    seen.background.put("first", seen.wait)
    seen.background.put("second", lambda session: session.say("second"))
    assert seen.begun.wait(30)
    assert seen.background.stop() == "first"
    seen.gate.set()
    assert seen.waited.wait(30)
    assert seen.finish() == []


def test_what_was_left_while_it_asked_does_not_go_on_with_a_yes(seen: Seen) -> None:
    done: list[str] = []

    def ask(question: str) -> bool:
        seen.begun.set()
        return seen.gate.wait(30)

    def work(session: Session) -> None:
        try:
            if session.ask("agree?"):
                done.append("spent")
        finally:
            seen.all_done.set()

    background = Background(Session(Path("study.toml"), seen.said.append, ask), "test")
    background.put("first", work)
    assert seen.begun.wait(30)
    background.stop()
    seen.gate.set()
    assert seen.all_done.wait(30)
    assert done == []


def test_an_error_is_said_and_the_next_thing_is_done(seen: Seen) -> None:
    def fail(_: Session) -> None:
        raise ConfigError("give a number")

    seen.background.put("first", fail)
    assert seen.finish() == ["error: give a number"]


def test_a_defect_is_said_with_its_place_and_ends_nothing(seen: Seen) -> None:
    def fail(_: Session) -> None:
        raise IndexError("3")

    seen.background.put("/plot", fail)
    assert seen.finish() == ["error: /plot: IndexError: 3; this is a defect of llmhpo, please report it"]


def test_nothing_is_stopped_where_nothing_is_under_way(seen: Seen) -> None:
    assert seen.background.stop() == ""

"""A question to the person ends with the answer that it belongs to, however the two meet."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("prompt_toolkit")

from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput

from llmhpo.chat.base import Session
from llmhpo.chat.command import _Front
from llmhpo.chat.screen import Screen


class SlowScreen(Screen):
    """Between what a question says and its standing, it waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.said, self.may_ask = threading.Event(), threading.Event()

    def say(self, text: str) -> None:
        super().say(text)
        if text == "agree?":
            self.said.set()
            assert self.may_ask.wait(30)


@pytest.fixture
def screen() -> Iterator[SlowScreen]:
    with create_app_session(input=DummyInput(), output=DummyOutput()):
        yield SlowScreen()


def until_it_asks(screen: Screen) -> None:
    end = time.monotonic() + 30
    while not screen.asks and time.monotonic() < end:
        time.sleep(0.01)
    assert screen.asks


def test_a_question_that_comes_after_its_answer_was_stopped_is_taken_away_by_the_next_stop(screen: SlowScreen) -> None:
    session = Session(Path("study.toml"), screen.say, screen.ask)
    front = _Front(session, screen)

    def answer(session: Session) -> None:
        session.ask("agree?")

    front._answers.put("the model answers", answer)
    assert screen.said.wait(30)
    assert front.stop()
    screen.may_ask.set()
    until_it_asks(screen)
    assert (front.stop(), screen.asks) == (True, False)


def test_a_question_is_answered_with_no_where_another_takes_its_place(screen: SlowScreen) -> None:
    screen.may_ask.set()
    answers: list[bool] = []
    older = threading.Thread(target=lambda: answers.append(screen.ask("agree?")), daemon=True)
    newer = threading.Thread(target=lambda: screen.ask("and now?"), daemon=True)
    older.start()
    until_it_asks(screen)
    newer.start()
    older.join(30)
    screen.refuse()
    newer.join(30)
    assert (answers, newer.is_alive()) == ([False], False)

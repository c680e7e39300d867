"""Several models as one: who answers where one of them cannot, and what is known of the whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from llmhpo.errors import LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.ensemble import Ensemble
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.usage import Price

ASK = Request((Message("user", "Propose."),), deadline_s=20.0)


class Clerk(ScriptedModel):
    """Answers by its name, and remembers what it was asked."""

    def __init__(self, name: str, error: Callable[[], Exception] | None = None, pause_s: float = 0.0) -> None:
        super().__init__([name] * 9, name=name)
        self.asked: list[Request] = []
        self._error, self._pause_s = error, pause_s

    def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        time.sleep(self._pause_s)
        if self._error is not None:
            raise self._error()
        return super().complete(request)


ERRORS: list[Callable[[], LLMError]] = [
    lambda: LLMUnavailableError("nothing listens there"),
    lambda: LLMRequestError("refuses the key"),
    lambda: LLMPromptError("the prompt is too long"),
]


def html() -> LLMError:
    return LLMReplyError("answered with HTML")


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e()).__name__)
def test_the_next_model_answers_for_one_that_cannot(error: Callable[[], LLMError]) -> None:
    assert Ensemble([Clerk("a", error), Clerk("b"), Clerk("c")]).complete(ASK).text == "b"


def test_where_none_answers_the_error_is_the_last_models() -> None:
    with pytest.raises(LLMReplyError, match="HTML"):
        Ensemble([Clerk("a", ERRORS[1]), Clerk("b", html)]).complete(ASK)


def test_one_that_talks_nonsense_costs_its_request_and_is_asked_last_from_then_on() -> None:
    first, second = Clerk("a", html), Clerk("b")
    ensemble = Ensemble([first, second])
    with pytest.raises(LLMReplyError, match="HTML"):
        ensemble.complete(ASK)
    assert second.asked == []  # one request was allowed, and may be on the bill
    assert ensemble.complete(ASK).text == "b"
    assert len(first.asked) == 1


def test_a_request_that_was_cut_off_is_not_put_to_the_next_which_would_cost_it_twice() -> None:
    second = Clerk("b")
    cut = Clerk("a", lambda: LLMUnavailableError("too late", was_cut_off=True))
    with pytest.raises(LLMUnavailableError, match="too late"):
        Ensemble([cut, second]).complete(ASK)
    assert second.asked == []


def test_the_models_share_one_deadline() -> None:
    first, second = Clerk("a", ERRORS[0], pause_s=0.2), Clerk("b")
    Ensemble([first, second]).complete(ASK)
    assert first.asked[0].deadline_s == 20.0
    assert 15.0 < second.asked[0].deadline_s <= 19.8


def test_that_another_model_answers_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    ensemble = Ensemble([Clerk("a", ERRORS[1]), Clerk("b")])
    for _ in range(3):
        ensemble.complete(ASK)
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert told == ["refuses the key; the next model of the list is asked instead of a"]


def test_the_whole_costs_at_most_what_its_dearest_model_costs() -> None:
    dear, cheap = ScriptedModel([], name="a", price=Price(1.0, 9.0)), ScriptedModel([], name="b", price=Price(2.0, 3.0))
    assert Ensemble([dear, cheap]).price == Price(2.0, 9.0)
    assert Ensemble([dear, ScriptedModel([], name="c", price=None)]).price is None

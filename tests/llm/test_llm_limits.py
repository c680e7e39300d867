"""Limits a minute are kept by all who ask with one key, against a real server on loopback."""

from __future__ import annotations

import secrets

import loopback
import pytest
from consulting import ask
from loopback import status

from llmhpo.errors import LLMUnavailableError
from llmhpo.llm import make_llm

pytestmark = pytest.mark.usefixtures("keys")


def test_requests_wait_for_the_minute_to_pass_or_say_so() -> None:
    with loopback.serving("openai") as service:
        model = make_llm({"model": f"openai:{secrets.token_hex(4)}", "base_url": service.url, "requests_per_minute": 2})
        assert model is not None
        for number in range(2):
            model.complete(ask(number=number, deadline_s=40.0))
        with pytest.raises(LLMUnavailableError, match="requests_per_minute") as caught:
            model.complete(ask(number=2, deadline_s=40.0))
        model.close()
    assert 50 < (caught.value.retry_after_s or 0) <= 60
    assert len(service.seen) == 2


def test_several_studies_share_the_limits_of_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback.serving("openai") as service:
        spec = {"model": f"openai:{secrets.token_hex(4)}", "base_url": service.url, "requests_per_minute": 2}
        first, second = make_llm(spec), make_llm(spec)
        monkeypatch.setenv("OPENAI_API_KEY", "another-key")
        other = make_llm(spec)
        assert first is not None
        assert second is not None
        assert other is not None
        first.complete(ask(deadline_s=40.0))
        second.complete(ask(deadline_s=40.0))
        for model in (first, second):
            with pytest.raises(LLMUnavailableError, match="requests_per_minute"):
                model.complete(ask(number=1, deadline_s=40.0))
        assert other.complete(ask(deadline_s=40.0)).text
        for model in (first, second, other):
            model.close()
    assert len(service.seen) == 3


def test_what_is_sent_again_after_a_fault_counts_as_a_request() -> None:
    with loopback.serving("openai") as service:
        model = make_llm({"model": f"openai:{secrets.token_hex(4)}", "base_url": service.url, "requests_per_minute": 2})
        assert model is not None
        service.faults = [status(500, headers={"Retry-After": "0"})]
        model.complete(ask(deadline_s=40.0))
        with pytest.raises(LLMUnavailableError, match="requests_per_minute"):
            model.complete(ask(number=1, deadline_s=40.0))
        model.close()
    assert len(service.seen) == 2

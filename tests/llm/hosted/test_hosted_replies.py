"""Replies and bills of hosted services. One contract for the clients of hosted services, tried against a real server on loopback."""

from __future__ import annotations

import json

import loopback as servers
import pytest
from asking import MESSAGES, ask, error_of, make
from consulting import KEY
from loopback import Service

from llmhpo.errors import LLMReplyError
from llmhpo.llm.client import HostedModel
from llmhpo.usage import Price

LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


def test_a_reply_comes_back_as_text_with_model_and_time(model: HostedModel) -> None:
    completion = model.complete(ask())
    assert (completion.text, completion.model, completion.finish) == (servers.REPLY, "m-1", "stop")
    assert completion.seconds > 0


def test_the_key_travels_in_the_authorization_header_alone(model: HostedModel, service: Service) -> None:
    model.complete(ask())
    seen = service.seen[0]
    assert KEY in seen.headers["authorization"]
    assert KEY not in json.dumps(seen.body) + seen.path


def test_every_message_is_sent(model: HostedModel, service: Service) -> None:
    model.complete(ask())
    sent = json.dumps(service.seen[0].body)
    assert all(message.content in sent for message in MESSAGES)


def test_the_reply_is_bounded_by_max_tokens(model: HostedModel, service: Service) -> None:
    model.complete(ask(max_tokens=77))
    body = service.seen[0].body
    assert next(body[name] for name in LIMITS if name in body) == 77 + model.overhead_tokens


@pytest.mark.parametrize("finish", ["length", "refusal"])
def test_a_cut_or_refused_reply_says_so(model: HostedModel, service: Service, finish: str) -> None:
    service.finish = finish
    assert model.complete(ask()).finish == finish


@pytest.mark.parametrize("finish", ["", "gremlins"])
def test_a_reply_without_a_known_reason_for_its_end_is_not_taken_for_whole(
    model: HostedModel, service: Service, finish: str
) -> None:
    service.finish = finish
    assert isinstance(error_of(model), LLMReplyError)


def test_an_empty_reply_is_handed_on_with_its_bill(model: HostedModel, service: Service) -> None:
    service.text = " \n"
    completion = model.complete(ask())
    assert completion.text.strip() == ""
    assert completion.usage.tokens == 120


def test_usage_and_cached_tokens_are_as_the_service_says(style: str, service: Service) -> None:
    usage = make(style, service.url, price=Price(1.0, 10.0, 0.1)).complete(ask()).usage
    assert (usage.calls, usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (1, 100, 60, 20)


def test_the_bill_is_reckoned_from_the_price(style: str, service: Service) -> None:
    usage = make(style, service.url, price=Price(1.0, 10.0, 0.1)).complete(ask()).usage
    assert usage.usd == pytest.approx((40 * 1.0 + 60 * 0.1 + 20 * 10.0) / 1e6, rel=0.05)


def test_the_bill_at_another_server_is_not_known(model: HostedModel) -> None:
    assert model.complete(ask()).usage.usd is None


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        "many",
        {"prompt_tokens": -5, "completion_tokens": -1, "input_tokens": -5, "output_tokens": -1},
        {"prompt_tokens": "7", "completion_tokens": True, "input_tokens": 1.5, "output_tokens": None},
        {"prompt_tokens": 10**30, "completion_tokens": 10**30, "input_tokens": 10**30, "output_tokens": 10**30},
    ],
)
def test_missing_or_nonsense_usage_is_estimated(model: HostedModel, service: Service, usage: object) -> None:
    service.usage = usage
    counted = model.complete(ask(schema=None)).usage
    assert 0 < counted.input_tokens < 1000
    assert 0 < counted.output_tokens < 1000
    assert counted.cached_tokens == 0


def test_cached_tokens_are_never_more_than_the_input(model: HostedModel, service: Service) -> None:
    service.usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 50},
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": -3,
    }
    usage = model.complete(ask()).usage
    assert 0 <= usage.cached_tokens <= usage.input_tokens


def test_the_token_estimate_is_not_low_for_numbers(model: HostedModel) -> None:
    assert model.count_tokens("0.001234,") >= 5


def test_a_closed_model_may_be_used_again(model: HostedModel) -> None:
    model.complete(ask())
    model.close()
    assert model.complete(ask()).text == servers.REPLY

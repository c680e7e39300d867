"""What a server refuses or ignores: options, limits, schemas, tools. One contract for the clients of hosted services, tried against a real server on loopback."""

from __future__ import annotations

import json

import loopback as servers
import pytest
from asking import ask, error_of
from loopback import Service, status

from llmhpo.errors import LLMRequestError
from llmhpo.llm.client import HostedModel


def test_bounds_are_not_sent_where_structured_output_does_not_know_them(model: HostedModel, service: Service) -> None:
    model.complete(ask())
    assert len(service.seen) == 1


def test_a_parameter_named_like_a_keyword_stays_in_the_schema(model: HostedModel, service: Service) -> None:
    model.complete(ask())
    form = json.dumps(service.seen[0].body)
    assert '"maximum": {"type": "integer"' in form


REFUSALS = {
    "responses": [
        ({"temperature": "Unsupported parameter: 'temperature' is not supported with this model."}, "temperature"),
        ({"store": "Unknown parameter: 'store'"}, "store"),
    ],
    "chat": [
        ({"max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model."}, "max_tokens"),
        ({"temperature": "Unsupported value: 'temperature' does not support 0.5 with this model."}, "temperature"),
        ({"seed": "seed: Extra inputs are not permitted"}, "seed"),
    ],
    "anthropic": [({"temperature": "temperature: `temperature` is deprecated for this model."}, "temperature")],
}
FORMAT = {"responses": "text", "chat": "response_format", "anthropic": "output_config"}
NO_FORM = {
    "responses": {"text": "Invalid parameter: 'text.format' of type 'json_schema' is not supported with this model."},
    "chat": {"response_format": "This response_format type is unavailable now"},
    "anthropic": {"output_config": "output_config: Extra inputs are not permitted"},
}


@pytest.mark.parametrize(
    ("style", "rejects", "option"),
    [(style, rejects, option) for style, refusals in REFUSALS.items() for rejects, option in refusals],
    indirect=["style"],
)
def test_a_refused_option_is_left_out_and_remembered(
    model: HostedModel, service: Service, rejects: dict[str, str], option: str
) -> None:
    service.rejects = rejects
    for _ in range(2):
        assert model.complete(ask(temperature=0.5)).text == servers.REPLY
    assert [option in seen.body for seen in service.seen] == [True, False, False]


@pytest.mark.parametrize("style", ["chat"], indirect=True)
def test_a_limit_on_tokens_is_sent_whatever_its_name(model: HostedModel, service: Service) -> None:
    service.rejects = {"max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
    model.complete(ask(max_tokens=55))
    assert service.seen[-1].body["max_completion_tokens"] == 55


@pytest.mark.parametrize("style", ["chat"], indirect=True)
def test_a_limit_that_is_ignored_is_sent_by_its_newer_name_from_then_on(model: HostedModel, service: Service) -> None:
    for _ in range(2):
        model.complete(ask(max_tokens=10))  # the usage says 20
    assert ["max_completion_tokens" in seen.body for seen in service.seen] == [False, True]


@pytest.mark.parametrize("style", ["chat"], indirect=True)
def test_a_limit_that_is_too_high_is_not_taken_for_a_limit_that_is_unknown(
    model: HostedModel, service: Service
) -> None:
    words = "max_tokens is too large: 99. This model supports at most 16 completion tokens."
    service.rejects = {"max_tokens": words}
    assert isinstance(error_of(model), LLMRequestError)
    assert len(service.seen) == 1


def test_where_a_schema_is_refused_a_forced_tool_asks_for_the_form(
    style: str, model: HostedModel, service: Service
) -> None:
    service.rejects = NO_FORM[style]
    for _ in range(2):
        assert model.complete(ask()).text == servers.REPLY
    assert [FORMAT[style] in seen.body for seen in service.seen] == [True, False, False]
    assert all("reply" in json.dumps(seen.body["tool_choice"]) for seen in service.seen[1:])


def test_where_the_forced_tool_is_refused_too_the_prompt_alone_asks(
    style: str, model: HostedModel, service: Service
) -> None:
    service.rejects = NO_FORM[style] | {"tools": "tools are not supported"}
    assert model.complete(ask()).text == servers.REPLY
    assert not {"tools", "tool_choice", FORMAT[style]} & service.seen[-1].body.keys()


def test_a_tool_that_cannot_be_forced_is_offered(style: str, model: HostedModel, service: Service) -> None:
    service.rejects = NO_FORM[style]
    service.faults = [
        status(400, next(iter(NO_FORM[style].values()))),
        status(400, "Thinking mode does not support this tool_choice"),
    ]
    assert model.complete(ask()).text == servers.REPLY
    assert "auto" in json.dumps(service.seen[-1].body["tool_choice"])


def test_a_schema_that_is_taken_and_ignored_gives_way_to_a_tool(
    style: str, model: HostedModel, service: Service
) -> None:
    service.ignores = {"format"}
    texts = [model.complete(ask()).text for _ in range(3)]
    assert texts == ["I would try 0.1.", servers.REPLY, servers.REPLY]
    assert [FORMAT[style] in seen.body for seen in service.seen] == [True, False, False]


def test_a_tool_that_is_taken_and_ignored_gives_way_to_the_prompt_alone(
    style: str, model: HostedModel, service: Service
) -> None:
    service.ignores = {"format", "tools"}
    texts = [model.complete(ask()).text for _ in range(3)]
    assert texts == ["I would try 0.1."] * 2 + [servers.REPLY]
    assert not {"tools", "tool_choice", FORMAT[style]} & service.seen[-1].body.keys()


def test_a_form_that_was_kept_once_is_not_given_up_for_one_bad_reply(
    style: str, model: HostedModel, service: Service
) -> None:
    model.complete(ask())
    service.text = "no"
    model.complete(ask())
    service.text = servers.REPLY
    model.complete(ask())
    assert all(FORMAT[style] in seen.body for seen in service.seen)


@pytest.mark.parametrize("finish", ["length", "refusal"])
def test_a_reply_that_was_cut_or_refused_tells_nothing_of_the_form(
    style: str, model: HostedModel, service: Service, finish: str
) -> None:
    service.finish, service.text = finish, "no"
    model.complete(ask())
    model.complete(ask())
    assert all(FORMAT[style] in seen.body for seen in service.seen)


def test_another_400_is_not_tried_again(model: HostedModel, service: Service) -> None:
    service.faults = [status(400, "messages: roles must alternate")]
    assert isinstance(error_of(model), LLMRequestError)
    assert len(service.seen) == 1


def test_a_tool_whose_arguments_are_made_up_gives_way_to_the_prompt_alone(
    style: str, model: HostedModel, service: Service
) -> None:
    service.rejects = NO_FORM[style]
    service.text = '{"lr": 7.0, "maximum": 1}'  # the types are right
    for _ in range(2):
        model.complete(ask())
    assert "tools" not in service.seen[-1].body

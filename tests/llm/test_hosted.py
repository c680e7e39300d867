"""One contract for the clients of hosted services, tried against a real server on loopback."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import traceback
from collections.abc import Iterator
from urllib.parse import quote

import loopback as servers
import pytest
import tenacity
from loopback import Fault, Service, raw, status

from llmhpo.errors import (
    ConfigError,
    LLMError,
    LLMPromptError,
    LLMReplyError,
    LLMRequestError,
    LLMUnavailableError,
)
from llmhpo.llm.anthropic_api import anthropic_model
from llmhpo.llm.base import Completion, Message, Request
from llmhpo.llm.client import HostedModel
from llmhpo.llm.openai_api import openai_model
from llmhpo.llm.transport import RejectedError
from llmhpo.usage import Price

KEY = "sk-" + secrets.token_urlsafe(24) + "/+a"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "lr": {"type": "number", "minimum": 0.001, "maximum": 1.0},
        "maximum": {"type": "integer", "minimum": 1},
    },
    "required": ["lr", "maximum"],
    "additionalProperties": False,
}
LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
MESSAGES = (Message("system", "You tune."), Message("user", "Propose one configuration, as JSON."))
PROVIDER = {"responses": "openai", "chat": "openai", "anthropic": "anthropic"}


def ask(schema: dict[str, object] | None = SCHEMA, **more: object) -> Request:
    return Request(MESSAGES, schema, **{"deadline_s": 60.0, **more})  # type: ignore[arg-type]


@pytest.fixture(params=list(PROVIDER))
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.delenv(f"{name}_BASE_URL", raising=False)
        monkeypatch.setenv(f"{name}_API_KEY", KEY)


@pytest.fixture
def service(style: str) -> Iterator[Service]:
    with servers.serving(PROVIDER[style]) as service:
        service.has_responses = style == "responses"
        yield service


def make(
    style: str, base_url: str | None, model: str = "m", price: Price | None = None, **wishes: object
) -> HostedModel:
    if style == "anthropic":
        return anthropic_model(model, base_url=base_url, price=price, **wishes)
    return openai_model(model, base_url=base_url, price=price, api=style, **wishes)


@pytest.fixture
def model(style: str, service: Service) -> Iterator[HostedModel]:
    model = make(style, service.url)
    yield model
    model.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would be waited between attempts, in seconds: a clock cannot tell it from a busy machine's own pauses."""
    found: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", found.append)
    return found


def error_of(model: HostedModel, request: Request | None = None) -> LLMError:
    with pytest.raises(LLMError) as caught:
        model.complete(request or ask())
    return caught.value


# Replies


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


# Usage


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


# What a server refuses


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


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        status(429, headers={"Retry-After": "0"}),
        status(429, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        status(500),
        status(503, headers={"Retry-After": "soon"}),
        status(529, "Overloaded"),
        servers.reset,
        servers.cut_stream,
    ],
)
def test_what_may_pass_is_tried_again(model: HostedModel, service: Service, fault: Fault) -> None:
    service.faults = [fault]
    assert model.complete(ask()).text == servers.REPLY
    assert len(service.seen) == 2


def test_a_service_that_stays_away_is_given_up_after_a_few_tries(model: HostedModel, service: Service) -> None:
    service.faults = [status(500, headers={"Retry-After": "0"})] * 50
    assert isinstance(error_of(model), LLMUnavailableError)
    assert 2 <= len(service.seen) <= 6


def test_a_long_retry_after_is_reported_at_once(model: HostedModel, service: Service, pauses: list[float]) -> None:
    service.faults = [status(429, headers={"Retry-After": "3600"})]
    error = error_of(model)
    assert isinstance(error, LLMUnavailableError)
    assert error.retry_after_s == 3600
    assert pauses == []


def test_retries_end_with_the_deadline(model: HostedModel, service: Service, pauses: list[float]) -> None:
    service.faults = [status(500, headers={"Retry-After": "1"})] * 50
    assert isinstance(error_of(model, ask(deadline_s=0.9)), LLMUnavailableError)
    assert pauses == []
    assert len(service.seen) <= 1


# Faults that do not pass


@pytest.mark.parametrize("fault", [servers.hang, servers.dribble, servers.dribble_headers])
def test_the_deadline_holds_whatever_the_server_does(model: HostedModel, service: Service, fault: Fault) -> None:
    service.faults = [fault] * 10
    began = time.monotonic()
    assert isinstance(error_of(model, ask(deadline_s=0.4)), LLMUnavailableError)
    assert time.monotonic() - began < 10  # the server would go on for 20


@pytest.mark.parametrize("fault", [servers.hang, servers.dribble, servers.dribble_headers])
def test_no_thread_outlives_the_deadline_for_long(model: HostedModel, service: Service, fault: Fault) -> None:
    def threads() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("llmhpo")}

    service.faults = [fault] * 10
    error_of(model, ask(deadline_s=0.3))
    until = time.monotonic() + 10  # the server would hold one for 20
    while threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == set()


def test_a_model_works_on_after_its_deadline_passed_once(model: HostedModel, service: Service) -> None:
    model.complete(ask())  # opens the client, which takes longer than the deadline on a busy machine
    service.faults = [servers.hang]
    error_of(model, ask(deadline_s=0.5))
    assert model.complete(ask()).text == servers.REPLY


def test_a_request_that_is_late_does_not_end_another_one(model: HostedModel, service: Service) -> None:
    done: list[Completion] = []
    model.complete(ask())
    service.faults = [servers.hang, servers.slow(0.8)]
    for deadline_s in (0.6, 6.0, 30.0):  # on a busy machine it takes a while to reach the server
        late = threading.Thread(target=lambda deadline_s=deadline_s: error_of(model, ask(deadline_s=deadline_s)))
        late.start()
        while len(service.seen) < 2 and late.is_alive():
            time.sleep(0.01)
        if len(service.seen) >= 2:
            break
    done.append(model.complete(ask()))
    late.join()
    assert done[0].finish == "stop"


@pytest.mark.parametrize(
    ("fault", "form", "word"),
    [
        (status(401, "Incorrect API key"), LLMRequestError, "_API_KEY"),
        (status(403, "not allowed"), LLMRequestError, "_API_KEY"),
        (status(404, "model: m"), RejectedError, "'m'"),
        (status(402, "pay"), LLMRequestError, "quota"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), LLMRequestError, "quota"),
        (status(400, "This model's maximum context length is 8192 tokens"), LLMPromptError, "shorten"),
        (status(400, "prompt is too long: 300000 tokens > 200000 maximum"), LLMPromptError, "shorten"),
        (raw(b"<html><body>Welcome</body></html>", "text/html"), LLMReplyError, "base_url"),
        (raw(b"hello", "text/plain"), LLMReplyError, "base_url"),
        (raw(b"{]"), LLMReplyError, "base_url"),
        (raw(b"[" * 100_000), LLMReplyError, "base_url"),
        (raw(b'{"choices": [{"message": {"content": "\\ud800"}}], "content": 3}'), LLMReplyError, "base_url"),
        (raw(b"[]"), LLMReplyError, "base_url"),
        (raw(b"null"), LLMReplyError, "base_url"),
        (raw(b""), LLMReplyError, "base_url"),
        (servers.cut_json, LLMReplyError, "base_url"),
        (raw(b"{}"), LLMReplyError, "ask again"),
    ],
)
def test_an_error_names_what_to_do_and_is_not_tried_again(
    model: HostedModel, service: Service, fault: Fault, form: type[LLMError], word: str
) -> None:
    service.faults = [fault]
    error = error_of(model)
    assert type(error) is form
    assert word in str(error)
    assert service.url in str(error)
    assert len(service.seen) == 1


def test_a_server_that_is_not_there_is_unavailable_at_once(style: str, pauses: list[float]) -> None:
    with servers.serving(PROVIDER[style]) as gone:
        pass
    error = error_of(make(style, gone.url))
    assert isinstance(error, LLMUnavailableError)
    assert gone.url in str(error)
    assert pauses == []


def test_a_host_without_an_address_is_unavailable(style: str) -> None:
    error = error_of(make(style, "http://no-such-host.invalid/v1"), ask(deadline_s=2.0))
    assert isinstance(error, LLMUnavailableError)
    assert "no-such-host.invalid" in str(error)


def test_tls_to_a_server_without_it_is_unavailable(style: str, service: Service) -> None:
    error = error_of(make(style, service.url.replace("http:", "https:")), ask(deadline_s=1.0))
    assert isinstance(error, LLMUnavailableError)


def test_the_deadline_holds_where_a_server_never_shakes_hands(style: str) -> None:
    with servers.silence() as (url, _):
        began = time.monotonic()
        error = error_of(make(style, url.replace("http:", "https:")), ask(deadline_s=0.4))
    assert isinstance(error, LLMUnavailableError)
    assert time.monotonic() - began < 10


def test_a_redirect_does_not_take_the_key_along(model: HostedModel, service: Service) -> None:
    service.faults = [status(307, headers={"Location": service.url + "/elsewhere"})]
    assert isinstance(error_of(model), LLMRequestError)
    assert len(service.seen) == 1


def test_terminal_codes_of_a_service_do_not_reach_the_message(model: HostedModel, service: Service) -> None:
    service.faults = [status(401, "\x1b[2Jgone\x07")]
    assert str(error_of(model)).isprintable()


# Keys


FORMS = {
    "plain": KEY,
    "bearer": f"Bearer {KEY}",
    "url": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "inside base64": base64.b64encode(f"user:{KEY}:x".encode()).decode(),
    "other key": "sk-proj-" + "Zz9" * 12,
}
ECHOES: dict[str, object] = {
    **{f"{code}": lambda said, code=code: status(code, f"bad key {said}") for code in (400, 401, 403, 404, 429, 500)},
    "html": lambda said: raw(f"<html>{said}</html>".encode(), "text/html"),
    "json": lambda said: raw(json.dumps({"error": {"message": said}, "choices": said, "content": said}).encode()),
    "cut": lambda said: raw(f'{{"id": "{said}", '.encode()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("echo", ECHOES)
def test_no_error_shows_a_key_that_the_service_echoes(
    model: HostedModel, service: Service, echo: str, form: str
) -> None:
    said = FORMS[form]
    service.faults = [ECHOES[echo](said)] * 4  # type: ignore[operator]
    error = error_of(model, ask(deadline_s=0.2))
    links: list[BaseException | None] = [error, error.__cause__, error.__context__]
    shown = "".join(str(link) + repr(link) + repr(vars(link)) for link in links if link is not None)
    shown += "".join(traceback.format_exception(error))
    core = said.removeprefix("Bearer ")[6:-6]
    assert core not in shown


def test_the_key_shows_in_no_picture_of_a_model(model: HostedModel) -> None:
    assert KEY not in repr(model) + str(model)


def test_a_password_in_base_url_is_not_shown(style: str, service: Service) -> None:
    url = service.url.replace("http://", "http://me:hunter2hunter2@")
    service.faults = [status(404, "hunter2hunter2?")]
    assert "hunter2" not in str(error_of(make(style, url)))


def test_the_hosted_service_needs_a_key(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{PROVIDER[style].upper()}_API_KEY"
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=name):
        make(style, None)


def test_another_server_needs_no_key(style: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PROVIDER[style].upper()}_API_KEY")
    assert make(style, service.url).complete(ask()).text == servers.REPLY


def test_the_environment_may_name_the_server(style: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PROVIDER[style].upper()}_BASE_URL", service.url)
    assert make(style, None).complete(ask()).text == servers.REPLY


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h/", "http://", "http://h:x/", "http://[::1"])
def test_an_address_that_is_none_is_refused_when_the_model_is_made(style: str, url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        make(style, url)


def test_a_closed_model_may_be_used_again(model: HostedModel) -> None:
    model.complete(ask())
    model.close()
    assert model.complete(ask()).text == servers.REPLY


def test_a_tool_whose_arguments_are_made_up_gives_way_to_the_prompt_alone(
    style: str, model: HostedModel, service: Service
) -> None:
    service.rejects = NO_FORM[style]
    service.text = '{"lr": 7.0, "maximum": 1}'  # the types are right
    for _ in range(2):
        model.complete(ask())
    assert "tools" not in service.seen[-1].body

"""What goes over the wire and what does not: the key, effort, schemas, answers without end."""

from __future__ import annotations

import importlib
import json
import logging
import secrets
import traceback
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import loopback
import pytest
from loopback import Fault, Service, raw, status
from schemas import every_node

from llmhpo.agents.reply import reply_schema
from llmhpo.errors import LLMError, LLMReplyError
from llmhpo.llm import make_llm
from llmhpo.llm.base import Message, Request
from llmhpo.llm.openai_api import strict
from llmhpo.llm.recording import RecordingModel
from llmhpo.space import SearchSpace

KEY = secrets.token_urlsafe(32)
ASK = Request((Message("system", "You tune."), Message("user", "Propose.")), deadline_s=5.0)


@pytest.fixture(params=["openai", "anthropic"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    style = str(request.param)
    monkeypatch.setenv(f"{style.upper()}_API_KEY", KEY)
    with loopback.serving(style) as service:
        monkeypatch.setenv(f"{style.upper()}_BASE_URL", service.url)
        yield service


def echo(code: int, content_type: str = "application/json") -> Fault:
    """A debugging server: it shows the request's headers in body and headers."""

    def answer(handler: BaseHTTPRequestHandler, service: Service) -> None:
        seen = dict(handler.headers.items())
        said = service.error(f"you sent {seen}", code=KEY, param=KEY)
        said |= {"headers": seen, "model": KEY, "choices": [{"message": {"content": KEY}, "finish_reason": KEY}]}
        said |= {"content": [{"type": "text", "text": KEY}], "stop_reason": KEY}
        said |= {"output": [{"type": "message", "content": [{"type": "output_text", "text": KEY}]}], "status": KEY}
        data = json.dumps(said).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(data)))
        for name in ("X-Echo", "Location", "WWW-Authenticate", "X-Request-Id", "Request-Id"):
            handler.send_header(name, KEY)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def says_the_key(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """A proper reply whose text and model are the key."""
    service.text = f'{{"lr": "{KEY}"}}'
    body = json.dumps(service.reply(service.asked)).replace("m-1", KEY)
    loopback.send(handler, 200, body.encode())


FAULTS: dict[str, Fault] = {
    **{f"echo {code}": echo(code) for code in (200, 302, 400, 401, 403, 404, 409, 413, 422, 429, 500, 529)},
    "echo html": echo(200, "text/html"),
    "429": status(429, headers={"Retry-After": "0.05"}),
    "429 for an hour": status(429, headers={"Retry-After": "3600"}),
    "500": status(500),
    "html": raw(b"<html>", "text/html"),
    "hang": loopback.hang,
    "dribble": loopback.dribble,
    "dribble headers": loopback.dribble_headers,
    "reset": loopback.reset,
    "cut stream": loopback.cut_stream,
    "cut json": loopback.cut_json,
    "a reply that says it": says_the_key,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_key_is_nowhere_but_in_the_header(
    service: Service,
    fault: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)  # at DEBUG the SDKs and httpx2 print what the service sends: theirs to answer for
    service.faults = [FAULTS[fault]] * 6
    model = make_llm(f"{service.style}:m", record=tmp_path / "record.jsonl")
    assert isinstance(model, RecordingModel)
    shown = [repr(model), str(vars(model))]
    try:
        model.complete(Request(ASK.messages, deadline_s=0.2))
    except LLMError as error:
        shown += [repr(error), repr(vars(error)), *traceback.format_exception(error)]
    model.close()
    out, err = capfd.readouterr()
    shown += [out, err, caplog.text, *(p.read_text() for p in tmp_path.iterdir())]
    assert KEY not in "".join(shown)
    assert all(KEY not in json.dumps(seen.body) + seen.path for seen in service.seen)


def test_secrets_of_headers_and_addresses_are_not_passed_on_where_a_reply_says_them(
    service: Service, tmp_path: Path
) -> None:
    header, password = secrets.token_urlsafe(32), secrets.token_urlsafe(32)

    def tell(handler: BaseHTTPRequestHandler, service: Service) -> None:
        service.text = f'{{"lr": "{header} {password}"}}'
        said = json.dumps(service.reply(service.asked)).replace("m-1", header)
        loopback.send(handler, 200, said.replace('"token": "{"', f'"token": "{header}"').encode())

    service.faults = [tell]
    url = service.url.replace("//", f"//user:{password}@")
    model = make_llm(f"{service.style}:m", base_url=url, default_headers={"X-Token": header}, record=tmp_path / "r")
    assert isinstance(model, RecordingModel)
    completion = model.complete(replace(ASK, top_logprobs=3))
    model.close()
    assert completion.text == '{"lr": "[key] [key]"}'
    shown = repr(completion) + (tmp_path / "r").read_text() + str(vars(model))
    assert header not in shown
    assert password not in shown
    assert service.seen[0].headers["x-token"] == header


def test_the_key_is_sent_at_all(service: Service) -> None:
    model = make_llm(f"{service.style}:m")
    assert model is not None
    model.complete(ASK)
    model.close()
    assert service.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_an_answer_without_end_is_not_read_to_its_end(service: Service) -> None:
    sent: list[int] = []

    def flood(handler: BaseHTTPRequestHandler, service: Service) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        try:
            for _ in range(400):
                handler.wfile.write(b" " * 1_000_000)
                sent.append(1)
        except OSError:
            return

    service.faults = [flood] * 2  # one for each protocol
    model = make_llm(f"{service.style}:m")
    assert model is not None
    with pytest.raises(LLMReplyError, match="bytes"):
        model.complete(ASK)
    model.close()
    assert len(sent) < 100


# What only the services' own addresses are sent


@pytest.fixture
def hosted(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The scripted server in the place of the service's own address."""
    module = importlib.import_module(f"llmhpo.llm.{service.style}_api")
    monkeypatch.setattr(module, "SERVICE", replace(module.SERVICE, url=service.url))
    return service


def effort(service: Service, body: dict[str, object]) -> object:
    config = body.get({"openai": "reasoning", "anthropic": "output_config"}[service.style], {})
    assert isinstance(config, dict)
    return config.get("effort")


def test_a_hosted_model_is_asked_for_low_effort_and_given_room_to_think(hosted: Service) -> None:
    model = make_llm(f"{hosted.style}:m")
    assert model is not None
    model.complete(ASK)
    model.close()
    body = hosted.seen[0].body
    assert effort(hosted, body) == "low"
    assert body.get("max_output_tokens", body.get("max_tokens")) == ASK.max_tokens + model.overhead_tokens
    assert model.overhead_tokens > 1000


@pytest.mark.parametrize("service", ["openai"], indirect=True)
def test_openai_itself_is_sent_the_newer_name_of_the_limit_and_every_other_server_the_older_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("llmhpo.llm.openai_api")
    for url in (service.url, "https://api.openai.com/v1"):
        monkeypatch.setattr(module, "SERVICE", replace(module.SERVICE, url=url))
        model = make_llm({"model": "openai:m", "api": "chat"})
        assert model is not None
        model.complete(ASK)
        model.close()
    newer, older = (seen.body for seen in service.seen)
    assert ("max_completion_tokens" in newer, "max_tokens" in newer) == (True, False)
    assert ("max_completion_tokens" in older, "max_tokens" in older) == (False, True)


def test_another_server_is_not_asked_for_effort(service: Service) -> None:
    model = make_llm(f"{service.style}:m")
    assert model is not None
    model.complete(ASK)
    model.close()
    assert effort(service, service.seen[0].body) is None
    assert model.overhead_tokens == 0


def test_a_hosted_model_that_knows_no_effort_is_asked_without_from_then_on(hosted: Service) -> None:
    field = {"openai": "reasoning.effort", "anthropic": "output_config.effort"}[hosted.style]
    hosted.rejects = {field: f"Unsupported parameter: '{field}' is not supported with this model."}
    model = make_llm(f"{hosted.style}:m")
    assert model is not None
    for _ in range(2):
        model.complete(ASK)
    model.close()
    assert [effort(hosted, seen.body) for seen in hosted.seen] == ["low", None, None]


def test_an_effort_that_was_asked_for_and_refused_is_a_warning_in_every_session(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLMHPO_CAPABILITIES", str(tmp_path / "known.json"))
    field = {"openai": "reasoning.effort", "anthropic": "output_config.effort"}[service.style]
    service.rejects = {field: f"Unsupported value: '{field}' does not support 'max' with this model."}
    for _ in range(2):
        caplog.clear()
        model = make_llm({"model": f"{service.style}:m", "effort": "max"})
        assert model is not None
        model.complete(ASK)
        model.close()
        told = [(r.levelname, "'effort=max'" in r.getMessage()) for r in caplog.records if "goes on" in r.getMessage()]
        assert told == [("WARNING", True)]


def test_an_effort_that_was_refused_says_nothing_of_another_one(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLMHPO_CAPABILITIES", str(tmp_path / "known.json"))
    for wished in ("max", "high"):
        refuses = status(400, "Unsupported value: effort 'max' is not supported with this model.")
        service.faults = [refuses] if wished == "max" else []
        model = make_llm({"model": f"{service.style}:m", "effort": wished})
        assert model is not None
        model.complete(ASK)
        model.close()
    assert [effort(service, seen.body) for seen in service.seen] == ["max", None, "high"]


# The schemas that are really sent


@pytest.mark.parametrize("reasons", [True, False])
def test_the_schema_of_a_batch_is_taken_by_the_service(service: Service, space: SearchSpace, reasons: bool) -> None:
    model = make_llm(f"{service.style}:m")
    assert model is not None
    model.complete(Request(ASK.messages, reply_schema(space, 4, reasons=reasons), deadline_s=5.0))
    model.close()
    assert len(service.seen) == 1


@pytest.mark.parametrize("service", ["openai"], indirect=True)
@pytest.mark.parametrize("reasons", [True, False])
def test_openai_itself_is_sent_types_beside_enums_and_no_lengths(
    hosted: Service, space: SearchSpace, reasons: bool
) -> None:
    model = make_llm("openai:m")
    assert model is not None
    model.complete(Request(ASK.messages, reply_schema(space, 4, reasons=reasons), deadline_s=5.0))
    model.close()
    nodes = list(every_node(hosted.seen[0].body["text"]["format"]["schema"]))
    assert all("type" in node for node in nodes if "enum" in node)
    assert any("enum" in node for node in nodes)
    assert any("maximum" in node for node in nodes)
    assert not any("maxLength" in node for node in nodes)


def test_a_mixed_enum_has_all_of_its_types_and_a_name_like_a_keyword_stays() -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"maxLength": {"enum": [1, "a", None, True]}}}
    assert strict(schema)["properties"] == {
        "maxLength": {"enum": [1, "a", None, True], "type": ["boolean", "integer", "null", "string"]}
    }

"""Replies that come in server-sent events: the text as it comes, and in the end the very answer of one piece."""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from loopback import REPLY, Fault, Service, send, serving

from llmhpo.errors import LLMReplyError, LLMUnavailableError
from llmhpo.llm import make_llm
from llmhpo.llm.base import LLM, Message, Request
from llmhpo.llm.streaming import Streaming

Event = dict[str, Any]
ASK = Request((Message("user", "lr?"),), deadline_s=20)
PIECES = [REPLY[k : k + 5] for k in range(0, len(REPLY), 5)]


def events(style: str, service: Service) -> list[Event]:
    """The reply that the service would give in one piece, as its documentation has it in events."""
    whole = service.reply(service.asked)
    if style == "responses":
        deltas: list[Event] = [{"type": "response.output_text.delta", "delta": p} for p in PIECES]
        return [{"type": "response.created"}, *deltas, {"type": "response.completed", "response": whole}]
    if style == "chat":
        chunks: list[Event] = [
            {"model": "m-1", "choices": [{"delta": {"content": p}, "finish_reason": None}]} for p in PIECES
        ]
        end: list[Event] = [
            {"model": "m-1", "choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": whole["usage"]},
        ]
        return [*chunks, *end]
    start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}} for p in PIECES]
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]


def streams(style: str, *, until: int | None = None, rest: threading.Event | None = None) -> Fault:
    """The events of a good reply, or the first of them. The last one waits for `rest`."""

    def answer(handler: BaseHTTPRequestHandler, service: Service) -> None:
        assert service.asked["stream"] is True
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        said = events(style, service)[:until]
        for event in said:
            if rest is not None and event is said[-1]:
                rest.wait(10)
            handler.wfile.write(f"event: {event.get('type', 'chunk')}\ndata: {json.dumps(event)}\n\n".encode())
            handler.wfile.flush()
        if style == "chat" and until is None:
            handler.wfile.write(b"data: [DONE]\n\n")

    return answer


STYLES = [("openai", "responses"), ("openai", "chat"), ("anthropic", "messages")]


def model_of(kind: str, style: str, service: Service) -> LLM:
    options = {"api": style} if kind == "openai" else {}
    model = make_llm(f"{kind}:m", base_url=service.url, **options)
    assert model is not None
    return model


@pytest.mark.parametrize(("kind", "style"), STYLES)
def test_a_streamed_reply_is_the_same_completion_as_one_in_one_piece(kind: str, style: str) -> None:
    with serving(kind) as service:
        model = model_of(kind, style, service)
        whole = model.complete(ASK)
        service.faults.append(streams(style))
        heard: list[str] = []
        assert isinstance(model, Streaming)
        streamed = model.stream(ASK, heard.append)
    assert (streamed.text, streamed.usage, streamed.finish, streamed.model) == (
        whole.text,
        whole.usage,
        whole.finish,
        whole.model,
    )
    assert heard == ["".join(PIECES[: k + 1]) for k in range(len(PIECES))]


@pytest.mark.parametrize(("kind", "style"), STYLES)
def test_the_text_is_heard_while_the_rest_is_still_to_come(kind: str, style: str) -> None:
    with serving(kind) as service:
        model = model_of(kind, style, service)
        rest, heard = threading.Event(), []
        service.faults.append(streams(style, rest=rest))
        assert isinstance(model, Streaming)
        began = time.monotonic()
        model.stream(replace(ASK, deadline_s=60.0), lambda text: (heard.append(text), rest.set()))
    assert heard[-1] == REPLY
    assert time.monotonic() - began < 10  # the rest was not sent before something was heard


@pytest.mark.parametrize(("kind", "style"), STYLES)
def test_a_stream_that_ends_too_early_is_no_reply(kind: str, style: str) -> None:
    with serving(kind) as service:
        model = model_of(kind, style, service)
        service.faults.append(streams(style, until=4))
        assert isinstance(model, Streaming)
        with pytest.raises((LLMReplyError, LLMUnavailableError)):
            model.stream(ASK, lambda _: None)


@pytest.mark.parametrize(("kind", "style"), STYLES)
def test_a_key_within_the_text_is_not_heard(kind: str, style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = secrets.token_urlsafe(24)
    monkeypatch.setattr(sys.modules[__name__], "PIECES", ["it is ", key, ", is it?"])
    with serving(kind) as service:
        options = {"api": style} if kind == "openai" else {}
        model = make_llm(f"{kind}:m", base_url=service.url, default_headers={"X-Token": key}, **options)
        service.text = f"it is {key}, is it?"
        service.faults.append(streams(style))
        heard: list[str] = []
        assert isinstance(model, Streaming)
        said = model.stream(ASK, heard.append).text
    assert heard == ["it is ", "it is [key]", "it is [key], is it?"]
    assert said == "it is [key], is it?"


def test_a_server_that_does_not_stream_is_heard_at_the_end() -> None:
    with serving("openai") as service:
        model = model_of("openai", "chat", service)
        heard: list[str] = []
        assert isinstance(model, Streaming)
        assert model.stream(ASK, heard.append).text == REPLY
        assert heard == []


def test_an_error_within_a_stream_is_told_in_its_own_words() -> None:
    def fails(handler: BaseHTTPRequestHandler, service: Service) -> None:
        body = b'data: {"type": "error", "error": {"message": "overloaded now"}}\n\n'
        send(handler, 200, body, content_type="text/event-stream")

    with serving("openai") as service:
        model = model_of("openai", "chat", service)
        service.faults.append(fails)
        assert isinstance(model, Streaming)
        with pytest.raises(LLMReplyError, match="overloaded now"):
            model.stream(ASK, lambda _: None)

"""A real server on loopback that answers as the hosted services document, and fails as real ones do."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
REPLY = '{"lr": 0.1, "maximum": 3}'
FORMS = ("response_format", "text", "output_config")
LOGPROBS = [
    {
        "token": "{",
        "logprob": -0.25,
        "bytes": [123],
        "top_logprobs": [{"token": "{", "logprob": -0.25, "bytes": [123]}],
    },
    {"token": "}", "logprob": -0.5, "bytes": [125], "top_logprobs": []},
]
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxItems"}


@dataclass
class Seen:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: Body


@dataclass
class Service:
    """What the server does next. `faults` are served first, one a request; then a good reply, shaped by the rest."""

    style: str  # "openai" or "anthropic"
    url: str = ""
    faults: list[Callable[[BaseHTTPRequestHandler, Service], None]] = field(default_factory=list)
    rejects: dict[str, str] = field(default_factory=dict)  # argument -> the words of the 400 that answers it
    text: str = REPLY
    finish: str = "stop"
    usage: object = "documented"
    has_responses: bool = True  # of OpenAI's two protocols
    ignores: set[str] = field(default_factory=set)  # "format", "tools": taken without a word, and without an effect
    seen: list[Seen] = field(default_factory=list)

    @property
    def asked(self) -> Body:
        """The request that is being answered."""
        return self.seen[-1].body

    def error(self, message: str, **more: str) -> Body:
        """An error's body as the service documents it."""
        if self.style == "openai":
            return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}}
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message, **more}}

    def answer(self, seen: Seen) -> tuple[int, Body | bytes]:
        """Status and body: a refusal of what the service does not take, or a good reply."""
        asked = seen.body
        for argument, words in self.rejects.items():
            if _holds(asked, argument):
                return 400, self.error(words)
        if self.style == "anthropic" and _bounded(asked.get("output_config", {}).get("format", {})):
            return 400, self.error("output_config.format.schema: 'maximum' is not supported")
        if seen.path.endswith("/responses") and not self.has_responses:
            return 404, {"detail": "Not Found"}
        for name in ("response_format", "text", "tools") if self.style == "openai" else ():
            if not _strict(asked.get(name, {})):
                return 400, self.error(f"Invalid schema for {name} 'reply'", param=name)
        return 200, self.reply(asked)

    def reply(self, asked: Body) -> Body:
        """A good reply's body."""
        if self.style == "anthropic":
            return self._message(asked)
        return self._response(asked) if "input" in asked else self._chat(asked)

    def _text(self, asked: Body) -> str:
        formed = any("format" in part(asked, name) or name == "response_format" for name in FORMS if name in asked)
        ignored = ("format" in self.ignores and formed) or ("tools" in self.ignores and "tools" in asked)
        return "I would try 0.1." if ignored else self.text

    def _response(self, asked: Body) -> Body:
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        text, refused = self._text(asked), self.finish == "refusal"
        logprobs = LOGPROBS if "message.output_text.logprobs" in asked.get("include", []) else []
        piece: Body = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
        if refused:
            piece = {"type": "refusal", "refusal": text}
        output: list[Body] = [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [piece]},
        ]
        if "tools" in asked and "tools" not in self.ignores:
            output[1] = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "reply", "arguments": self.text}
        usage = {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 8},
            "total_tokens": 120,
        }
        if self.finish in ("stop", "refusal"):
            ended: Body = {"status": "completed", "incomplete_details": None}
        elif self.finish in reasons:
            ended = {"status": "incomplete", "incomplete_details": {"reason": reasons[self.finish]}}
        else:
            ended = {"status": self.finish or None, "incomplete_details": None}
        return {"id": "resp_1", "object": "response", "model": "m-1", "output": output, **ended, **self._usage(usage)}

    def _chat(self, asked: Body) -> Body:
        refused, text = self.finish == "refusal", self._text(asked)
        message: Body = {
            "role": "assistant",
            "content": None if refused else text,
            "refusal": text if refused else None,
        }
        if "tools" in asked and "tools" not in self.ignores:
            call = {"id": "c", "type": "function", "function": {"name": "reply", "arguments": self.text}}
            message |= {"content": None, "tool_calls": [call]}
        usage = {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 8},
        }
        reason = "stop" if refused else self.finish or None
        logprobs = {"content": LOGPROBS, "refusal": None} if asked.get("logprobs") else None
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "m-1",
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}],
            **self._usage(usage),
        }

    def _message(self, asked: Body) -> Body:
        reasons = {"stop": "end_turn", "length": "max_tokens", "": None}
        content: list[Body] = [{"type": "text", "text": self._text(asked)}]
        reason = reasons.get(self.finish, self.finish)
        if "thinking" in asked:
            content.insert(0, {"type": "thinking", "thinking": "", "signature": "x"})
        if "tools" in asked and "tools" not in self.ignores:
            content = [{"type": "tool_use", "id": "t", "name": "reply", "input": json.loads(self.text)}]
            reason = "tool_use"
        usage = {
            "input_tokens": 30,
            "output_tokens": 20,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "output_tokens_details": {"thinking_tokens": 8},
        }
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m-1",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            **self._usage(usage),
        }

    def _usage(self, documented: Body) -> Body:
        if self.usage is None:
            return {}
        return {"usage": documented if self.usage == "documented" else self.usage}


class _Handler(BaseHTTPRequestHandler):
    service: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.service.seen.append(Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.service.faults:
            self.service.faults.pop(0)(self, self.service)
        else:
            code, body = self.service.answer(self.service.seen[-1])
            kind = "text/event-stream" if isinstance(body, bytes) else "application/json"
            send(self, code, body, content_type=kind)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def part(body: Body, name: str) -> Body:
    inner = body.get(name)
    return inner if isinstance(inner, dict) else {}


def _holds(body: Body, argument: str) -> bool:
    first, _, rest = argument.partition(".")
    return first in body and (not rest or _holds(body[first], rest))


def _bounded(node: object, names: bool = False) -> bool:
    """Whether a schema uses a keyword that structured output does not know."""
    if isinstance(node, dict):
        if not names and _BOUNDS & node.keys():
            return True
        return any(_bounded(value, not names and key == "properties") for key, value in node.items())
    return isinstance(node, list) and any(map(_bounded, node))


def _strict(node: object) -> bool:
    """Whether every object of a schema is closed and needs all its keys, as OpenAI's strict mode asks."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and "type" in node:
            closed = node.get("additionalProperties") is False
            if not closed or sorted(node.get("required", [])) != sorted(node["properties"]):
                return False
        return all(map(_strict, node.values()))
    return not isinstance(node, list) or all(map(_strict, node))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


@dataclass
class Proxy(Service):
    """Passes requests on to the server at `upstream`; its faults strike between client and server."""

    upstream: str = ""
    upstream_s: float = 0.0  # that the server took, which may be a slow one

    def answer(self, seen: Seen) -> tuple[int, Body | bytes]:
        """What the server says; a stream of events as it is, once it is over."""
        began = time.monotonic()
        try:
            return self._answer(seen)
        finally:
            self.upstream_s += time.monotonic() - began

    def _answer(self, seen: Seen) -> tuple[int, Body | bytes]:
        kept = {k: v for k, v in seen.headers.items() if k in ("authorization", "x-api-key", "anthropic-version")}
        path = seen.path.removeprefix("/v1") if self.style == "openai" else seen.path
        request = urllib.request.Request(
            self.upstream + path, json.dumps(seen.body).encode(), {**kept, "content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=100) as response:
                streams = "event-stream" in response.headers.get("content-type", "")
                return response.status, response.read() if streams else json.load(response)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def reply(self, asked: Body) -> Body:
        """The server's reply, for faults that damage it."""
        body = self.answer(self.seen[-1])[1]
        assert isinstance(body, dict), "faults damage whole replies, not streams"
        return body


@contextmanager
def proxying(style: str, upstream: str) -> Iterator[Proxy]:
    """Start a proxy on a free port, and stop it."""
    with _running(Proxy(style, upstream=upstream)) as proxy:
        assert isinstance(proxy, Proxy)
        yield proxy


@contextmanager
def serving(style: str) -> Iterator[Service]:
    """Start a server on a free port, and stop it."""
    with _running(Service(style)) as service:
        yield service


@contextmanager
def _running(service: Service) -> Iterator[Service]:
    style = service.style
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": service}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}" + ("/v1" if style == "openai" else "")
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silence() -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes every connection and says nothing: its address, and what it was sent."""
    received: list[bytes] = []
    held: list[socket.socket] = []

    def listen(connection: socket.socket) -> None:
        while data := _received(connection):
            received.append(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            threading.Thread(target=listen, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", received
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
            thread.join()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


# Answers and faults

Fault = Callable[[BaseHTTPRequestHandler, Service], None]


def send(
    handler: BaseHTTPRequestHandler,
    code: int,
    body: Body | bytes,
    *,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(code)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def status(number: int, message: str = "no", headers: dict[str, str] | None = None, **more: str) -> Fault:
    return lambda handler, service: send(handler, number, service.error(message, **more), headers=headers)


def raw(body: bytes, content_type: str = "application/json", code: int = 200) -> Fault:
    return lambda handler, service: send(handler, code, body, content_type=content_type)


def slow(seconds: float) -> Fault:
    """A good reply, late."""

    def answer(handler: BaseHTTPRequestHandler, service: Service) -> None:
        time.sleep(seconds)
        send(handler, 200, service.reply(service.asked))

    return answer


def waiting(gate: threading.Event, answer: Fault | None = None) -> Fault:
    """A good reply, or `answer`, that comes when the gate is open."""

    def answer_then(handler: BaseHTTPRequestHandler, service: Service) -> None:
        gate.wait(110)
        if answer is None:
            send(handler, 200, service.reply(service.asked))
        else:
            answer(handler, service)

    return answer_then


def cut_stream(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """Half of a body, then the end of the connection."""
    data = json.dumps(service.reply(service.asked)).encode()
    send(handler, 200, data[: len(data) // 2], length=len(data))


def cut_json(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """Half of a body that claims to be whole."""
    data = json.dumps(service.reply(service.asked)).encode()
    send(handler, 200, data[: len(data) // 2])


def reset(handler: BaseHTTPRequestHandler, service: Service) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """Say nothing until the client goes."""
    handler.connection.settimeout(20)
    handler.connection.recv(1)


def dribble(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """A byte now and then: no single read times out."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    _slowly(handler, b" " * 400)


def dribble_headers(handler: BaseHTTPRequestHandler, service: Service) -> None:
    """As `dribble`, within the headers."""
    _slowly(handler, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 400)


def _slowly(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    for byte in data:
        try:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)

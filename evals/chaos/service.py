"""A model service that is down, or worse, for the whole run: the trials must be those without a model, and no second be lost.

Each round has one fault and one client, and runs a study of callables, which take no time, with that service and without.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import llmhpo
from evals.chaos.base import KEYS, Row, key_forms
from llmhpo.events import Consulted, Event

_PARAMETERS = {"x": {"type": "float", "low": 0.0, "high": 1.0}, "n": {"type": "int", "low": 1, "high": 64}}
SPACES = (_PARAMETERS, _PARAMETERS | {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9}})
N_TRIALS = 16
STYLES = ("openai", "anthropic")
_AT_ONCE_S = 1.0


@dataclass
class Call:
    """One request that came in, and the connection to answer on."""

    connection: socket.socket
    data: bytes

    @property
    def is_knock(self) -> bool:
        """Whether it only asks if anybody is there."""
        return self.data.startswith(b"GET")

    def answer(self, status: int, body: bytes, kind: str = "application/json", more: str = "") -> None:
        """A whole answer."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
        self.connection.sendall(head.encode() + body)

    def wait(self) -> None:
        """Until the client goes."""
        while self.connection.recv(1 << 12):
            pass


Fault = Callable[[Call], None]


def _error(message: str, code: str = "") -> bytes:
    return json.dumps({"type": "error", "error": {"type": "error", "message": message, "code": code}}).encode()


def _status(status: int, message: str = "no", more: str = "", code: str = "") -> Fault:
    return lambda call: call.answer(status, _error(message, code), more=more)


def _body(body: bytes, kind: str = "application/json") -> Fault:
    return lambda call: call.answer(200, body, kind)


def _reply(text: str, usage: object = None, finish: str = "stop") -> Fault:
    """A reply that both clients can read."""
    ends = {"stop": "end_turn", "length": "max_tokens"}
    said = {
        "model": "m", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": finish}],
        "content": [{"type": "text", "text": text}], "stop_reason": ends.get(finish, finish), "usage": usage,
    }  # fmt: skip
    return _body(json.dumps(said).encode())


def _echo(status: int) -> Fault:
    """Everything that came in, the key in the header included, goes back: as text, in base64 and quoted."""

    def fault(call: Call) -> None:
        forms = " ".join(form.decode() for form in key_forms().values())
        call.answer(status, _error(f"you sent {call.data.decode(errors='replace')} {forms}", code=os.environ[KEYS[0]]))

    return fault


def _says_the_key(call: Call) -> None:
    key = os.environ[KEYS[0]]
    _reply(json.dumps({"configurations": [{"why": f"for {key}", "x": key, key: 1}], "beliefs": {key: key}}))(call)


def _silence(call: Call) -> None:
    call.wait()


def _greeting(call: Call) -> None:
    call.answer(404, b"") if call.is_knock else call.wait()


def _dribble(call: Call) -> None:
    if call.is_knock:
        call.answer(404, b"")
        return
    call.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
    for _ in range(300):
        call.connection.sendall(b" ")
        time.sleep(1.0)


def _dribble_headers(call: Call) -> None:
    for _ in range(300):
        call.connection.sendall(b"H")
        time.sleep(1.0)


def _reset(call: Call) -> None:
    call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _cut(call: Call) -> None:
    call.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{")


def _flood(call: Call) -> None:
    call.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    for _ in range(200):
        call.connection.sendall(b" " * 100_000)


FAULTS: dict[str, Fault | None] = {
    "nobody listens": None,
    "silence": _silence,
    "headers, a byte a second": _dribble_headers,
    "500": _status(500),
    "529": _status(529),
    "429": _status(429),
    "429 for an hour": _status(429, more="Retry-After: 3600\r\n"),
    "reset": _reset,
    "cut": _cut,
    "HTML": _body(b"<html>Welcome</html>", "text/html"),
    "wrong content type": _body(b"hello", "text/plain"),
    "empty": _body(b""),
    "flood": _flood,
    "401 with the key": _echo(401),
    "500 with the key": _echo(500),
    "400 with the key": _echo(400),
    "200 with the key": _echo(200),
    "a reply that says the key": _says_the_key,
    "unknown model": _status(404, "model: m"),
    "no quota": _status(429, "You exceeded your current quota", code="insufficient_quota"),
    "context too long": _status(400, "prompt is too long: 9999 tokens > 99 maximum"),
    "empty text": _reply(""),
    "prose": _reply("I would try a smaller learning rate."),
    "cut text": _reply('{"configurations": [{"why": "', finish="length"),
    "refusal": _reply("I cannot help.", finish="refusal"),
    "negative usage": _reply(
        "no", {"prompt_tokens": -5, "completion_tokens": -5, "input_tokens": -5, "output_tokens": -5}
    ),
    "greets, then hangs": _greeting,
    "body, a byte a second": _dribble,
}


@dataclass
class Service:
    """Where it is, and what it was sent."""

    url: str
    received: list[bytes] = field(default_factory=list)

    @property
    def sent_keys(self) -> int:
        """How many requests held the key outside of the header that is for it."""
        kept = (
            b"\n".join(
                line for line in data.split(b"\r\n") if not line.lower().startswith((b"authorization:", b"x-api-key:"))
            )
            for data in self.received
        )
        return sum(any(form in data for form in key_forms().values()) for data in kept)


@contextlib.contextmanager
def serving(fault: Fault | None) -> Iterator[Service]:
    """The service on a free port of loopback; without a fault, a port on which nobody listens."""
    server = socket.create_server(("127.0.0.1", 0))
    service, open_ = Service(f"http://127.0.0.1:{server.getsockname()[1]}"), list[socket.socket]()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            data = _read(connection)
            service.received.append(data)
            assert fault is not None
            fault(Call(connection, data))

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            open_.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    if fault is None:
        server.close()
    else:
        thread.start()
    try:
        yield service
    finally:
        if fault is not None:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join()
        for connection in open_:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _read(connection: socket.socket) -> bytes:
    """One request."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := connection.recv(1 << 16)):
            raise ValueError("a client that hung up")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < lengths[0] and (part := connection.recv(1 << 16)):
        body += part
    return head + b"\r\n\r\n" + body


@dataclass
class Measured:
    """A study with a faulty service, beside the same one without a model."""

    other_trials: int  # trials whose configuration differs
    added_s: float
    requests: int  # that the study counted
    messages: int  # consultations that ended in an error, each told once
    sent_keys: int


def measure(fault: str, style: str, folder: Path, seed: int = 0) -> Measured:
    """Run both studies below `folder`; with an even seed no configuration is given to begin with."""
    plain, plain_s, _ = _study(None, None, folder / "plain", seed)
    with serving(FAULTS[fault]) as service:
        url = service.url + ("/v1" if style == "openai" else "")
        result, seconds, events = _study(f"{style}:m", url, folder / "faulty", seed)
        sent_keys = service.sent_keys
    pairs = zip(result.trials, plain.trials, strict=True)
    return Measured(
        sum(a.params != b.params for a, b in pairs),
        round(seconds - plain_s, 2),
        result.usage.calls,
        sum(isinstance(e, Consulted) and bool(e.batch.error) for e in events),
        sent_keys,
    )


def _loss(p: Mapping[str, Any]) -> float:
    return float((p["x"] - 0.3) ** 2 + p["n"] / 100)


def _study(llm: str | None, url: str | None, folder: Path, seed: int) -> tuple[llmhpo.Result, float, list[Event]]:
    events: list[Event] = []
    start = time.monotonic()
    result = llmhpo.optimize(
        _loss, SPACES[seed % 2], llm=llm, base_url=url, n_trials=N_TRIALS, seed=seed,
        study_name="service", cwd=folder, on_event=events.append,
    )  # fmt: skip
    return result, time.monotonic() - start, events


def run(rounds: int, folder: Path, seed: int) -> Row:
    """The case, for `evals.chaos`. A round that looks slow is done up to five times: the machine may have been slow."""
    row = Row("service", rounds, {"rounds with other trials": 0, "rounds 1 s slower": 0, "requests with the key": 0})
    for style in STYLES:  # imports
        measure("nobody listens", style, folder / f"warm-{style}", seed)
    worst, requests = 0.0, 0
    for k, (fault, style) in zip(range(rounds), _endlessly(), strict=False):
        tries: list[Measured] = []
        while not tries or (len(tries) < 5 and tries[-1].added_s >= _AT_ONCE_S):
            tries.append(measure(fault, style, folder / f"{k}.{len(tries)}", seed + k))
        added = min(t.added_s for t in tries)
        row.zero["rounds with other trials"] += any(t.other_trials for t in tries)
        row.zero["requests with the key"] += sum(t.sent_keys for t in tries)
        requests += sum(t.requests for t in tries)
        worst = max(worst, added)
        row.zero["rounds 1 s slower"] += added >= _AT_ONCE_S
    row.seen = {"most seconds added": worst, "requests": requests}
    return row


def _endlessly() -> Iterator[tuple[str, str]]:
    """Every fault with one client, then every one with the other."""
    for k in count():
        for i, fault in enumerate(FAULTS):
            yield fault, STYLES[(i + k) % 2]

"""What every model must hold: scripted, hosted by two services in three protocols, on this machine; behind a proxy full of faults.

The hosted clients ask the scripted server of the tests, which answers as the services document, and with the mark `katan`
llm-katan, which nobody here wrote: it ignores schemas and makes its tool arguments up.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import loopback
import pytest
from loopback import Body, Fault, Proxy, Service, raw, status

from llmhpo.agents.consult import Consultant
from llmhpo.agents.questions import warmstart
from llmhpo.errors import LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm import make_llm, smollm2
from llmhpo.llm.base import LLM, Message, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.llm.streaming import Streaming
from llmhpo.space import InvalidParams, SearchSpace
from llmhpo.trial import Batch, Context, Task
from llmhpo.usage import Caps

KEY = "sk-" + secrets.token_urlsafe(24)
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-3, "high": 1.0, "log": True, "default": 0.1},
        "maximum": {"type": "int", "low": 1, "high": 8},
    }
)
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "lr": {"type": "number", "minimum": 0.001, "maximum": 0.5},  # llm-katan makes up 1.0
        "maximum": {"type": "integer", "minimum": 1, "maximum": 8},
    },
    "required": ["lr", "maximum"],
    "additionalProperties": False,
}
WIRES = {"responses": "openai", "chat": "openai", "anthropic": "anthropic"}
KATAN = [pytest.param(f"katan {wire}", marks=pytest.mark.katan) for wire in ("chat", "anthropic")]
REMOTE = [*WIRES, *KATAN]


def ask(**more: object) -> Request:
    messages = (Message("system", "You tune."), Message("user", "Propose lr and maximum, as JSON."))
    return Request(messages, **{"max_tokens": 12, "deadline_s": 100.0, **more})  # type: ignore[arg-type]


@dataclass
class Backend:
    """A model; where it is behind a server, the proxy before it; whether it keeps to schemas, and says why a reply ended."""

    model: LLM
    proxy: Proxy | None = None
    is_real: bool = False
    documents: bool = True
    closing: ExitStack = field(default_factory=ExitStack)


@pytest.fixture(scope="module")
def katan() -> Iterator[str]:
    """The address of llm-katan with SmolLM2."""
    folder = os.environ.get("LLMHPO_KATAN")
    if not folder:
        pytest.skip("LLMHPO_KATAN names no folder with llm-katan; run: make katan")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = smollm2.install(print)
    command = [
        sys.executable,
        "-c",
        "from llm_katan.cli import main; main()",
        "--model",
        str(model),
        "--name",
        "smollm2",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-quantize", "--providers", "openai,anthropic"]
    environment = {**os.environ, "PYTHONPATH": folder, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(url, server)
            _warm(url)
            yield url
        finally:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 110
    while time.monotonic() < until:
        assert server.poll() is None, "llm-katan does not start"
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    pytest.fail("llm-katan is not there after 110 s")


def _warm(url: str) -> None:
    """The first request loads the model."""
    asked = {"model": "smollm2", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"content-type": "application/json", "authorization": "Bearer any"},
    )
    urllib.request.urlopen(request, timeout=110).close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.delenv(f"{name}_BASE_URL", raising=False)
        monkeypatch.setenv(f"{name}_API_KEY", KEY)


@pytest.fixture(params=["scripted", "local", *REMOTE])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    yield from _backend(request)


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> Iterator[Backend]:
    yield from _backend(request)


def _backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    kind = str(request.param)
    with ExitStack() as closing:
        if kind == "scripted":
            yield Backend(ScriptedModel(dict.fromkeys(range(50), loopback.REPLY)))
            return
        if kind == "local":
            yield Backend(request.getfixturevalue("smollm2_model"), is_real=True)
            return
        is_katan, wire = kind.startswith("katan "), kind.removeprefix("katan ")
        service = WIRES[wire]
        upstream = request.getfixturevalue("katan") if is_katan else None
        if upstream is None:
            server = closing.enter_context(loopback.serving(service))
            server.has_responses = wire == "responses"
            upstream = server.url
        elif service == "openai":
            upstream += "/v1"
        proxy = closing.enter_context(loopback.proxying(service, upstream))
        api = {"api": wire} if service == "openai" else {}
        model = make_llm({"model": f"{service}:smollm2", "base_url": proxy.url, **api})
        assert model is not None
        closing.callback(model.close)
        yield Backend(model, proxy, is_real=is_katan, documents=not is_katan)


@pytest.fixture(scope="module")
def smollm2_model() -> Iterator[LLM]:
    smollm2.install(print)
    model = make_llm("smollm2", device="cpu")
    assert model is not None
    yield model
    model.close()


# A request and its answer


def test_an_answer_is_text_with_a_bill_a_name_and_a_reason_for_its_end(backend: Backend) -> None:
    completion = backend.model.complete(ask())
    assert completion.text.strip()
    assert completion.finish in ("stop", "length")
    assert completion.model
    usage = completion.usage
    assert usage.calls == 1
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert 0 <= usage.cached_tokens <= usage.input_tokens


def test_a_schema_is_kept_where_the_server_knows_schemas(backend: Backend) -> None:
    completion = backend.model.complete(ask(schema=SCHEMA, max_tokens=60 if backend.documents else 8))
    assert completion.text
    if backend.documents:
        assert set(json.loads(completion.text)) == {"lr", "maximum"}


def test_a_server_that_ignores_schemas_and_makes_tools_up_is_asked_in_words_in_the_end(remote: Backend) -> None:
    for number in range(3):
        remote.model.complete(ask(schema=SCHEMA, number=number, max_tokens=4))
    assert remote.proxy is not None
    forms = {"response_format", "text", "output_config", "tools"}
    assert bool(forms & remote.proxy.seen[-1].body.keys()) == remote.documents


def test_a_streamed_answer_is_whole_whether_or_not_the_server_streams(remote: Backend) -> None:
    heard: list[str] = []
    assert isinstance(remote.model, Streaming)
    completion = remote.model.stream(ask(max_tokens=4), heard.append)
    assert completion.text
    assert completion.finish in ("stop", "length")
    assert (completion.usage.calls, completion.usage.output_tokens > 0) == (1, True)
    assert heard[-1:] in ([], [completion.text])
    assert remote.documents or heard  # llm-katan sends events, the scripted server has none here: see test_streaming


def test_tokens_are_counted_and_never_fewer_for_more_text(backend: Backend) -> None:
    few, many = backend.model.count_tokens("lr=0.001"), backend.model.count_tokens("lr=0.001, momentum=0.9, width=128")
    assert 0 < few < many


def test_a_closed_model_answers_again(backend: Backend) -> None:
    backend.model.complete(ask(max_tokens=4))
    backend.model.close()
    assert backend.model.complete(ask(max_tokens=4)).usage.calls == 1


def test_threads_may_share_a_model(backend: Backend) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(backend.model.complete(ask(number=k, max_tokens=4)).text))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3


def test_a_request_that_takes_too_long_is_given_up_at_its_deadline(backend: Backend) -> None:
    if isinstance(backend.model, ScriptedModel):
        return  # it takes no time
    if backend.proxy is not None:
        backend.proxy.faults = [loopback.hang] * 4
    began = time.monotonic()
    with pytest.raises(LLMUnavailableError) as caught:
        backend.model.complete(ask(max_tokens=2000, deadline_s=0.4))
    assert "deadline" in str(caught.value)
    assert time.monotonic() - began < 20.0  # a step of a local model may be under way


@pytest.mark.parametrize("backend", ["scripted", "local", *WIRES], indirect=True)
def test_a_consultation_gives_only_configurations_of_the_space(backend: Backend) -> None:
    batch = consult(backend.model)
    assert batch.usage.calls >= 1
    assert all(not isinstance(SPACE.coerce(p.params), InvalidParams) for p in batch.proposals)


def consult(model: LLM, deadline_s: float = 100.0) -> Batch:
    context = Context(Task("a small network", "loss", "minimize"), SPACE, budget_left=8)
    return Consultant(model, caps=Caps(), deadline_s=deadline_s).consult(context, warmstart(context, 2, reasons=False))


# Faults of the service, between client and server

PASSING: dict[str, Fault] = {
    "429": status(429, headers={"Retry-After": "0"}),
    "500": status(500, headers={"Retry-After": "0"}),
    "529": status(529, headers={"Retry-After": "0"}),
    "reset": loopback.reset,
    "cut stream": loopback.cut_stream,
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_outlived(remote: Backend, fault: str) -> None:
    assert remote.proxy is not None
    remote.proxy.faults = [PASSING[fault]]
    assert remote.model.complete(ask(max_tokens=4)).usage.calls == 1


LASTING: dict[str, tuple[Fault, type[LLMError], str]] = {
    "429 for an hour": (status(429, headers={"Retry-After": "3600"}), LLMUnavailableError, "3600 s"),
    "one byte a second": (loopback.dribble, LLMUnavailableError, "deadline_s"),
    "one byte of headers a second": (loopback.dribble_headers, LLMUnavailableError, "deadline_s"),
    "hang": (loopback.hang, LLMUnavailableError, "deadline_s"),
    "HTML": (raw(b"<html>Welcome</html>", "text/html"), LLMReplyError, "base_url"),
    "wrong content type": (raw(b"hello", "text/plain"), LLMReplyError, "base_url"),
    "invalid JSON": (raw(b"{]"), LLMReplyError, "base_url"),
    "cut JSON": (loopback.cut_json, LLMReplyError, "base_url"),
    "empty": (raw(b""), LLMReplyError, "base_url"),
    "401": (status(401, "Incorrect API key"), LLMRequestError, "_API_KEY"),
    "context too long": (status(400, "prompt is too long: 9 tokens > 8 maximum"), LLMPromptError, "shorten"),
    "unknown model": (status(404, "model: smollm2"), LLMRequestError, "'smollm2'"),
    "no quota": (status(429, "You exceeded your current quota", code="insufficient_quota"), LLMRequestError, "quota"),
    "key echoed": (status(400, f"you sent {KEY}"), LLMRequestError, "rejects"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_stays_is_an_error_that_says_what_to_do_and_no_key(remote: Backend, fault: str) -> None:
    damage, form, word = LASTING[fault]
    assert remote.proxy is not None
    remote.proxy.faults = [damage] * 6
    began = time.monotonic()
    with pytest.raises(form) as caught:
        remote.model.complete(ask(deadline_s=0.5 if word == "deadline_s" else 30.0, max_tokens=4))
    assert time.monotonic() - began - remote.proxy.upstream_s < 15.0
    assert word in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value)


def changed(change: Callable[[Body], None]) -> Fault:
    """The server's reply with something in it changed."""

    def answer(handler: BaseHTTPRequestHandler, service: Service) -> None:
        body = service.reply(service.asked)
        change(body)
        loopback.send(handler, 200, body)

    return answer


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": -5, "prompt_tokens": -5, "output_tokens": "many"}])
def test_missing_or_negative_usage_is_estimated(remote: Backend, usage: Body | None) -> None:
    assert remote.proxy is not None
    remote.proxy.faults = [changed(lambda body: body.update(usage=usage))]
    counted = remote.model.complete(ask(max_tokens=4)).usage
    assert counted.input_tokens > 0
    assert counted.output_tokens >= 0


# Faults of the reply itself

GOOD = '{"why": "", "lr": 0.1, "maximum": 3}'
REPLIES: dict[str, str] = {
    "NaN": '{"configurations": [{"lr": NaN, "maximum": 3}]}',
    "infinity": '{"configurations": [{"lr": Infinity, "maximum": 3}]}',
    "twice the same key": '{"configurations": [{"lr": 0.1, "lr": 99, "maximum": 3}]}',
    "numeric string": '{"configurations": [{"lr": "0.1", "maximum": "3"}]}',
    "underscored": '{"configurations": [{"lr": 0.1, "maximum": "1_0"}]}',
    "other digits": '{"configurations": [{"lr": 0.1, "maximum": "\u0663"}]}',
    "out of range": '{"configurations": [{"lr": 7.0, "maximum": 99}]}',
    "true for an int": '{"configurations": [{"lr": 0.1, "maximum": true}]}',
    "huge int": '{"configurations": [{"lr": 0.1, "maximum": ' + "9" * 5000 + "}]}",
    "nested": "[" * 100_000,
    "huge": '{"configurations": [' + ", ".join([GOOD] * 20_000) + "]}",
    "look-alike key": '{"configurations": [{"lr\u200b": 0.1, "m\u0430ximum": 3}]}',
    "lone surrogate": '{"configurations": [{"why": "\\ud800", "lr": 0.1, "maximum": 3}]}',
    "unknown and missing": '{"configurations": [{"rate": 0.1}]}',
    "twice the same": f'{{"configurations": [{GOOD}, {GOOD}]}}',
    "prose and fences": f'Sure!\n```json\n{{"configurations": [{GOOD}]}}\n```\nGood luck.',
    "two objects": f'Sure!\n```json\n{{"configurations": [{GOOD}]}}\n```\nand\n```json\n{{"configurations": []}}\n```',
    "refusal": "I cannot help with that.",
    "empty": "",
    "cut": '{"configurations": [{"why": "be',
}


def says(text: str) -> Fault:
    """The server's reply with another text, whichever protocol it is of."""

    def change(body: Body) -> None:
        if "choices" in body:
            message = body["choices"][0]["message"]
            message |= {"content": text, "tool_calls": None}
        elif "output" in body:
            piece = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
            body["output"] = [
                {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [piece]}
            ]
        else:
            body |= {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}

    return changed(change)


@pytest.mark.parametrize("kind", ["scripted", *WIRES])
@pytest.mark.parametrize("reply", REPLIES)
def test_no_reply_brings_anything_but_configurations_of_the_space(reply: str, kind: str) -> None:
    with ExitStack() as closing:
        if kind == "scripted":
            model: LLM | None = ScriptedModel([REPLIES[reply]] * 4)
        else:
            server = closing.enter_context(loopback.serving(WIRES[kind]))
            server.has_responses = kind == "responses"
            proxy = closing.enter_context(loopback.proxying(WIRES[kind], server.url))
            proxy.faults = [says(REPLIES[reply])] * 4
            model = make_llm(f"{WIRES[kind]}:m", base_url=proxy.url)
        assert model is not None
        batch = consult(model)
        model.close()
    assert all(not isinstance(SPACE.coerce(p.params), InvalidParams) for p in batch.proposals)
    assert batch.proposals or batch.problems or batch.error
    assert not batch.fatal


def test_the_harmless_of_these_replies_are_of_use() -> None:
    kept = {name for name, reply in REPLIES.items() if consult(ScriptedModel([reply] * 4)).proposals}
    assert {"prose and fences", "twice the same", "lone surrogate"} <= kept
    assert not kept & {"NaN", "infinity", "refusal", "empty", "cut", "nested", "unknown and missing", "look-alike key"}


# Limits on requests


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


# Last, because llm-katan writes on where a client gives up, and takes one request at a time


@pytest.mark.parametrize("backend", KATAN, indirect=True)
def test_a_consultation_of_a_server_without_schemas_gives_only_configurations_of_the_space(backend: Backend) -> None:
    batch = consult(backend.model, deadline_s=50.0)
    assert batch.usage.calls >= 1
    assert batch.proposals or batch.problems or batch.error
    assert all(not isinstance(SPACE.coerce(p.params), InvalidParams) for p in batch.proposals)

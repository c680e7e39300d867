"""What every model must hold: scripted, hosted by two services in three protocols, on this machine; behind a proxy full of faults.

The hosted clients ask the scripted server of the tests, which answers as the services document, and with the mark `katan`
llm-katan, which nobody here wrote: it ignores schemas and makes its tool arguments up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import loopback
import pytest
from consulting import KEY, SPACE, WIRES, ask, consult
from faults import changed
from katan import katan_server
from loopback import Body, Fault, Proxy, raw, status

from llmhpo.errors import LLMError, LLMPromptError, LLMReplyError, LLMRequestError, LLMUnavailableError
from llmhpo.llm import make_llm, smollm2
from llmhpo.llm.base import LLM
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.llm.streaming import Streaming
from llmhpo.space import InvalidParams

pytestmark = pytest.mark.usefixtures("keys")
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "lr": {"type": "number", "minimum": 0.001, "maximum": 0.5},  # llm-katan makes up 1.0
        "maximum": {"type": "integer", "minimum": 1, "maximum": 8},
    },
    "required": ["lr", "maximum"],
    "additionalProperties": False,
}
KATAN = [pytest.param(f"katan {wire}", marks=pytest.mark.katan) for wire in ("chat", "anthropic")]
REMOTE = [*WIRES, *KATAN]


@dataclass
class Backend:
    """A model; where it is behind a server, the proxy before it; whether it keeps to schemas, and says why a reply ended."""

    model: LLM
    proxy: Proxy | None = None
    is_real: bool = False
    documents: bool = True


@pytest.fixture(scope="module")
def katan() -> Iterator[str]:
    with katan_server() as url:
        yield url


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


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": -5, "prompt_tokens": -5, "output_tokens": "many"}])
def test_missing_or_negative_usage_is_estimated(remote: Backend, usage: Body | None) -> None:
    assert remote.proxy is not None
    remote.proxy.faults = [changed(lambda body: body.update(usage=usage))]
    counted = remote.model.complete(ask(max_tokens=4)).usage
    assert counted.input_tokens > 0
    assert counted.output_tokens >= 0


# Last, because llm-katan writes on where a client gives up, and takes one request at a time


@pytest.mark.parametrize("backend", KATAN, indirect=True)
def test_a_consultation_of_a_server_without_schemas_gives_only_configurations_of_the_space(backend: Backend) -> None:
    batch = consult(backend.model, deadline_s=50.0)
    assert batch.usage.calls >= 1
    assert batch.proposals or batch.problems or batch.error
    assert all(not isinstance(SPACE.coerce(p.params), InvalidParams) for p in batch.proposals)

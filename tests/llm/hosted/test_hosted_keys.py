"""Keys and addresses: what is needed, and that no key is ever shown. One contract for the clients of hosted services, tried against a real server on loopback."""

from __future__ import annotations

import base64
import json
import traceback
from urllib.parse import quote

import loopback as servers
import pytest
from asking import ask, error_of, make
from consulting import KEY, WIRES
from loopback import Service, raw, status

from llmhpo.errors import ConfigError
from llmhpo.llm.client import HostedModel

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
    name = f"{WIRES[style].upper()}_API_KEY"
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=name):
        make(style, None)


def test_another_server_needs_no_key(style: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{WIRES[style].upper()}_API_KEY")
    assert make(style, service.url).complete(ask()).text == servers.REPLY


def test_the_environment_may_name_the_server(style: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{WIRES[style].upper()}_BASE_URL", service.url)
    assert make(style, None).complete(ask()).text == servers.REPLY


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h/", "http://", "http://h:x/", "http://[::1"])
def test_an_address_that_is_none_is_refused_when_the_model_is_made(style: str, url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        make(style, url)

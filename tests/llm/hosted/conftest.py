"""Each client of a hosted service, before a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import loopback as servers
import pytest
import tenacity
from asking import KEY, PROVIDER, make
from loopback import Service

from llmhpo.llm.client import HostedModel


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

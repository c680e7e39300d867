"""Each client of a hosted service, before a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import loopback as servers
import pytest
import tenacity
from asking import make
from consulting import WIRES
from loopback import Service

from llmhpo.llm.client import HostedModel


@pytest.fixture(params=list(WIRES))
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _keys(keys: None) -> None:
    """All of these tests ask with a key."""


@pytest.fixture
def service(style: str) -> Iterator[Service]:
    with servers.serving(WIRES[style]) as service:
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

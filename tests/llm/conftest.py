"""What tests of models share."""

from __future__ import annotations

import pytest
from consulting import KEY


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services have a key, and are where they say."""
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.delenv(f"{name}_BASE_URL", raising=False)
        monkeypatch.setenv(f"{name}_API_KEY", KEY)

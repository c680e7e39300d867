"""What several tests share: small spaces, scripted models, fresh stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.trial import Task

settings.register_profile("house", deadline=None)  # a busy machine makes no function slow
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the tests' servers is remembered: their ports come again."""
    monkeypatch.setenv("LLMHPO_CAPABILITIES", "")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers wait as long as it takes for a model that has not failed: on a busy machine, that of a test is late at times."""
    monkeypatch.setattr("llmhpo.loop._PATIENCE_S", (60.0, 60.0))
    monkeypatch.setattr("llmhpo.loop._STRANGER_S", 60.0)
    monkeypatch.setattr("llmhpo.loop._LAST_WORDS_S", 60.0)
    monkeypatch.setattr("llmhpo.llm.health._UNHEARD_PATIENCE_S", 60.0)


@pytest.fixture
def space() -> SearchSpace:
    """Every kind of parameter, one of them conditional, one nested."""
    return SearchSpace.from_dict(
        {
            "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True, "default": 0.01, "doc": "step size"},
            "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "rmsprop"], "default": "sgd"},
            "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1, "when": {"optimizer": "sgd"}},
            "nesterov": {"type": "categorical", "choices": [True, False], "when": {"optimizer": "sgd"}},
            "batch_size": {"type": "ordinal", "choices": [16, 32, 64], "default": 32, "unit": "samples"},
            "layers": {"type": "int", "low": 1, "high": 4, "default": 2},
        }
    )


@pytest.fixture
def open_store(tmp_path: Path, space: SearchSpace) -> Iterator[Callable[..., Store]]:
    """Open (again) one study in a SQLite file; all are closed at the end."""
    stores: list[Store] = []

    def open_(name: str = "s", *, task: Task | None = None, space_: SearchSpace | None = None, **kw: object) -> Store:
        store = Store(f"sqlite:///{tmp_path / 'study.db'}", name, space_ or space, task or Task("t", "loss"), **kw)  # type: ignore[arg-type]
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


def batch_reply(configurations: Sequence[dict[str, object]]) -> str:
    """A model's well-formed answer."""
    return json.dumps({"configurations": list(configurations)})

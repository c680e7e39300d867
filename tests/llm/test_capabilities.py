"""What is remembered of a server, and whether a reply shows that its form was enforced."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.agents.reply import reply_schema
from llmhpo.llm.capabilities import Known, Memory, keeps_to
from llmhpo.space import SearchSpace

FOUND = Known(frozenset({"format"}), frozenset({"chat", "chat:tool"}))
DAY_S = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "capabilities.json"


def test_what_was_found_out_is_there_in_the_next_session(path: Path) -> None:
    Memory(path).keep("here m", FOUND)
    assert Memory(path).recall("here m") == FOUND


def test_a_place_is_its_own(path: Path) -> None:
    Memory(path).keep("here m", FOUND)
    assert Memory(path).recall("here n") == Known()


def test_it_is_forgotten_a_month_after_it_was_begun(path: Path) -> None:
    Memory(path, lambda: 0.0).keep("here m", FOUND)
    Memory(path, lambda: 20 * DAY_S).keep("here m", FOUND.without("tool"))
    assert Memory(path, lambda: 29 * DAY_S).recall("here m").refused == {"format", "tool"}
    assert Memory(path, lambda: 31 * DAY_S).recall("here m") == Known()


def test_what_was_begun_in_the_future_does_not_count(path: Path) -> None:
    Memory(path, lambda: DAY_S).keep("here m", FOUND)
    assert Memory(path, lambda: 0.0).recall("here m") == Known()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"here m": 3}', b'{"here m": {"refused": ["x"]}}', b"\xff\x00"])
def test_a_damaged_file_is_done_without_and_replaced(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    assert Memory(path).recall("here m") == Known()
    Memory(path).keep("here m", FOUND)
    assert Memory(path).recall("here m") == FOUND


def test_a_file_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file" / "below.json")
    memory.keep("here m", FOUND)
    assert memory.recall("here m") == Known()


def test_only_the_latest_places_are_kept(path: Path) -> None:
    old = {f"p{k}": {"refused": [], "proven": ["chat"], "since": 1.0} for k in range(500)}
    path.parent.mkdir()
    path.write_text(json.dumps(old))
    Memory(path, lambda: 2.0).keep("new", FOUND)
    kept = json.loads(path.read_text())
    assert len(kept) == 500
    assert "new" in kept
    assert "p0" not in kept


def test_threads_lose_nothing_of_each_other(path: Path) -> None:
    threads = [threading.Thread(target=Memory(path).keep, args=(f"p{k}", FOUND)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Memory(path).recall(f"p{k}") == FOUND for k in range(12))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_environment_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHPO_CAPABILITIES", str(path))
    assert Memory.of_user().path == path


def test_an_empty_name_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMHPO_CAPABILITIES", "")
    assert Memory.of_user().path is None


def test_by_default_the_file_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMHPO_CAPABILITIES")
    monkeypatch.setenv("LLMHPO_CACHE", str(tmp_path))
    assert Memory.of_user().path == tmp_path / "capabilities.json"


# Forms

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "lr": {"type": "number", "minimum": 0.001, "maximum": 1.0},
        "n": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["a", 1]},
        "on": {"type": "boolean"},
        "why": {"type": "string"},
        "more": {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "required": ["lr", "n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "text",
    [
        '{"lr": 0.5, "n": 1}',
        '{"lr": 1, "n": 1.0}',
        '{"lr": 1, "n": 2, "kind": 1, "on": true, "why": "", "more": [null], "either": 3}',
    ],
)
def test_a_reply_of_the_form_keeps_to_it(text: str) -> None:
    assert keeps_to(text, SCHEMA, bounds=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would try 0.1.",
        "[" * 100_000,
        "[]",
        "null",
        '{"lr": 0.5}',
        '{"lr": "0.5", "n": 1}',
        '{"lr": true, "n": 1}',
        '{"lr": 0.5, "n": 1.5}',
        '{"lr": 0.5, "n": 1, "other": 1}',
        '{"lr": 0.5, "n": 1, "kind": true}',
        '{"lr": 0.5, "n": 1, "kind": "b"}',
        '{"lr": 0.5, "n": 1, "on": 1}',
        '{"lr": 0.5, "n": 1, "why": null}',
        '{"lr": 0.5, "n": 1, "more": [1]}',
        '{"lr": 0.5, "n": 1, "either": []}',
        '```json\n{"lr": 0.5, "n": 1}\n```',
    ],
)
def test_a_reply_of_another_form_does_not(text: str) -> None:
    assert not keeps_to(text, SCHEMA, bounds=False)


@pytest.mark.parametrize("text", ['{"lr": 5, "n": 1}', '{"lr": 0.5, "n": 0}', '{"lr": 0.5, "n": 1, "more": []}'])
def test_bounds_count_where_they_are_to(text: str) -> None:
    assert keeps_to(text, SCHEMA, bounds=False)
    assert not keeps_to(text, SCHEMA, bounds=True)


@given(st.text(max_size=40))
def test_no_text_breaks_the_check(text: str) -> None:
    assert keeps_to(text, SCHEMA, bounds=True) in (True, False)


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists))
def test_no_value_breaks_the_check_of_a_real_schema(value: object) -> None:
    space = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.1, "high": 1.0}})
    assert not keeps_to(
        json.dumps({"configurations": value, "n": value}), reply_schema(space, 2, reasons=True), bounds=True
    )

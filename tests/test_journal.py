from __future__ import annotations

import json
import logging
import os
import random
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import FILLING, run_on_small_disk

from llmhpo.errors import StudyLockedError
from llmhpo.llm.redact import Redactor
from llmhpo.store.journal import Journal, journal_path, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, Redactor())
    yield journal
    journal.close()


def write(path: Path, n: int = 12) -> bytes:
    journal = Journal(path, Redactor())
    for i in range(n):
        journal.append("result", {"number": i, "value": i / 7, "words": 'ä\u2028{}"sum"'})
    journal.close()
    return path.read_bytes()


def test_what_was_appended_is_read_in_order(path: Path) -> None:
    write(path)
    reading = read_journal(path)
    assert [e.seq for e in reading.entries] == list(range(12))
    assert reading.entries[3].data["value"] == 3 / 7
    assert reading.problem == ""


def test_every_line_is_json(path: Path) -> None:
    assert all(json.loads(line)["kind"] == "result" for line in write(path).splitlines())


def test_a_log_goes_on_where_it_stopped(path: Path) -> None:
    write(path)
    write(path)
    reading = read_journal(path)
    assert len(reading.entries) == 24
    assert not reading.problem


def test_a_removed_line_is_seen(path: Path) -> None:
    lines = write(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4] + lines[5:]))
    assert "line 5" in read_journal(path).problem


def test_exchanged_lines_are_seen(path: Path) -> None:
    lines = write(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[5], lines[4], *lines[6:]]))
    assert "line 5" in read_journal(path).problem


def test_no_flipped_bit_passes(path: Path) -> None:
    data = write(path)
    rng = random.Random(0)
    for _ in range(1000):
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        reading = read_journal(path)
        assert reading.problem
        assert len(reading.entries) == data[:at].count(b"\n")


def test_a_log_cut_anywhere_keeps_its_whole_lines(path: Path) -> None:
    data = write(path)
    rng = random.Random(0)
    for _ in range(1000):
        cut = rng.randrange(len(data))
        path.write_bytes(data[:cut])
        reading = read_journal(path)
        assert len(reading.entries) == data[:cut].count(b"\n")
        assert reading.is_torn == (cut > 0 and data[cut - 1 : cut] != b"\n")


def test_a_torn_line_is_cut_off_and_the_log_says_what_it_was(path: Path) -> None:
    path.write_bytes(write(path)[:-20])
    write(path, 1)
    reading = read_journal(path)
    assert not reading.problem
    assert [e.kind for e in reading.entries[-3:]] == ["result", "repaired", "result"]
    assert '"number":11' in reading.entries[-2].data["torn"]


def test_a_damaged_log_is_set_aside_as_it_is_and_a_new_one_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(write(path))
    data[200] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        Journal(path, Redactor()).close()
    entries = read_journal(path).entries
    assert [e.kind for e in entries] == ["set_aside"]
    assert path.with_name(entries[0].data["file"]).read_bytes() == bytes(data)
    assert "set aside" in caplog.text


def test_a_second_damaged_log_does_not_replace_the_first(path: Path) -> None:
    for _ in range(2):
        path.write_bytes(b"nonsense\n" + write(path))
        Journal(path, Redactor()).close()
    assert len(list(path.parent.glob("*.damaged-*"))) >= 2


def test_whoever_writes_beside_us_is_seen(journal: Journal, path: Path) -> None:
    journal.append("a", {})
    with path.open("ab") as other:
        other.write(b"x\n")
    with pytest.raises(StudyLockedError, match="somebody else"):
        journal.append("b", {})


def test_an_interrupted_append_leaves_no_trace(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append("a", {})

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append("b", {})
    journal.append("c", {})
    assert [e.kind for e in read_journal(path).entries] == ["a", "c"]


def test_no_secret_reaches_the_file(path: Path) -> None:
    journal = Journal(path, Redactor(["canary-0123456789"]))
    journal.append("request", {"messages": [{"content": "my key is canary-0123456789"}], "canary-0123456789": 1})
    journal.close()
    assert b"canary-0123456789" not in path.read_bytes()


def test_a_study_in_its_own_folder_has_a_plain_name_for_its_log() -> None:
    assert journal_path("sqlite:////r/a-b/study.db", "a b") == Path("/r/a-b/events.jsonl")
    assert journal_path("sqlite:////r/all.db", "a b") == Path("/r/all.db.a-b.events.jsonl")
    assert journal_path("postgresql://h/d", "s", Path("/r")) == Path("/r/events.jsonl")
    assert journal_path(None, "s") is None


FULL_DISK = textwrap.dedent(
    """
    from llmhpo.store.journal import Journal, read_journal
    from llmhpo.llm.redact import Redactor
    ballast.write_bytes(bytes(200_000))
    journal = Journal(folder / "events.jsonl", Redactor())
    for i in range(40):
        journal.append("result", {"number": i, "words": "x" * 3000})
    reading = read_journal(folder / "events.jsonl")
    print("ALL", len(reading.entries), repr(reading.problem))
    """
)


def test_a_full_disk_pauses_the_log_and_loses_nothing(tmp_path: Path) -> None:
    run = run_on_small_disk(tmp_path, "256k", FILLING + FULL_DISK)
    assert "the disk is full: make space" in run.stdout
    assert "ALL 40 ''" in run.stdout, run.stderr

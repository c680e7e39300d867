from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from llmhpo.errors import StoreError
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.store.storage import close_storage, file_system, open_storage, shown, write_durably
from llmhpo.trial import Outcome, Proposal, Task

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


def test_sqlite_is_durable_and_has_a_write_ahead_log(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 's.db'}", "s", SPACE, Task(), seed=1)
    with store._study.storage.engine.connect() as connection:  # type: ignore[attr-defined]
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "ceph"])
def test_sqlite_on_a_network_file_system_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    with pytest.raises(StoreError, match=rf"network file system \({kind}\).*PostgreSQL"):
        Store(f"sqlite:///{tmp_path / 's.db'}", "s", SPACE, Task(), file_system=lambda _: kind)
    assert not (tmp_path / "s.db").exists()


def test_the_type_of_a_file_system_is_found() -> None:
    assert file_system(Path("/proc/self/nowhere")) == "proc"
    assert file_system(Path("/sys/nowhere")) == "sysfs"


def test_a_password_is_not_shown() -> None:
    assert "secret" not in shown("postgresql://me:secret@localhost/db")
    assert shown("nonsense") == "nonsense"


def test_a_store_waits_while_its_file_is_locked_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmhpo.store.storage._BUSY_S", 0.1)
    store = Store(f"sqlite:///{tmp_path / 's.db'}", "s", SPACE, Task(), seed=1)
    other = sqlite3.connect(tmp_path / "s.db", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        while "keeps the file locked" not in caplog.text:
            time.sleep(0.05)
        other.rollback()

    threading.Thread(target=let_go, daemon=True).start()
    with caplog.at_level(logging.WARNING):
        number = store.begin(Proposal({"x": 0.5}, "llm")).number
    assert "keeps the file locked" in caplog.text
    assert store.finish(number, Outcome("ok", 1.0)).value == 1.0
    store.close()
    other.close()


def test_what_is_written_durably_is_there_as_a_whole(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "b.json", "1")
    write_durably(tmp_path / "a" / "b.json", "2")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]
    assert (tmp_path / "a" / "b.json").read_text() == "2"


def test_many_that_make_one_file_at_the_same_moment_all_open_it(tmp_path: Path) -> None:
    start, problems = threading.Barrier(6), list[Exception]()

    def make() -> None:
        start.wait()
        try:
            close_storage(open_storage(f"sqlite:///{tmp_path / 's.db'}", to_write=True))
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_server_that_is_not_there_is_told_as_such_however_its_url_is_written(scheme: str) -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(StoreError, match=r"me:[*]{3}@.*refused.*check that its server runs") as error:
        open_storage(f"{scheme}://me:hunter2@127.0.0.1:1/studies")
    assert "hunter2" not in str(error.value)


def test_a_missing_driver_is_told_with_the_extra_that_brings_it() -> None:
    with pytest.raises(StoreError, match=r"pip install 'llmhpo\[postgresql\]'"):
        open_storage("postgresql+pg8000://me@127.0.0.1:1/studies")

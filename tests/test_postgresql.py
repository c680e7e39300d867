"""A real PostgreSQL server, where its programs and a driver are found: the same store, shared between machines."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmhpo.errors import StudyLockedError
from llmhpo.space import SearchSpace
from llmhpo.store import Store, load_study
from llmhpo.trial import Outcome, Proposal, Task

pytest.importorskip("psycopg2")
SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


def server_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("PostgreSQL's programs are not installed")
    user = server_user()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # the path of a socket is short
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"

    def call(*words: str) -> None:
        subprocess.run(
            words, user=user, check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=100
        )

    call("initdb", "-D", str(data), "-U", "llmhpo", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    call("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://llmhpo@/postgres?host={folder}"
    finally:
        call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_study_in_postgresql_comes_back(url: str) -> None:
    store = Store(url, "back", SPACE, Task(), seed=1)
    store.finish(store.begin(Proposal({"x": 0.5}, "llm")).number, Outcome("ok", 0.25, curve=((0, 1.0), (1, 0.25))))
    store.begin(Proposal({"x": 0.75}, "llm"))
    before = store.context()
    store.close()
    again = Store(url, "back", SPACE, Task())
    assert again.context() == before
    again.close()


def test_one_controller_runs_a_study_in_postgresql(url: str) -> None:
    first = Store(url, "one", SPACE, Task(), seed=1)
    with pytest.raises(StudyLockedError, match=f"pid {os.getpid()} on "):
        Store(url, "one", SPACE, Task())
    first.close()
    Store(url, "one", SPACE, Task()).close()


def test_a_stale_controller_writes_nothing_to_postgresql(url: str) -> None:
    stale = Store(url, "stale", SPACE, Task(), seed=1)
    trial = stale.begin(Proposal({"x": 0.5}, "llm"))
    with stale._study.storage.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE llmhpo_lease SET epoch = epoch + 1 WHERE study_name = 'stale'")
    with pytest.raises(StudyLockedError, match="taken over"):
        stale.finish(trial.number, Outcome("ok", 1.0))
    stale.close()
    assert load_study(url, "stale").trials[0].outcome is None

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from llmhpo.errors import StudyLockedError
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.store.lease import Holder, Lease, who_runs
from llmhpo.trial import Outcome, Proposal, Task

OTHER_MACHINE = Holder("elsewhere", "another-boot", "pid:[1]", 77, 5)
SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
Take = Callable[..., Lease]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'lease.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def take(engine: Engine) -> Iterator[Take]:
    """Take the lease of one study; all are released at the end."""
    leases: list[Lease] = []

    def take_(**kw: object) -> Lease:
        lease = Lease(engine, "s", "here", **({"one_machine": False, "beat_s": 0.1, "dead_s": 0.6} | kw))  # type: ignore[arg-type]
        leases.append(lease)
        return lease

    yield take_
    for lease in leases:
        lease.release()


def silence(lease: Lease) -> None:
    """What SIGSTOP or a lost network does to a holder: it lives, and its beat stands still."""
    lease._stop.set()
    lease._thread.join()


def test_each_holder_has_a_higher_epoch(take: Take) -> None:
    first = take()
    first.release()
    assert (first.epoch, take().epoch) == (1, 2)


def test_a_living_holder_of_this_machine_keeps_it_whatever_its_beat(take: Take) -> None:
    silence(take())
    with pytest.raises(StudyLockedError, match=rf"pid {os.getpid()} on "):
        take()


def test_a_number_that_another_process_has_now_holds_nothing(take: Take) -> None:
    me = Holder.this_process()
    silence(take(me=dataclasses.replace(me, born=me.born - 1)))
    assert take().epoch == 2


def test_a_process_that_is_gone_holds_nothing(take: Take) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    silence(take(me=dataclasses.replace(Holder.this_process(), pid=child.pid)))
    assert take().epoch == 2


def test_an_earlier_boot_of_the_only_machine_holds_nothing(take: Take) -> None:
    me = Holder.this_process()
    silence(take(me=dataclasses.replace(me, boot="before")))
    start = time.monotonic()
    assert take(one_machine=True, dead_s=60.0).epoch == 2
    assert time.monotonic() - start < 30  # a holder that may live is watched for 60


def test_a_holder_elsewhere_that_beats_keeps_it(take: Take) -> None:
    take(me=OTHER_MACHINE)
    with pytest.raises(StudyLockedError, match="pid 77 on elsewhere"):
        take(dead_s=20.0)


def test_a_holder_elsewhere_whose_beat_stands_still_loses_it(take: Take) -> None:
    silence(take(me=OTHER_MACHINE))
    assert take().epoch == 2


def test_a_holder_that_stands_still_within_a_write_is_watched_once_and_its_lock_waited_out(
    tmp_path: Path, take: Take, caplog: pytest.LogCaptureFixture
) -> None:
    silence(take(me=OTHER_MACHINE))
    write = sqlite3.connect(tmp_path / "lease.db", check_same_thread=False, isolation_level=None)
    write.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        while not any("locked" in message for message in caplog.messages):
            time.sleep(0.05)
        write.execute("ROLLBACK")

    threading.Thread(target=let_go, daemon=True).start()
    impatient = create_engine(f"sqlite:///{tmp_path / 'lease.db'}", connect_args={"timeout": 0.05})
    lease = Lease(impatient, "s", "here", one_machine=False, beat_s=0.1, dead_s=0.3)
    assert lease.epoch == 2
    assert [sum(words in m for m in caplog.messages) for words in ("sign of life", "locked")] == [1, 1]
    lease.release()
    write.close()
    impatient.dispose()


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 10 * 365.25 * 86400, -10 * 365.25 * 86400])
def test_no_jump_of_the_wall_clock_lets_two_run(take: Take, jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    take(me=OTHER_MACHINE)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump_s)
    with pytest.raises(StudyLockedError):
        take(dead_s=20.0)


def test_of_many_that_ask_at_once_one_gets_it(engine: Engine, take: Take) -> None:
    silence(take(me=dataclasses.replace(Holder.this_process(), born=1)))
    won: list[int] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        try:
            won.append(take().epoch)
        except StudyLockedError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [2]
    assert len(lost) == 7


def test_a_stale_controller_writes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    stale = Store(url, "s", SPACE, Task(), seed=1)
    trial = stale.begin(Proposal({"x": 0.5}, "llm"))
    engine = stale._study.storage.engine  # type: ignore[attr-defined]
    with engine.begin() as connection:  # as if it had stood still for long, on another machine
        connection.exec_driver_sql("UPDATE llmhpo_lease SET boot='other', host='other', pid=1")
        connection.exec_driver_sql("UPDATE llmhpo_lease SET epoch=epoch+1")
    with pytest.raises(StudyLockedError, match=r"taken over by pid 1 on other"):
        stale.finish(trial.number, Outcome("ok", 1.0))
    with pytest.raises(StudyLockedError):
        stale.begin(Proposal({"x": 0.6}, "llm"))
    with engine.connect() as connection:
        states = connection.exec_driver_sql("SELECT state FROM trials").scalars().all()
    assert states == ["RUNNING"]
    stale.close()


def test_a_store_that_was_dropped_holds_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    Store(url, "s", SPACE, Task(), seed=1)
    Store(url, "s", SPACE, Task(), seed=1).close()


def test_of_two_controllers_exactly_one_runs_and_the_other_names_it(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from llmhpo.errors import StudyLockedError
        from llmhpo.space import SearchSpace
        from llmhpo.store import Store
        from llmhpo.trial import Task
        space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
        sys.stdin.readline()
        try:
            store = Store(sys.argv[1], "s", space, Task(), seed=1)
        except StudyLockedError as error:
            print("locked", error, flush=True)
        else:
            print("runs", flush=True)
            sys.stdin.readline()
            store.close()
        """
    )
    Store(f"sqlite:///{tmp_path / 's.db'}", "s", SPACE, Task(), seed=1).close()
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"sqlite:///{tmp_path / 's.db'}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in pair if process.stdout is not None]
    for process in pair:
        process.communicate()
    winner = next(p for p, words in zip(pair, said, strict=True) if words.startswith("runs"))
    loser = next(words for words in said if not words.startswith("runs"))
    assert loser.startswith("locked")
    assert f"pid {winner.pid} on " in loser


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+no_such_driver"])
def test_nobody_is_seen_running_where_the_storage_cannot_be_read(scheme: str) -> None:
    assert who_runs(f"{scheme}://me@127.0.0.1:1/studies", "s") is None


def test_who_runs_asks_by_the_driver_that_the_storage_is_opened_by(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def create(url: str) -> Engine:
        asked.append(url)
        return create_engine("sqlite://")

    monkeypatch.setattr("llmhpo.store.lease.create_engine", create)
    monkeypatch.setattr("llmhpo.store.storage.find_spec", lambda _: None)
    assert who_runs("postgresql://me@host/studies", "s") is None
    assert asked == ["postgresql+psycopg2://me@host/studies"]

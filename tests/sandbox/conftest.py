import tempfile
from pathlib import Path

import pytest
from cells import LEVELS, Bait, Cell, sandbox_or_skip


@pytest.fixture(autouse=True)
def bait(tmp_path_factory, monkeypatch):
    bait = Bait(tmp_path_factory.mktemp("bait"), monkeypatch)
    yield bait
    bait.check()


@pytest.fixture(params=LEVELS)
def cell(request, tmp_path):
    cell = Cell(tmp_path.resolve(), sandbox_or_skip(request.param))
    yield cell
    for executor in cell.executors:
        executor.shutdown(kill=True)
    assert cell.living() == []


@pytest.fixture
def short():
    """A folder with a short path: that of a socket has room for 107 characters."""
    with tempfile.TemporaryDirectory(prefix="llmhpo-", dir="/tmp") as name:
        yield Path(name)

"""Projects of edited code, without a sandbox and in each; a home that nobody may touch."""

import pytest
from cells import LEVELS, Bait, sandbox_or_skip
from project import Project


@pytest.fixture(autouse=True)
def bait(tmp_path_factory, monkeypatch):
    bait = Bait(tmp_path_factory.mktemp("bait"), monkeypatch)
    yield bait
    bait.check()


@pytest.fixture
def project(bench):
    return Project(bench)


@pytest.fixture(params=LEVELS)
def fenced(bench, request):
    return Project(bench, sandbox_or_skip(request.param))

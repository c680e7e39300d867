"""Waiting for space; what a whole study does on a full disk is tried in `tests/evals/test_evals_chaos.py`."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmhpo.disk import is_full, when_there_is_space


def failing(*numbers: int) -> Callable[[], str]:
    """Work that fails so, call by call, and then is done."""
    left = list(numbers)

    def work() -> str:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return "done"

    return work


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmhpo.disk._RETRY_S", 0.01)


def test_what_finds_the_disk_full_is_done_when_there_is_space(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert when_there_is_space(failing(errno.ENOSPC, errno.EDQUOT, errno.ENOSPC), "file 'x'") == "done"
    assert [r.getMessage() for r in caplog.records] == [
        "file 'x': the disk is full: make space; this waits, and goes on by itself"
    ]


def test_another_error_is_not_waited_out() -> None:
    with pytest.raises(OSError, match="Permission denied"):
        when_there_is_space(failing(errno.EACCES), "x")


def test_nobody_waits_for_what_nobody_needs_any_more() -> None:
    with pytest.raises(OSError, match="No space left"):
        when_there_is_space(failing(*[errno.ENOSPC] * 100), "x", is_over=lambda: True)


def test_a_disk_with_room_and_a_folder_that_is_not_there_are_not_full(tmp_path: Path) -> None:
    assert not is_full(tmp_path)
    assert not is_full(tmp_path / "nowhere")

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from llmhpo import job


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_result_is_on_the_disk_before_it_bears_its_name_and_its_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def noted_sync(fd: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name.partition('.json')[0]}")
        sync(fd)

    def noted_rename(old: object, new: object) -> None:
        done.append("rename")
        rename(old, new)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    monkeypatch.setenv("LLMHPO_RESULT", str(tmp_path / "result.json"))
    job.result({"loss": 0.5})
    assert done == ["sync result", "rename", f"sync {tmp_path.name}"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 0.5}

"""A study on a small disk that fills up: it pauses, says so, and goes on when there is space."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = textwrap.dedent(
    """
    import logging, os, sys, threading
    from pathlib import Path
    from llmhpo.audit import verify
    from llmhpo.space import SearchSpace
    from llmhpo.store import Store, load_study
    from llmhpo.trial import Outcome, Proposal, Task
    folder = Path(sys.argv[1])
    assert os.path.ismount(folder)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    url = f"sqlite:///{folder / 's.db'}"
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    store = Store(url, "s", space, Task(), seed=1, log=folder / "events.jsonl")
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass
    threading.Timer(2.0, ballast.unlink).start()
    for i in range(20):
        number = store.begin(Proposal({"x": i / 20}, "llm", "w" * 2000)).number
        store.finish(number, Outcome("failed", message="m" * 4000))
    store.close()
    context = load_study(url, "s")
    print("ALL", len(context.failed), verify(folder / "events.jsonl", context, "s").problems)
    """
)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("unshare") is None, reason="needs Linux namespaces")
def test_a_full_disk_pauses_a_study_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "code.py").write_text(CODE)
    mount = (
        f"mount -t tmpfs -o size=2m none {tmp_path}/small && exec {sys.executable} {tmp_path}/code.py {tmp_path}/small"
    )
    run = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, timeout=100)
    if "mount:" in run.stderr or "unshare:" in run.stderr:
        pytest.skip(f"no mount namespace here: {run.stderr.strip()}")
    assert "the disk is full: make space" in run.stdout, run.stderr
    assert "ALL 20 ()" in run.stdout, run.stdout + run.stderr

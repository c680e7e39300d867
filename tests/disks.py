"""A small disk of a test's own, to fill."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_on_small_disk(folder: Path, size: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script that is given a folder with a disk of `size` of its own, and `words`. Skips where none can be mounted."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs Linux namespaces")
    small, script = folder / "small", folder / "code.py"
    small.mkdir()
    script.write_text(code)
    mount = f'mount -t tmpfs -o size={size} none {small} && exec "$0" "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, sys.executable, str(script), str(small), *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=110)
    if "mount:" in run.stderr or "unshare:" in run.stderr:
        pytest.skip(f"no mount namespace here: {run.stderr.strip()}")
    return run

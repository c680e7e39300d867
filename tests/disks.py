"""A small disk of a test's own, to fill."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The beginning of such a script: `fill` leaves no space on `folder`, which is made when the script has said that it waits for some.
FILLING = """
import logging, os, sys
from pathlib import Path
folder = Path(sys.argv[1])
assert os.path.ismount(folder)
ballast = folder / "ballast"

def fill():
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            pass

class Space(logging.Handler):
    def emit(self, record):
        if "the disk is full" in record.getMessage():
            ballast.unlink(missing_ok=True)

logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger().addHandler(Space())
"""


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

"""Jobs that hide from the watchdog what they store on the disk. Numbers in comments are cases of the hazard list."""

import os
import shutil
import subprocess
import sys

import pytest
from cells import SMALL

from llmhpo.executors.tree import can_walk

NEST = "os.chdir(HERE)\nfor _ in range(25): os.mkdir('d' * 200); os.chdir('d' * 200)\n"  # paths of more than 4,096 characters


@pytest.mark.parametrize(
    "code",
    [
        NEST + "for i in range(30): open(str(i), 'wb').write(b'x' * 1_000_000)",
        NEST + "for i in range(500): open(str(i), 'wb').close()",
        "for i in range(6):\n  file = open(HERE / 'f', 'wb'); os.dup(file.fileno()); os.unlink(HERE / 'f'); file.write(b'x' * 9_000_000); file.flush()",
    ],
    ids=["nested bytes", "nested files", "unlinked"],
)
def test_what_lies_too_deep_or_has_no_name_counts_as_well(cell, code):  # 9, 10
    outcome = cell.says(f"{code}\ntime.sleep(1.5)\nresult(1)", limits=SMALL)
    assert (outcome.status, outcome.value) == ("failed", None)
    assert "limits." in outcome.message


def test_files_that_are_in_memory_alone_count_as_memory(cell):  # 2
    code = "for _ in range(40): os.write(os.memfd_create('x'), b'x' * 10_000_000); time.sleep(0.02)\ntime.sleep(1.5)\nresult(1)"
    outcome = cell.says(code, limits=SMALL)
    assert (outcome.status, outcome.value) == ("oom", None)
    assert "limits.memory_gb=0.3" in outcome.message


SYSTEM_V = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def make(name):
  if getattr(libc, name)(0, 10_000_000, 0o1600) < 0: raise OSError(ctypes.get_errno(), name)
tried(lambda: make("shmget"), lambda: make("msgget"))
"""


def test_memory_that_belongs_to_no_process_is_not_given(cell):  # 2
    assert cell.says(SYSTEM_V).value == 0


AS_ORDINARY_USER = """
import os, sys
from pathlib import Path
from llmhpo.executors.watchdog import _stored
folder = Path(sys.argv[1])
(folder / "closed").mkdir()
(folder / "closed" / "big").write_bytes(bytes(100_000))
(folder / "closed").chmod(0o300)
print(os.geteuid(), _stored([str(folder)], 50_000, 100.0)[1] > 100.0)
(folder / "closed").chmod(0o700)
"""


@pytest.mark.skipif(not can_walk() or shutil.which("unshare") is None, reason="needs Linux namespaces")
def test_a_folder_that_an_ordinary_user_may_not_list_counts_as_too_much(tmp_path):  # 10
    words = ["unshare", "-U", "--map-user=1500", sys.executable, "-c", AS_ORDINARY_USER, str(tmp_path)]
    if os.geteuid() != 0:
        words = words[3:]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare:" in done.stderr:
        pytest.skip(f"no user namespace here: {done.stderr.strip()}")
    assert done.stdout.split()[1:] == ["True"], done.stderr

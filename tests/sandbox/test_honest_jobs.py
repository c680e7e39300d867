"""What an ordinary job does works in a sandbox, unchanged."""

import os
import subprocess
from pathlib import Path

import pytest
from cells import sandbox_or_skip

from llmhpo.errors import SandboxError
from llmhpo.sandbox import places
from llmhpo.sandbox.base import Policy

TORCH = """
import numpy as np, torch
from joblib import Parallel, delayed
from multiprocessing import Manager
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset
from llmhpo import job
if __name__ == "__main__":
    data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    model = torch.nn.Linear(4, 1)
    for x, y in DataLoader(data, batch_size=32, num_workers=2):
        ((model(x) - y) ** 2).mean().backward()
    torch.save(model.state_dict(), HERE / "model.pt")
    LogisticRegression().fit(np.random.randn(20, 2), np.arange(20) % 2)
    with Manager() as manager:
        shared = manager.dict(done=sum(Parallel(n_jobs=2)(delayed(abs)(i) for i in range(4))))
        job.result(shared["done"])
"""


@pytest.mark.slow
def test_torch_workers_joblib_and_managers_run(cell):
    outcome = cell.says(TORCH, timeout_s=90)
    assert (outcome.status, outcome.value) == ("ok", 6)
    assert (cell.folder / "trial0" / "model.pt").stat().st_size > 500


def test_files_of_the_own_folder_are_made_copied_moved_and_run(cell):
    code = (
        "import shutil\nos.chdir(HERE)\nPath('a').touch(); Path('a').write_text('#!/bin/sh\\necho hello'); os.chmod('a', 0o750)\n"
        "os.utime('a', (100, 200)); shutil.copy2('a', 'b'); Path('d').mkdir(); os.rename('b', 'd/b'); os.link('a', 'c'); os.symlink('a', 'l')\n"
        "with open('d/b') as f: os.fchmod(f.fileno(), 0o700)\n"
        "fd = os.open('d', os.O_RDONLY); os.utime('b', (5, 7), dir_fd=fd); os.chmod('b', 0o711, dir_fd=fd)\n"
        "s = os.stat('d/b')\n"
        "result(float(os.stat('a').st_mtime == 200 and s.st_mtime == 7 and s.st_mode & 0o777 == 0o711 and os.stat('c').st_mode & 0o777 == 0o750\n"
        "  and subprocess.run(['./a'], capture_output=True).stdout == b'hello\\n'))"
    )
    assert cell.says(code).value == 1


def test_data_and_code_are_read(cell):
    (cell.code / "part.py").write_text("number = 4")
    assert cell.says("import part\nresult(part.number + len((DATA / 'train.csv').read_text()))").value == 10


def test_data_behind_a_link_is_read_by_either_name(cell):
    (cell.folder / "link").symlink_to(cell.data)
    code = f"result(len(Path({str(cell.folder / 'link')!r}, 'train.csv').read_text()) + len((DATA / 'train.csv').read_text()))"
    assert cell.says(code, read=[cell.folder / "link"]).value == 12


def test_a_missing_folder_of_data_is_named(cell):
    executor = cell.executor("result(1)", read=[cell.folder / "nowhere"])
    with pytest.raises(SandboxError, match="nowhere', which does not exist"):
        executor.submit(cell.job()).result(30)


def test_checkpoints_are_written(cell):
    folder = cell.folder / "checkpoints"
    folder.mkdir()
    executor = cell.executor("Path(os.environ['LLMHPO_CHECKPOINT_DIR'], 'x').write_text('1'); result(1)")
    assert executor.submit(cell.job(env={"LLMHPO_CHECKPOINT_DIR": str(folder)})).result(30).value == 1
    assert (folder / "x").read_text() == "1"


def test_another_tree_is_run_in_place_of_the_command_s(cell):
    tree = cell.folder / "tree"
    tree.mkdir()
    executor = cell.executor("result(1)")
    (tree / "job0.py").write_text((cell.code / "job0.py").read_text().replace("result(1)", "result(2)"))
    assert executor.submit(cell.job(tree=tree)).result(30).value == 2


def test_a_temporary_folder_is_there_and_gone_afterwards(cell):
    code = "import tempfile\nf = tempfile.mkdtemp()\nos.mkdir(f + '/d', 0); (HERE / 'where').write_text(f); result(1)"
    assert cell.says(code).value == 1
    where = (cell.folder / "trial0" / "where").read_text()
    assert not os.path.lexists(where)


def test_gpus_are_seen_by_jobs_that_have_one(cell, monkeypatch):
    """A stand-in for the device of a GPU, as this machine may have none: /dev/kmsg, which is no other job's."""
    monkeypatch.setattr(places, "_GPU_DEVICES", ("kmsg",))
    if not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("there is no second device to stand in")
    code = "try: os.close(os.open('/dev/kmsg', os.O_WRONLY)); result(1)\nexcept OSError: result(0)"
    assert cell.says(code).value == 0
    assert cell.says(code, env={"CUDA_VISIBLE_DEVICES": "0"}).value == 1


def test_the_processors_are_seen(cell):
    assert cell.says("result(os.cpu_count() + len(os.sched_getaffinity(0)))").value == os.cpu_count() + len(
        os.sched_getaffinity(0)
    )


def test_what_is_hidden_lies_above_what_is_shown():
    words = sandbox_or_skip("bwrap").wrap(
        ["/usr/bin/true"], Policy(cwd=Path("/usr/lib"), hide=(Path("/usr/lib/os-release"),))
    )
    assert words.index("/usr/lib/os-release") > words.index("/usr/lib") > words.index("/usr")


def test_variables_of_any_name_reach_the_job_as_they_are_and_no_signal_more_is_ignored(tmp_path):
    env = {"MY.VAR": "1", "a-b": "x=y\nz", "LANG": "C", "EMPTY": ""}
    sandbox = sandbox_or_skip("bwrap")
    plain = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    ignored = {
        line for line in plain.split("\n") if line.startswith("SigIgn")
    }  # nohup's child has one, ignored by nobody here
    for show, seen in (
        ("/proc/self/environ", {f"{name}={value}" for name, value in env.items()}),
        ("/proc/self/status", ignored),
    ):
        words = sandbox.wrap(["/bin/cat", show], Policy(cwd=tmp_path))
        out = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
        found = set(out.split("\0" if "environ" in show else "\n"))
        assert seen <= found
        assert "environ" not in show or found - seen <= {"", f"PWD={tmp_path}"}  # bwrap's own

"""Which sandbox is taken: by what really starts and holds here, not by what is said to be there."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from cells import sandbox_or_skip

from llmhpo.api import optimize
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError, SandboxError
from llmhpo.sandbox.choose import choose_sandbox

SPACE = {"x": {"type": "float", "low": 0, "high": 1}}
# A filter that takes Landlock away, as an old kernel or a container does.
NO_LANDLOCK = """
import ctypes, struct
from llmhpo.sandbox import seccomp
steps = [seccomp._load(0), (0x15, 0, 1, 444), seccomp._ret(0x00050000 | 38), seccomp._ret(0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))) == 0
"""


@pytest.fixture
def without_bwrap(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_bwrap_is_taken_where_it_holds():
    sandbox_or_skip("bwrap")
    assert choose_sandbox("auto").name == "bwrap"


def test_landlock_is_taken_where_bwrap_is_absent(without_bwrap):
    sandbox_or_skip("landlock")
    assert choose_sandbox("auto").name == "landlock"


def test_a_level_that_was_named_is_not_replaced(without_bwrap):
    with pytest.raises(SandboxError, match="bwrap is not on PATH"):
        choose_sandbox("bwrap")


def test_where_neither_is_there_the_refusal_says_why_and_what_helps(without_bwrap):
    code = NO_LANDLOCK + textwrap.dedent("""
        from llmhpo.errors import SandboxError
        from llmhpo.sandbox.choose import choose_sandbox
        try:
            print(choose_sandbox("auto"))
        except SandboxError as error:
            print("refused:", error)
        """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused: sandbox='auto': no sandbox holds")
    for part in ("bwrap is not on PATH", "landlock: the kernel refuses it", "install bubblewrap", 'sandbox = "none"'):
        assert part in done.stdout


def test_a_study_is_refused_and_not_run_where_neither_is_there(without_bwrap, tmp_path):
    (tmp_path / "study.toml").write_text(
        f"command = '{sys.executable} -c \"open(\\\"ran\\\", \\\"w\\\")\"'\nmetric = 'v'\ndirection = 'minimize'\nsandbox = 'auto'\n"
        "llm = 'none'\n[space.x]\ntype = 'float'\nlow = 0\nhigh = 1\n"
    )
    code = (
        NO_LANDLOCK
        + f"\nimport sys; sys.argv = ['llmhpo', 'run', {str(tmp_path)!r}]\nfrom llmhpo.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no sandbox holds" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_bwrap_that_lets_jobs_use_the_network_is_not_taken(monkeypatch, tmp_path):
    real = sandbox_or_skip("bwrap").program
    weak = tmp_path / "bwrap"
    weak.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\nshift\nexec {real} --unshare-pid --unshare-ipc --unshare-uts "$@"\n'
    )
    weak.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match="connect by tcp"):
        choose_sandbox("bwrap")


def test_a_bwrap_that_cannot_start_says_what_it_said(monkeypatch, tmp_path):
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo bubblewrap 0.8.0 && exit\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match="No permissions to create new namespace"):
        choose_sandbox("bwrap")


def test_none_is_none():
    assert choose_sandbox("none") is None


def test_an_unknown_level_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="'docker' is none of 'auto', 'bwrap', 'landlock', 'none'"):
        choose_sandbox("docker")


def study(folder, *lines):
    (folder / "study.toml").write_text(
        "\n".join(
            [
                "command = 'python job.py'", "metric = 'value'", "direction = 'minimize'", "llm = 'none'", "n_trials = 1",
                *lines, "[space.x]", "type = 'float'", "low = 0", "high = 1",
            ]
        )
    )  # fmt: skip
    return folder / "study.toml"


def test_a_study_file_with_an_unknown_level_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sandbox='yes' is none of"):
        read_study_file(study(tmp_path, "sandbox = 'yes'"))


def test_a_sandbox_on_a_cluster_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sandbox='auto' holds for jobs on this machine"):
        optimize("python -c 1", SPACE, llm=None, sandbox="auto", placement="ray", cwd=tmp_path, progress=False)


def test_configurations_run_plainly_unless_asked(tmp_path):
    result = optimize(lambda p: p["x"], SPACE, n_trials=1, llm=None, isolated=True, progress=False)
    assert result.trials[0].outcome.sandbox == ""


@pytest.mark.parametrize("level", ["bwrap", "landlock"])
def test_a_callable_runs_in_the_sandbox_that_was_asked_for(level):
    sandbox = sandbox_or_skip(level)

    def objective(params):
        with open("/etc/shadow") as file:  # noqa: PTH123 - the job must not depend on what this module imports
            return len(file.read())

    result = optimize(objective, SPACE, n_trials=1, llm=None, sandbox=level, progress=False)
    outcome = result.trials[0].outcome
    assert (outcome.status, outcome.sandbox) == ("failed", f"{level} {sandbox.version}")


def test_a_study_in_a_sandbox_reads_its_data_and_cannot_change_it(tmp_path):
    sandbox_or_skip("bwrap")
    elsewhere, here = tmp_path / "data", tmp_path / "study"
    elsewhere.mkdir()
    here.mkdir()
    (elsewhere / "y").write_text("3")
    (here / "job.py").write_text(
        "import os, pathlib\nfrom llmhpo import job\ny = pathlib.Path('../data/y')\n"
        "try: y.write_text('9')\nexcept OSError: pass\njob.result(int(y.read_text()))"
    )
    result = optimize(
        "python job.py",
        SPACE,
        n_trials=1,
        llm=None,
        sandbox="bwrap",
        cwd=here,
        progress=False,
        placement=local(elsewhere),
    )
    assert result.best_value == 3
    assert (elsewhere / "y").read_text() == "3"


def local(*data):
    from llmhpo.executors.cluster import Placement

    return Placement(data=tuple(map(str, data)))


def test_a_study_in_the_home_folder_is_refused(monkeypatch, tmp_path):
    sandbox_or_skip("landlock")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SandboxError, match="would show it your home folder"):
        optimize("python -c 1", SPACE, n_trials=1, llm=None, sandbox="landlock", cwd=tmp_path, progress=False)


def test_the_benchmark_prints_its_bar():
    done = subprocess.run(
        [sys.executable, "-m", "evals.bench_sandbox", "2"], capture_output=True, text=True, check=False
    )
    assert "bar: < 60 ms added a trial" in done.stdout
    assert shutil.which("bwrap") is None or "bwrap" in done.stdout

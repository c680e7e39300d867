"""What the Slurm executor promises beyond the contract, in submitit's local mode."""

import os

import pytest

from llmhpo.errors import ConfigError
from llmhpo.executors.limits import Limits

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_a_job_whose_slurm_job_is_killed_is_lost(bench):
    code = (
        "import os, time\nstat = lambda pid: open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()\n"
        "os.kill(int(stat(os.getppid())[1]), 9)\ntime.sleep(60)"
    )
    outcome = bench.slurm(code).submit(bench.job(3)).result(100)
    assert (outcome.status, outcome.lost) == ("failed", True)
    assert outcome.message.startswith("its Slurm job ended as ")
    bench.wait_for(lambda: bench.living() == [])


def test_killing_shutdown_leaves_no_process(bench):
    executor = bench.slurm("import time\nopen('up', 'w').close()\ntime.sleep(60)")
    future = executor.submit(bench.job())
    bench.wait_for((bench.folder / "up").exists, 60)
    executor.shutdown(kill=True)
    assert future.cancelled()
    bench.wait_for(lambda: bench.living() == [])


def test_keys_do_not_reach_the_job(bench, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "canary-77aa")
    code = "import os\nfor pid in (os.getpid(), os.getppid()): print('canary' in open(f'/proc/{pid}/environ').read())"
    assert bench.slurm(code).submit(bench.job()).result(100).log_tail == "False\nFalse"
    assert os.environ["OPENAI_API_KEY"] == "canary-77aa"
    assert not any(b"canary-77aa" in f.read_bytes() for f in (bench.folder / "slurm").rglob("*") if f.is_file())


def test_a_job_without_any_time_limit_is_refused(bench):
    executor = bench.slurm("pass", parameters={})
    with pytest.raises(ConfigError, match="timeout_min"):
        executor.submit(bench.job(timeout_s=None))


def test_requests_that_slurm_cannot_take_are_refused(bench):
    with pytest.raises(ConfigError, match="whole cpus and gpus"):
        bench.slurm("pass", resources={"gpus": 0.5})


def test_an_unknown_parameter_is_refused(bench):
    with pytest.raises(ConfigError, match="slurm="):
        bench.slurm("pass", parameters={"slurm_nonsense": 1})


def test_the_limits_of_a_study_hold_on_a_node(bench):
    code = "print('x' * 3_000_000, flush=True)\nimport time; time.sleep(60)"
    outcome = bench.slurm(code, limits=Limits(output_mb=1)).submit(bench.job()).result(100)
    assert outcome.status == "failed"
    assert "limits.output_mb=1 allows no more" in outcome.message

"""What the Ray executor promises beyond the contract: on two nodes of a real cluster, both on this machine."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.attempts import Attempts
from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.limits import Limits
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.trial import Proposal, Task

pytestmark = pytest.mark.ray
SPACE = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.0, "high": 1.0}})
SLEEP = "import os, time\nopen({up!r} + os.environ['LLMHPO_TRIAL'], 'w').close()\ntime.sleep(60)"


@pytest.fixture(autouse=True)
def cluster(ray_cluster):
    return ray_cluster


def spare_node(cluster, name):
    from tests.executors.conftest import HERE, NODE

    return cluster.add_node(num_cpus=2, resources={name: 2}, node_ip_address=HERE[2], **NODE)


def test_a_trial_whose_node_is_killed_runs_again_elsewhere_under_the_same_number(bench, cluster):
    node = spare_node(cluster, "moving")
    bench.wait_for(lambda: sum(n["Alive"] for n in __import__("ray").nodes()) == 3, 60)
    code = (
        "import os, time\nfrom pathlib import Path\nfrom llmhpo import job\n"
        "up = Path(os.environ['LLMHPO_CHECKPOINT_DIR'], 'up')\nis_first = not up.exists()\nup.touch()\n"
        "time.sleep(60 if is_first else 0)\njob.result(int(os.environ['LLMHPO_TRIAL']) + 7)"
    )
    store = Store(None, "s", SPACE, Task(), seed=1)
    attempts = Attempts(store, bench.ray(code, resources={"cpus": 1, "moving": 1}), bench.folder / "trials")
    trial = store.begin(Proposal({"lr": 0.1}, "llm"))
    future = attempts.launch(trial)
    bench.wait_for((bench.folder / "checkpoints" / "00000" / "up").exists, 60)
    cluster.remove_node(node, allow_graceful=False)
    other = spare_node(cluster, "moving")
    try:
        lost = future.result(100)
        assert (lost.lost, lost.message) == (True, "its node died")
        assert attempts.final(0, lost) is None
        outcome = attempts.launch(trial).result(100)
    finally:
        cluster.remove_node(other)
    assert (outcome.status, outcome.value) == ("ok", 7)
    bench.wait_for(lambda: bench.living() == [])


def test_a_job_that_kills_its_worker_is_lost(bench):
    code = "import os, signal\nos.kill(int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1]), 9)\nimport time; time.sleep(60)"
    outcome = bench.ray(code).submit(bench.job()).result(100)
    assert (outcome.lost, outcome.message) == (True, "its Ray worker was killed")
    bench.wait_for(lambda: bench.living() == [])


def test_where_the_studys_folder_is_not_seen_checkpoints_have_a_folder_of_the_attempt(bench):
    code = "import os\nfrom llmhpo import job\nopen(os.environ['LLMHPO_CHECKPOINT_DIR'] + '/x', 'w').close()\njob.result(1)"
    job = bench.job(env={"LLMHPO_CHECKPOINT_DIR": "/of/another/machine"})
    assert bench.ray(code).submit(job).result(100).status == "ok"


def test_killing_shutdown_leaves_no_process_on_any_node(bench):
    executor = bench.ray(SLEEP.format(up=str(bench.folder / "up")), workers=3, resources={"cpus": 0.5})
    futures = [executor.submit(bench.job(i, timeout_s=None)) for i in range(5)]
    bench.wait_for(lambda: len(list(bench.folder.glob("up*"))) == 3, 60)
    executor.shutdown(kill=True)
    assert all(f.cancelled() for f in futures)
    assert bench.living() == []


def test_jobs_end_with_a_controller_that_is_killed(bench, cluster):
    (bench.folder / "train.py").write_text(SLEEP.format(up=str(bench.folder / "up")))
    (bench.folder / "controller.py").write_text(
        "import pathlib\nfrom llmhpo.executors.base import Job\nfrom llmhpo.executors.command import CommandTemplate\n"
        "from llmhpo.executors.ray_cluster import RayExecutor\nfrom llmhpo.trial import Task\nhere = pathlib.Path.cwd()\n"
        f"executor = RayExecutor(CommandTemplate('python train.py', None, here), address={cluster.address!r}, grace_s=0.3, env={{'TEST_TAG': {bench.tag!r}}})\n"
        "executor.submit(Job(0, {}, Task(), here / 'trial0')).result()\n"
    )
    with subprocess.Popen([sys.executable, "controller.py"], cwd=bench.folder) as process:
        bench.wait_for(lambda: (bench.folder / "up0").exists() or process.poll() is not None, 60)
        process.send_signal(signal.SIGKILL)
    assert (bench.folder / "up0").exists()
    bench.wait_for(lambda: bench.living() == [], 30)


def test_reports_reach_the_controller_while_the_job_runs(bench):
    code = "import time\nfrom llmhpo import job\njob.report(0, 2.0)\ntime.sleep(60)"
    future = bench.ray(code).submit(bench.job(timeout_s=None))
    bench.wait_for(
        lambda: (
            "2.0" in (bench.folder / "trial0" / "report.jsonl").read_text()
            if (bench.folder / "trial0" / "report.jsonl").exists()
            else False
        ),
        60,
    )
    assert not future.done()
    assert json.loads((bench.folder / "trial0" / "report.jsonl").read_text()) == {"step": 0, "value": 2.0}


def test_the_time_limit_is_kept_on_the_node(bench):
    outcome = bench.ray("import time\ntime.sleep(60)").submit(bench.job(timeout_s=0.5)).result(100)
    assert (outcome.status, bench.living()) == ("timeout", [])


def test_the_job_directory_holds_parameters_result_and_output(bench):
    bench.ray("from llmhpo import job\nprint('said')\njob.result(1)").submit(bench.job()).result(100)
    folder = bench.folder / "trial0"
    assert {f.name for f in folder.iterdir()} == {"params.json", "result.json", "output.log"}
    assert (folder / "output.log").read_text() == "said\n"


def test_the_folder_is_unpacked_once_on_a_node_and_the_job_runs_in_the_copy(bench):
    (bench.folder / "notes.txt").write_text("mine")
    code = "import os\nprint(os.getcwd(), os.stat('.').st_ino, open('notes.txt').read())"
    executor = bench.ray(code, workers=2)
    said = {f.result(100).log_tail for f in [executor.submit(bench.job(i)) for i in range(3)]}
    assert len(said) == 1
    assert str(bench.folder) not in said.pop()


def test_a_change_of_the_code_after_the_start_is_not_seen(bench):
    (bench.folder / "notes.txt").write_text("old")
    executor = bench.ray("print(open('notes.txt').read())")
    (bench.folder / "notes.txt").write_text("new")
    assert executor.submit(bench.job()).result(100).log_tail == "old"
    assert bench.ray("print(open('notes.txt').read())").submit(bench.job(1)).result(100).log_tail == "new"


def test_named_data_lies_where_it_lay_though_git_ignores_it(bench):
    (bench.folder / ".gitignore").write_text("data/\nsecret.txt\n")
    (bench.folder / "secret.txt").write_text("mine")
    (bench.folder / "data").mkdir()
    (bench.folder / "data" / "x.txt").write_text("numbers")
    code = "import os\nprint(open('data/x.txt').read(), os.path.exists('secret.txt'))"
    assert bench.ray(code, data=["data"]).submit(bench.job()).result(100).log_tail == "numbers False"


def test_a_callable_finds_the_modules_of_its_folder(bench, monkeypatch):
    (bench.folder / "my_model_of_ray.py").write_text("def train(params): return params['lr'] * 3\n")
    monkeypatch.syspath_prepend(str(bench.folder))
    import my_model_of_ray

    executor = bench.ray(my_model_of_ray.train)
    Path(my_model_of_ray.__file__).rename(bench.folder / "away")  # nodes have the copy alone
    assert executor.submit(bench.job()).result(100).value == pytest.approx(0.003)


def test_a_folder_above_the_cap_is_refused_with_the_largest_part_named(bench):
    (bench.folder / "big.bin").write_bytes(b"x" * 3000)
    with pytest.raises(ConfigError, match=r"(?s)0\.002 MB.*'big\.bin'.*\.llmhpoignore"):
        bench.ray("pass", code_limit=2000)


@pytest.mark.parametrize("data", ["nowhere", "../x", "/etc"])
def test_data_that_cannot_be_sent_is_refused(bench, data):
    with pytest.raises(ConfigError, match="data"):
        bench.ray("pass", data=[data])


@pytest.mark.parametrize(
    "table, word", [({"gpu": 1}, "gpus"), ({"gpus": 1.5}, "whole"), ({"memory_gb": "4"}, "number")]
)
def test_a_wrong_request_is_refused(bench, table, word):
    with pytest.raises(ConfigError, match=word):
        bench.ray("pass", resources=table)


def test_a_request_that_no_node_can_meet_is_told(bench, caplog):
    executor = bench.ray("pass", resources={"gpus": 64})
    assert "no node of the Ray cluster has {'CPU': 1.0, 'GPU': 64.0}" in caplog.text
    future = executor.submit(bench.job())
    executor.shutdown(kill=True)
    assert future.cancelled()


def test_fractions_of_a_device_are_placed_by_ray(bench, cluster):
    node = spare_node(cluster, "GPU_like")
    try:
        executor = bench.ray(
            "import time; from llmhpo import job; time.sleep(0.2); job.result(1)",
            workers=4,
            resources={"cpus": 0.1, "GPU_like": 0.5, "memory_gb": 0.1},
        )
        outcomes = [f.result(100) for f in [executor.submit(bench.job(i)) for i in range(4)]]
    finally:
        cluster.remove_node(node)
    assert [o.value for o in outcomes] == [1] * 4


def test_keys_reach_neither_jobs_nor_anything_that_is_sent(bench, monkeypatch):
    canary = "canary-5d1e77"
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, canary)
    executor = bench.ray(
        "import os; print([k for k, v in os.environ.items() if 'canary' in v])", pass_env=["WANDB_API_KEY"]
    )
    import pickle

    import ray

    sent = [ray.get(piece) for pieces in executor._parcels.values() for piece in pieces]
    order = pickle.dumps(executor._order(bench.job()))
    assert not any(
        canary.encode() in data for data in [*sent, order, ray.cloudpickle.dumps(executor._remote._function)]
    )
    assert executor.submit(bench.job()).result(100).log_tail == "[]"


def test_many_trials_are_in_flight_without_a_thread_each(bench):
    import threading

    executor = bench.ray(lambda params: 1.0, workers=300, resources={"cpus": 1})
    before = threading.active_count()
    futures = [executor.submit(bench.job(i)) for i in range(300)]
    assert threading.active_count() <= before + 5  # ours, and a few that Ray starts at times
    assert [f.result(110).value for f in futures] == [1.0] * 300


def test_a_program_that_a_node_lacks_is_an_executor_error(bench):
    from llmhpo.executors.command import CommandTemplate

    (bench.folder / ".gitignore").write_text("train\n")
    program = bench.folder / "train"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    executor = bench.ray(CommandTemplate("./train", None, bench.folder))
    program.unlink()  # a node on another machine would not see it where it lay either
    with pytest.raises(ExecutorError, match=r"'\./train'"):
        executor.submit(bench.job()).result(100)


def test_a_controller_outside_the_cluster_is_told_where_to_run(bench):
    with pytest.raises(ConfigError, match="on a node of the cluster"):
        bench.ray("pass", address="ray://127.0.0.1:10001")


def test_an_address_that_is_none_is_a_config_error_with_the_remedy():
    code = (
        "from llmhpo.executors.ray_session import Session\nfrom llmhpo.errors import ConfigError\n"
        "try: Session('nowhere at all')\nexcept ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ray start --head" in done.stdout, done.stderr


def test_a_whole_study_runs_on_the_cluster(bench):
    from llmhpo import optimize
    from llmhpo.executors.cluster import Placement

    (bench.folder / "train.py").write_text("import sys\nfrom llmhpo import job\njob.result(float(sys.argv[1]) ** 2)")
    result = optimize(
        "python train.py {x}",
        {"x": {"type": "float", "low": -1.0, "high": 1.0}},
        n_trials=4,
        n_workers=2,
        llm="none",
        cwd=bench.folder,
        progress=False,
        placement=Placement("ray", resources={"cpus": 0.5}),
    )
    assert [t.outcome.status for t in result.trials] == ["ok"] * 4
    assert (bench.folder / "runs").is_dir()


def test_the_limits_of_a_study_hold_on_a_node(bench):
    code = "print('x' * 3_000_000, flush=True)\nimport time; time.sleep(60)"
    outcome = bench.ray(code, limits=Limits(output_mb=1)).submit(bench.job()).result(100)
    assert outcome.status == "failed"
    assert "limits.output_mb=1 allows no more" in outcome.message

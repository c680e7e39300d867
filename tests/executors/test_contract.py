"""What every executor promises, whatever it runs."""

import json
import threading
import time
from concurrent.futures import CancelledError, wait
from dataclasses import replace

import numpy as np
import pytest

from llmhpo import job as jobs
from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.edited import CodeExecutor
from llmhpo.executors.function import FunctionExecutor, InProcessExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.executors.workspace import Workspace
from llmhpo.trial import Task

# One snippet a behaviour: the body of an objective, and the same as a script.
BODIES = {
    "value": "return params['lr'] * 2",
    "dict": "return {'value': 1.5, 'accuracy': 0.75, 'note': 'text', 'bad': float('inf')}",
    "numpy": "import numpy as np; return np.float32(0.5)",
    "nan": "return float('nan')",
    "inf": "return {'value': float('inf')}",
    "bool": "return True",
    "numpy_bool": "import numpy as np; return np.bool_(True)",
    "text": "return '0.5'",
    "list": "return [1.0]",
    "none": "return None",
    "wrong": "return {'loss': 1.0}",
    "huge": "return 10 ** 400",
    "raise": "raise ValueError('no such optimizer')",
    "exit": "raise SystemExit(3)",
    "memory": "raise MemoryError",
    "curve": "from llmhpo import job\nfor i in range(3): job.report(i, 1.0 / (i + 1))\nreturn 0.25",
    "bad_curve": "from llmhpo import job\njob.report(0, 1.0); job.report(1, float('nan')); job.report(2, 0.5)\nreturn 0.25",
    "job_result": "from llmhpo import job\njob.result({'value': 4.0})",
    "params": "from llmhpo import job\nassert job.params() == params\nassert params == {'lr': 0.001, 'opt': 'adam'}, params\nreturn 1",
    "prune": "from llmhpo import job\njob.report(1, 2.0); job.prune('worse than the median')",
    "optuna_prune": "import optuna\nfrom llmhpo import job\njob.report(1, 2.0); raise optuna.TrialPruned('at step 1')",
    "slow": "import time; time.sleep(0.4); return 1.0",
    "held": "import os, time; open(HERE + '/up', 'w').close()\nwhile not os.path.exists(HERE + '/go'): time.sleep(0.02)\nreturn 1.0",
}


def source(body):
    return "def objective(params):\n    " + body.replace("\n", "\n    ") + "\n"


def make_objective(body):
    scope = {"__name__": "__main__"}
    exec(source(body), scope)
    return scope["objective"]


KINDS = [
    "command",
    "function",
    "in-process",
    "edited",
    pytest.param("ray command", marks=pytest.mark.ray),
    pytest.param("ray function", marks=pytest.mark.ray),
    pytest.param("slurm", marks=pytest.mark.slurm),
]


def script(body):
    tail = "value = objective(job.params())\nif value is not None: job.result(value)\n"
    return "from llmhpo import job\n" + source(body) + tail


class Baseline(CodeExecutor):
    """Runs every job as one of the revision that the user's tree is."""

    def submit(self, job):
        return super().submit(replace(job, code=self._workspace.baseline))


def make_edited(bench, code, workers):
    root = bench.folder / f"project{len(bench.executors)}"
    root.mkdir()
    (root / "train.py").write_text(code)
    lineage = Lineage(bench.folder / f"code{len(bench.executors)}.git")
    baseline = lineage.baseline(root)
    workspace = Workspace(lineage, root, baseline, Editable.of(["train.py"], lineage.files(baseline)))
    inner = LocalExecutor(CommandTemplate(["{python}", "train.py"], None, root), workers=workers, grace_s=0.3)
    return bench.keep(Baseline(inner, workspace))


@pytest.fixture(params=KINDS)
def make(request, bench):
    if request.param.startswith("ray"):
        request.getfixturevalue("ray_cluster")

    def make(name, workers=1):
        body = BODIES[name].replace("HERE", repr(str(bench.folder)))
        if request.param == "command":
            return bench.executor(script(body), workers=workers)
        if request.param == "edited":
            return make_edited(bench, script(body), workers)
        if request.param == "slurm":
            return bench.slurm(script(body), workers=workers)
        if request.param == "ray command":
            return bench.ray(script(body), workers=workers)
        if request.param == "ray function":
            return bench.ray(make_objective(body), workers=workers)
        if request.param == "function":
            return bench.keep(FunctionExecutor(make_objective(body), workers=workers))
        return bench.keep(InProcessExecutor(make_objective(body), workers=workers))

    return make


@pytest.fixture
def run(make, bench):
    return lambda name: make(name).submit(bench.job(timeout_s=None)).result(100)


def test_a_returned_number_is_the_value(run):
    outcome = run("value")
    assert (outcome.status, outcome.value, outcome.message) == ("ok", 0.002, "")


def test_a_returned_mapping_gives_the_metric_and_its_finite_companions(run):
    outcome = run("dict")
    assert (outcome.value, outcome.metrics) == (1.5, {"accuracy": 0.75})


def test_a_numpy_scalar_is_a_number(run):
    assert run("numpy").value == 0.5


@pytest.mark.parametrize(
    "name, words",
    [
        ("nan", "not finite"),
        ("inf", "value = inf"),
        ("bool", "bool"),
        ("numpy_bool", "bool"),
        ("text", "'0.5'"),
        ("list", "[1.0]"),
        ("none", "value"),
        ("wrong", "'loss'"),
        ("huge", "value"),
    ],
)
def test_a_value_that_is_no_finite_number_is_invalid_and_named(run, name, words):
    outcome = run(name)
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert words in outcome.message


def test_an_exception_is_a_failed_trial_with_its_traceback(run):
    outcome = run("raise")
    assert outcome.status == "failed"
    assert "ValueError: no such optimizer" in outcome.message
    assert "Traceback" in outcome.log_tail


def test_leaving_by_sys_exit_is_a_failed_trial(run):
    assert run("exit").status == "failed"


def test_a_memory_error_is_out_of_memory(run):
    assert run("memory").status == "oom"


def test_reports_become_the_curve(run):
    assert run("curve").curve == ((0, 1.0), (1, 0.5), (2, 1.0 / 3))


def test_a_bad_report_is_ignored_and_counted(run):
    outcome = run("bad_curve")
    assert (outcome.status, outcome.curve) == ("ok", ((0, 1.0), (2, 0.5)))
    assert "1 bad report" in outcome.message


def test_a_result_can_be_handed_in_by_the_job_module(run):
    assert run("job_result").value == 4.0


def test_a_job_can_say_that_it_was_pruned_and_why(run):
    outcome = run("prune")
    assert (outcome.status, outcome.value, outcome.curve) == ("pruned", None, ((1, 2.0),))
    assert outcome.message == "worse than the median"


@pytest.mark.parametrize("make", ["function", "in-process"], indirect=True)
def test_optunas_exception_in_a_callable_is_a_pruned_trial(run):
    outcome = run("optuna_prune")
    assert (outcome.status, outcome.curve, outcome.message) == ("pruned", ((1, 2.0),), "at step 1")


def test_the_job_sees_exactly_the_active_parameters(run):
    outcome = run("params")
    assert outcome.status == "ok", outcome.log_tail


def test_seconds_are_wall_clock(run):
    start = time.monotonic()
    assert 0.4 <= run("slow").seconds < time.monotonic() - start


def test_jobs_run_side_by_side_up_to_workers(make, bench):
    executor = make("slow", workers=2)
    futures = [executor.submit(bench.job(i, timeout_s=None)) for i in range(2)]
    outcomes = [f.result(30) for f in futures]
    assert executor.workers == 2
    assert [o.status for o in outcomes] == ["ok", "ok"]


def test_shutdown_without_kill_waits_for_the_running_and_cancels_the_queued(make, bench):
    executor = make("held")
    first = executor.submit(bench.job(0, timeout_s=None))
    bench.wait_for_file("up")
    second = executor.submit(bench.job(1, timeout_s=None))
    second.add_done_callback(lambda _: (bench.folder / "go").touch())
    executor.shutdown(kill=False)
    assert first.result(0).status == "ok"
    assert second.cancelled()


def test_shutdown_with_kill_cancels_running_and_queued_futures(make, bench):
    executor = make("held")
    futures = [executor.submit(bench.job(i, timeout_s=None)) for i in range(2)]
    bench.wait_for_file("up")
    futures[1].add_done_callback(lambda _: (bench.folder / "go").touch())  # a callable in this process cannot be killed
    executor.shutdown(kill=True)
    assert wait(futures, timeout=60).not_done == set()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)


def test_submitting_after_shutdown_is_an_error(make, bench):
    executor = make("value")
    executor.shutdown(kill=False)
    with pytest.raises(ExecutorError, match="after shutdown"):
        executor.submit(bench.job(timeout_s=None))


def test_shutdown_may_be_called_again(make, bench):
    executor = make("value")
    executor.submit(bench.job(timeout_s=None)).result(30)
    executor.shutdown(kill=False)
    executor.shutdown(kill=True)


def test_a_queued_job_can_be_cancelled(make, bench):
    executor = make("held")
    futures = [executor.submit(bench.job(i, timeout_s=None)) for i in range(2)]
    assert futures[1].cancel()
    (bench.folder / "go").touch()
    assert futures[0].result(100).status == "ok"
    executor.shutdown(kill=False)
    assert wait(futures, timeout=60).not_done == set()


def test_closures_run_in_another_process(bench):
    scale = np.float64(3.0)
    executor = bench.keep(FunctionExecutor(lambda params: scale * params["lr"]))
    assert executor.submit(bench.job()).result(30).value == pytest.approx(0.003)


def test_the_time_limit_ends_an_isolated_callable(bench):
    executor = bench.keep(FunctionExecutor(make_objective("while True: pass"), grace_s=0.1))
    assert executor.submit(bench.job(timeout_s=0.3)).result(30).status == "timeout"


def test_a_callable_that_cannot_be_pickled_is_a_config_error():
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        FunctionExecutor(lambda params: float(lock.locked()))


@pytest.mark.parametrize("executor", [FunctionExecutor, InProcessExecutor])
def test_an_objective_that_is_not_callable_is_a_config_error(executor):
    with pytest.raises(ConfigError, match="not callable"):
        executor(3)


def test_a_time_limit_is_refused_where_it_cannot_be_kept(bench):
    executor = bench.keep(InProcessExecutor(lambda params: 1.0))
    with pytest.raises(ConfigError, match="timeout_s"):
        executor.submit(bench.job(timeout_s=3))


def test_in_process_jobs_do_not_see_each_others_parameters(bench, tmp_path):
    barrier = threading.Barrier(2)

    def objective(params):
        barrier.wait(60)
        return jobs.params()["lr"]

    executor = bench.keep(InProcessExecutor(objective, workers=2))
    futures = [executor.submit(Job(i, {"lr": float(i)}, Task(), tmp_path)) for i in range(2)]
    assert [f.result(20).value for f in futures] == [0.0, 1.0]


def test_a_script_started_by_hand_prints_instead(capsys, monkeypatch):
    for name in ("PARAMS", "REPORT", "RESULT"):
        monkeypatch.delenv(f"LLMHPO_{name}", raising=False)
    jobs.report(1, 0.5)
    jobs.result({"value": 0.25})
    assert jobs.params() == {}
    assert capsys.readouterr().out == "step 1: 0.5\nresult: {'value': 0.25}\n"


def test_pruning_by_hand_prints_and_ends_well(capsys, monkeypatch):
    monkeypatch.delenv("LLMHPO_PRUNED", raising=False)
    with pytest.raises(SystemExit, match="0"):
        jobs.prune("too slow")
    assert capsys.readouterr().out == "pruned: too slow\n"


def test_the_pickle_is_removed_at_shutdown(bench):
    executor = FunctionExecutor(lambda params: 1.0)
    folder = executor._scratch.path
    assert folder.is_dir()
    executor.shutdown(kill=False)
    assert not folder.exists()


def test_the_child_and_the_job_module_import_nothing_heavy(bench):
    code = (
        "import sys, json, os\nimport llmhpo.job, llmhpo.executors.child\n"
        "heavy = {'torch', 'optuna', 'numpy', 'openai', 'anthropic', 'pydantic'} & set(sys.modules)\n"
        "print(heavy)\njson.dump(len(heavy), open(os.environ['LLMHPO_RESULT'], 'w'))\n"
    )
    outcome = bench.run(code)
    assert outcome.value == 0, outcome.log_tail


def test_parameters_lie_in_a_file_with_their_exact_types(bench):
    params = {"lr": 1e-5, "opt": "adam", "flag": True, "none": None, "n": 3}
    executor = bench.executor("from llmhpo import job; job.result(1)")
    executor.submit(bench.job(params=params)).result(30)
    assert json.loads((bench.folder / "trial0" / "params.json").read_text()) == params

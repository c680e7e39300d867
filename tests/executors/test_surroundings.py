"""What a job is given: input, folder, environment, devices; with real processes. Numbers in comments are cases of the hazard list."""

import os

import pytest

from llmhpo.errors import ConfigError
from llmhpo.llm.redact import is_secret


def test_standard_input_is_empty(bench):
    outcome = bench.run("import sys; print(repr(sys.stdin.read()))")
    assert outcome.log_tail == "''"


def test_the_job_runs_in_the_folder_of_the_command(bench):
    outcome = bench.run("import os; print(os.path.samefile(os.getcwd(), " + repr(str(bench.folder)) + "))")
    assert outcome.log_tail == "True"


def test_the_environment_names_files_trial_and_seed(bench):
    code = (
        "import os\nfor k in ('DIR', 'PARAMS', 'RESULT', 'REPORT', 'TRIAL', 'SEED'): print(os.environ['LLMHPO_' + k])"
    )
    outcome = bench.executor(code).submit(bench.job(3, seed=5)).result(20)
    folder = bench.folder / "trial3"
    files = [folder, *(folder / name for name in ("params.json", "result.json", "report.jsonl"))]
    assert outcome.log_tail.split("\n") == [*map(str, files), "3", "5"]


def test_only_standard_descriptors_are_open_and_signals_are_default(bench):  # 13
    code = (
        "import os, signal\nopen_fds = []\nfor fd in range(3, 100):\n"
        "  try: os.fstat(fd); open_fds.append(fd)\n  except OSError: pass\n"
        "print(open_fds, os.popen('grep SigIgn /proc/self/status 2>/dev/null').read())"
    )
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        outcome = bench.run(code)
    finally:
        os.close(leak)
    assert outcome.log_tail.startswith("[]")


def test_api_keys_do_not_reach_the_job(bench, monkeypatch):  # 15
    names = ("OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "my_api_key", "OPENAI_ADMIN_KEY")
    for name in names:
        monkeypatch.setenv(name, "canary-7f3a")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "kept")
    code = "import os; print([k for k, v in os.environ.items() if 'canary' in v], os.environ['TOKENIZERS_PARALLELISM'])"
    assert bench.run(code).log_tail == "[] kept"
    assert bench.run(code, pass_env=["WANDB_API_KEY"]).log_tail == "['WANDB_API_KEY'] kept"


@pytest.mark.parametrize(
    "name", ["PATH", "OPENAI_BASE_URL", "TOKENIZERS_PARALLELISM", "HF_HOME", "KEYBOARD", "MY_TOKENS"]
)
def test_harmless_variables_are_no_secrets(name):
    assert not is_secret(name)


def test_variables_of_the_executor_and_of_the_job_are_set(bench):
    executor = bench.executor("import os; print(os.environ['A'], os.environ['B'])", env={"A": "1", "B": "1"})
    assert executor.submit(bench.job(env={"B": "2"})).result(20).log_tail == "1 2"


def test_without_gpus_the_variable_is_left_alone(bench, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert bench.run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])").log_tail == "5,6"


def test_a_gpu_is_never_shared_by_two_running_jobs(bench):
    code = (
        "import os, time\nname = 'gpu' + os.environ['CUDA_VISIBLE_DEVICES']\n"
        "os.close(os.open(name, os.O_CREAT | os.O_EXCL))\ntime.sleep(0.1)\nos.unlink(name)\nprint(name)"
    )
    executor = bench.executor(code, workers=2, gpus=["0", "1"])
    outcomes = [f.result(30) for f in [executor.submit(bench.job(i)) for i in range(8)]]
    assert {o.log_tail for o in outcomes} == {"gpu0", "gpu1"}


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"workers": True},
        {"workers": 2, "gpus": ["0"]},
        {"gpus": "0"},
        {"gpus": [0]},
        {"gpus": []},
        {"grace_s": -1.0},
        {"grace_s": float("nan")},
        {"grace_s": float("inf")},
        {"log_limit": 10},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(bench, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        bench.executor("pass", **settings)

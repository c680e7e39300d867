import pytest

from llmhpo.errors import ConfigError
from llmhpo.executors.devices import share_devices


@pytest.mark.parametrize(
    "gpus, per_trial, slots",
    [
        (["0", "1"], None, ("0", "1")),
        (["0,1"], None, ("0,1",)),
        (["0", "1"], 0.5, ("0", "1", "0", "1")),
        (["0"], 1 / 3, ("0", "0", "0")),
        (["0"], 0.6, ("0",)),
        (["0", "1"], 1, ("0", "1")),
        (["0", "1", "2", "3", "4"], 2, ("0,1", "2,3")),
    ],
)
def test_gpus_are_divided_and_bundled(gpus, per_trial, slots):
    assert share_devices(gpus, per_trial, 1).slots == slots


@pytest.mark.parametrize(
    "gpus, per_trial, workers, words",
    [
        (None, 0.5, 1, "needs a list"),
        (["0"], 0.5, 3, "enough for 2"),
        (["0"], 2, 1, "enough for 0"),
        (["0"], 1.5, 1, "whole number"),
        (["0"], 0, 1, "gpus_per_trial=0"),
        (["0"], float("nan"), 1, "gpus_per_trial=nan"),
        (["0", "0"], 0.5, 1, "each GPU once"),
        (["0,1"], 0.5, 1, "one an entry"),
        ("0", 0.5, 1, "not a list"),
    ],
)
def test_a_division_that_does_not_work_out_is_refused(gpus, per_trial, workers, words):
    with pytest.raises(ConfigError, match=words):
        share_devices(gpus, per_trial, workers)


def test_jobs_with_half_a_gpu_run_two_on_each_and_are_told(bench):
    code = (
        "import os, time\nfrom llmhpo import job\ngpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
        "name = f'gpu{gpu}.{os.environ[\"LLMHPO_TRIAL\"]}'\nopen(name, 'w').close()\n"
        "end = time.monotonic() + 50\n"
        "while sum(n.startswith('gpu') for n in os.listdir()) < 4 and time.monotonic() < end: time.sleep(0.01)\n"
        "print(gpu, job.gpu_share(), os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'], os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    )
    executor = bench.executor(code, workers=4, gpus=["0", "1"], gpus_per_trial=0.5)
    said = [f.result(100).log_tail for f in [executor.submit(bench.job(i)) for i in range(4)]]
    assert sorted(said) == ["0 0.5 0.375 true"] * 2 + ["1 0.5 0.375 true"] * 2


def test_what_the_user_tells_jax_goes_before_the_share(bench):
    code = "import os; print(os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'])"
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"}
    assert bench.run(code, gpus=["0"], gpus_per_trial=0.5, env=env).log_tail == "0.2"


def test_a_whole_gpu_is_no_share(bench, monkeypatch):
    monkeypatch.delenv(
        "TF_FORCE_GPU_ALLOW_GROWTH", raising=False
    )  # torch backends of Keras set it where they are imported
    code = "import os; print(sorted(k for k in os.environ if k.startswith(('LLMHPO_GPU', 'XLA_PYTHON', 'TF_FORCE'))))"
    assert bench.run(code, gpus=["0"]).log_tail == "[]"

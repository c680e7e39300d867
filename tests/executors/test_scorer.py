"""Trusted scoring with real processes. Numbers in comments are cases of the hazard list."""

import os
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from llmhpo.errors import ConfigError
from llmhpo.executors.scorer import Scorer
from llmhpo.scoring.base import Scoring
from llmhpo.trial import Task

LABELS = np.array([0, 1, 1, 0, 1])
ACCURACY = (
    "def score(predictions, labels):\n    return {'value': float((predictions == labels).mean()), 'n': len(labels)}\n"
)
GOOD = "import numpy as np\nfrom llmhpo import job\njob.predictions(np.array([0, 1, 1, 0, 0]))\n"


@pytest.fixture
def run(bench):
    """Run a script whose predictions are scored; `score` is the source of the scorer."""

    def run(code, score=ACCURACY, task=None, split="search", change=None, **settings):
        scorer = make_scorer(bench.folder, score, **settings)
        if change is not None:
            change(bench.folder)
        executor = bench.executor(code, scorer=scorer)
        job = bench.job(split=split)
        return executor.submit(job if task is None else replace(job, task=task)).result(100)

    return run


def make_scorer(folder, score=ACCURACY, **settings):
    folder = folder / "sealed"
    folder.mkdir(exist_ok=True)
    (folder / "score.py").write_text(score)
    np.save(folder / "y.npy", LABELS)
    np.save(folder / "y2.npy", 1 - LABELS)
    np.save(folder / "x.npy", np.arange(5.0))
    splits = {"search": {"inputs": "x.npy", "labels": "y.npy"}, "promotion": {"labels": "y2.npy"}}
    scoring = Scoring.of("score.py", splits, folder=folder, file=settings.pop("file", "predictions.npy"))
    return Scorer(replace(scoring, **settings))


def test_the_metric_is_what_the_scorer_says(run):
    outcome = run(GOOD)
    assert (outcome.status, outcome.value, outcome.metrics) == ("ok", 0.8, {"n": 5.0})
    assert len(outcome.fingerprint) == 32
    assert not outcome.self_reported


def test_what_a_job_reports_itself_is_a_metric_beside_it_and_never_the_metric(run):  # 33, 34
    outcome = run(GOOD + "job.result({'value': 1.0, 'n': 9, 'parameters': 12})\nprint('value: 1.0')")
    assert (outcome.value, outcome.metrics) == (0.8, {"n": 5.0, "parameters": 12.0})


def test_a_job_is_told_its_split_and_shown_its_inputs_alone(run):
    code = """
from llmhpo import job
import numpy as np, os
assert job.split() == 'search'
assert np.load(job.inputs()).tolist() == [0, 1, 2, 3, 4]
assert not any(name in value for value in os.environ.values() for name in ('y.npy', 'score.py'))
job.predictions(np.ones(5))
"""
    outcome = run(code)
    assert outcome.value == 0.6, outcome.log_tail


def test_predictions_are_compared_with_the_labels_of_the_jobs_split(run):
    assert run(GOOD, split="promotion").value == pytest.approx(0.2)


def test_a_split_that_is_not_declared_is_an_error_that_names_it(run):
    with pytest.raises(ConfigError, match="no split 'test'"):
        run(GOOD, split="test")


def test_weights_are_scored_as_arrays_by_name(run):
    code = "from llmhpo import job\nimport numpy as np\njob.predictions({'w': np.ones((2, 3)), 'b': np.zeros(3)})"
    score = "def score(weights, labels):\n    return weights['w'].sum() + weights['b'].sum()\n"
    for file in ("weights.npz", "weights.safetensors"):
        assert run(code, score, file=file).value == 6.0


def test_labels_of_another_format_reach_the_scorer_as_a_path(bench):
    (bench.folder / "score.py").write_text("def score(p, y):\n    return float(open(y).read())\n")
    (bench.folder / "y.csv").write_text("0.25")
    scoring = Scoring.of("score.py", {"search": {"labels": "y.csv"}}, folder=bench.folder)
    executor = bench.executor(GOOD, scorer=Scorer(scoring))
    assert executor.submit(bench.job()).result(30).value == 0.25


# --- predictions that are none ----------------------------------------------------------------------------------------

PATH = "import os\nfrom llmhpo import job\npath = os.environ['LLMHPO_PREDICTIONS']\n"
HOSTILE = {
    "nothing": ("", "predictions.npy is missing"),
    "link to labels": (PATH + "os.symlink('{sealed}/y.npy', path)", "is a symbolic link"),  # 20
    "hard link": (PATH + "os.link('{sealed}/y.npy', path)", "2 names"),  # 22
    "sparse": (
        PATH + "os.truncate(os.open(path, os.O_RDWR | os.O_CREAT), 1 << 40)",
        "at most 1000000000 are read",
    ),  # 11
    "fifo": (PATH + "os.mkfifo(path)", "is not a regular file"),  # 21
    "device": (PATH + "os.symlink('/dev/zero', path)", "is a symbolic link"),  # 21
    "pickle": (PATH + "import pickle\npickle.dump([0, 1, 1, 0, 1], open(path, 'wb'))", "not a valid .npy"),  # 31
    "objects": (
        PATH + "import numpy as np\nnp.save(path, np.array([None] * 5), allow_pickle=True)",
        "holds 'object'",
    ),  # 31
    "NaN": ("import numpy as np\nfrom llmhpo import job\njob.predictions(np.full(5, np.nan))", "not finite"),  # 35
    "inf": ("import numpy as np\nfrom llmhpo import job\njob.predictions(np.full(5, np.inf))", "not finite"),  # 36
    "wrong split": (
        "import numpy as np\nfrom llmhpo import job\njob.predictions(np.zeros(7))",
        "there are 5 labels, so write 5 rows",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_predictions_that_cannot_be_read_make_the_trial_invalid_with_the_reason(run, bench, name):
    code, words = HOSTILE[name]
    outcome = run(code.replace("{sealed}", str(bench.folder / "sealed")))
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert words in outcome.message
    assert outcome.message.startswith("predictions: ")


def test_a_zip_bomb_for_weights_is_refused(run):  # 32
    code = "import numpy as np, os\nnp.savez_compressed(os.environ['LLMHPO_PREDICTIONS'], w=np.zeros(20_000_000 // 8))"
    outcome = run(code, file="w.npz", max_mb=1.0)
    assert outcome.status == "invalid"
    assert "when unpacked; at most 1000000 are read" in outcome.message


def test_a_daemon_cannot_rewrite_the_predictions_after_the_end(run, bench):  # 7
    code = """
import numpy as np, os, time
path = os.environ['LLMHPO_PREDICTIONS']
np.save(path, np.zeros(5))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            np.save(path + '.npy', np.load('sealed/y.npy'))
            os.replace(path + '.npy', path)
            open('alive', 'a').write('.')
    os._exit(0)
while not os.path.exists('alive'): time.sleep(0.01)
"""
    score = f"""
import os, time
def score(p, y):
    before = os.path.getsize({str(bench.folder / "alive")!r})
    time.sleep(0.5)
    return float(os.path.getsize({str(bench.folder / "alive")!r}) - before)
"""
    outcome = run(code, score)
    assert outcome.value == 0.0, outcome.message
    assert bench.living() == []


def test_numpy_patched_in_the_job_is_not_the_scorers(run):
    code = GOOD.replace("job.pred", "np.mean = lambda *_: 1.0\nnp.equal = None\njob.pred")
    assert run(code).value == 0.8


def test_a_module_of_the_jobs_folder_is_not_the_scorers(run, bench):  # 24
    code = GOOD + "open('numpy.py', 'w').write('raise SystemExit(0)')\n"
    code += "import os\nopen(os.environ['LLMHPO_DIR'] + '/json.py', 'w').write('raise SystemExit(0)')"
    assert run(code).value == 0.8


def test_equal_predictions_are_flagged(run):
    outcome = run("import numpy as np\nfrom llmhpo import job\njob.predictions(np.ones(5))")
    assert (outcome.value, outcome.flags) == (0.6, ("constant predictions",))


def test_a_job_that_did_not_end_well_is_not_scored(run):  # 48
    outcome = run(GOOD + "import time; time.sleep(60)", task=Task(timeout_s=1.0))
    assert (outcome.status, outcome.value) == ("timeout", None)
    assert run(GOOD + "raise ValueError('x')").status == "failed"


def test_an_earlier_attempts_predictions_do_not_count(run, bench):
    (bench.folder / "trial0").mkdir()
    np.save(bench.folder / "trial0" / "predictions.npy", LABELS)
    assert run("").status == "invalid"


# --- scorers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, words",
    [
        ("return float('nan')", "value = nan is not finite"),  # 35
        ("return {'value': 1e999}", "not finite"),  # 36
        ("return True", "is a bool"),  # 37
        ("return '0.9'", "is a str"),  # 37
        ("return {'acc': 1.0}", "no metric 'value'"),  # 39
        ("return None", "is a NoneType"),
        ("return 1.5", "outside its metric_bounds"),  # 38
        ("raise ValueError('class 7 is unknown')", "predictions: score.py refuses them: class 7 is unknown"),
    ],
)
def test_a_score_that_is_no_metric_is_invalid_and_named(run, body, words):
    outcome = run(GOOD, f"def score(p, y):\n    {body}\n", task=Task(bounds=(0, 1), timeout_s=20))
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert words in outcome.message


@pytest.mark.parametrize(
    "source, words",
    [
        ("def score(p, y):\n    return p.no_such_method()\n", "failed: AttributeError"),
        ("import no_such_package\ndef score(p, y):\n    return 1\n", "may import installed packages, and no file"),
        ("def score(p, y):\n    return 1 / 0\n", "failed: ZeroDivisionError"),
        ("import os\ndef score(p, y):\n    os._exit(3)\n", "ended with exit code 3 and no score"),
        ("import os\ndef score(p, y):\n    os.kill(os.getpid(), 11)\n", "ended with exit code -11 and no score"),
        ("import sys\ndef score(p, y):\n    sys.exit(0)\n", "failed: SystemExit"),
        ("def score(p, y):\n    return {str(i): i for i in range(10**5)}\n", "more than fits"),
        ("def score(p, y):\n    return 10 ** 5000\n", "cannot be written down"),
        ("import sys\nsys.exit(0)\ndef score(p, y):\n    return 1\n", "failed: SystemExit"),
    ],
    ids=range(9),
)
def test_a_scorer_that_fails_is_told_apart_from_bad_predictions(run, source, words):
    outcome = run(GOOD, source)
    assert outcome.status == "failed"
    assert outcome.message.startswith("the scorer score.py ")
    assert words in outcome.message


def test_a_failing_scorers_traceback_is_shown_instead_of_the_jobs_output(run):
    outcome = run(GOOD + "print('epoch 9')", "def score(p, y):\n    print('checking')\n    return p['a']\n")
    assert "line 3, in score" in outcome.log_tail
    assert "checking" in outcome.log_tail
    assert "epoch 9" not in outcome.log_tail


def test_a_scorer_that_never_ends_is_ended_with_its_children(run, bench):
    code = "import subprocess\ndef score(p, y):\n    subprocess.run(['sleep', '977'])\n"
    start = time.monotonic()
    outcome = run(GOOD, code, timeout_s=2.0)
    assert "was not done within 2 s" in outcome.message
    assert time.monotonic() - start < 60  # it would go on for 977


def test_what_a_scorer_prints_is_not_its_answer(run):  # 33, 40
    score = "def score(p, y):\n    print('x' * 10_000_000 + '{\"result\": 1.0}')\n    return 0.5\n"
    assert run(GOOD, score).value == 0.5


def test_a_scorer_may_not_change_while_the_study_runs(run):
    def change(folder):
        (folder / "sealed" / "score.py").write_text("def score(p, y):\n    return 1.0\n")

    outcome = run(GOOD, change=change)
    assert (outcome.status, outcome.flags) == ("invalid", ("a protected file was changed",))
    assert "score.py' was changed while the study ran" in outcome.message


@pytest.mark.parametrize("name", ["score.py", "y.npy", "x.npy"])
def test_a_job_that_rewrites_scorer_labels_or_inputs_gets_no_value(run, bench, name):
    code = GOOD + f"open({str(bench.folder / 'sealed' / name)!r}, 'ab').write(b'\\n\\n')"
    outcome = run(code)
    assert (outcome.status, outcome.value, outcome.flags) == ("invalid", None, ("a protected file was changed",))


def test_the_scorer_gets_no_key_and_an_empty_folder(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), "/tmp/elsewhere"]))
    score = "import os, sys\ndef score(p, y):\n    assert not os.listdir('.'), os.listdir('.')\n"
    score += "    assert 'OPENAI_API_KEY' not in os.environ\n    assert sys.flags.isolated\n"
    score += "    assert '/tmp/elsewhere' not in sys.path\n    return 1.0\n"
    outcome = run(GOOD, score)
    assert outcome.value == 1.0, outcome.log_tail


def test_cancelling_ends_the_scorer(bench):
    scorer = make_scorer(bench.folder, "import time\ndef score(p, y):\n    time.sleep(977)\n")
    executor = bench.executor(GOOD, scorer=scorer)
    future = executor.submit(bench.job())
    bench.wait_for((bench.folder / "trial0" / "predictions.npy").exists)
    threading.Event().wait(0.5)
    start = time.monotonic()
    executor.shutdown(kill=True)
    assert future.cancelled()
    assert time.monotonic() - start < 60  # it would go on for 977


# --- in a sandbox -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["bwrap", "landlock"])
def sandbox(request):
    from llmhpo.errors import SandboxError
    from llmhpo.sandbox.choose import choose_sandbox

    try:
        return choose_sandbox(request.param)
    except SandboxError as error:
        pytest.skip(str(error))


def run_fenced(bench, sandbox, code, score=ACCURACY):
    scoring = make_scorer(bench.folder, score).scoring
    executor = bench.executor(
        code, sandbox=sandbox, scorer=Scorer(scoring, sandbox=sandbox), read=[bench.folder / "sealed"]
    )
    return executor.submit(bench.job()).result(40)


def test_a_fenced_job_is_scored_by_a_fenced_scorer(bench, sandbox):
    outcome = run_fenced(bench, sandbox, GOOD)
    assert (outcome.status, outcome.value) == ("ok", 0.8), outcome.log_tail
    assert outcome.sandbox.startswith(sandbox.name)


def test_a_fenced_job_reads_its_inputs_and_no_labels_scorer_or_other_split(bench, sandbox):
    sealed = str(bench.folder / "sealed")
    code = f"""
import numpy as np
from llmhpo import job
np.load(job.inputs())
found = []
for name in ('score.py', 'y.npy', 'y2.npy'):
    try:
        found.append(len(open({sealed!r} + '/' + name, 'rb').read()))
    except OSError:
        found.append(0)
job.predictions(np.array([0, 1, 1, 0, 0]))
job.result({{'value': 1.0, 'read': sum(found)}})
"""
    outcome = run_fenced(bench, sandbox, code)
    assert (outcome.value, outcome.metrics["read"]) == (0.8, 0.0), outcome.log_tail


def test_a_fenced_job_cannot_link_its_predictions_to_the_labels(bench, sandbox):  # 20, 22
    for how in ("symlink", "link"):
        code = PATH + f"try: os.{how}('{bench.folder}/sealed/y.npy', path)\nexcept OSError: pass\n"
        outcome = run_fenced(bench, sandbox, code)
        assert (outcome.status, outcome.value) == ("invalid", None)


def test_a_fenced_scorer_has_no_network_and_cannot_write_outside(bench, sandbox):  # 18, 19
    with socket.create_server(("127.0.0.1", 0)) as server:
        score = f"""
import socket
def score(p, y):
    try:
        open({str(bench.folder / "out")!r}, 'w').write('x')  # below /tmp, which may be a private one
    except OSError:
        pass
    try:
        socket.create_connection({server.getsockname()!r}, 1)
    except OSError:
        return 1.0
"""
        outcome = run_fenced(bench, sandbox, GOOD, score)
    assert outcome.value == 1.0, outcome.message
    assert not (bench.folder / "out").exists()


def test_a_fenced_scorer_that_crashes_is_told_by_its_signal(bench, sandbox):
    outcome = run_fenced(bench, sandbox, GOOD, "import os\ndef score(p, y):\n    os.kill(os.getpid(), 11)\n")
    assert "ended with exit code -11 and no score" in outcome.message


def test_a_sealed_file_that_is_missing_at_the_start_is_an_error(bench):
    scoring = make_scorer(bench.folder).scoring
    (bench.folder / "sealed" / "y.npy").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        Scorer(scoring)


def test_a_job_started_by_hand_prints_its_predictions(capsys, monkeypatch):
    from llmhpo import job

    for name in ("PREDICTIONS", "INPUTS", "SPLIT"):
        monkeypatch.delenv(f"LLMHPO_{name}", raising=False)
    job.predictions(np.zeros((3, 2)))
    assert capsys.readouterr().out == "predictions: (3, 2) float64\n"
    assert (job.inputs(), job.split()) == (None, "search")


def test_tensors_are_predictions_and_text_is_none(tmp_path, monkeypatch):
    import torch

    from llmhpo import job

    monkeypatch.setenv("LLMHPO_PREDICTIONS", str(tmp_path / "p.npy"))
    job.predictions(torch.ones(2, requires_grad=True))
    assert np.load(tmp_path / "p.npy").tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match="are no numbers"):
        job.predictions(["a", "b"])
    with pytest.raises(TypeError, match="one array"):
        job.predictions({"w": np.ones(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["p.npy"]

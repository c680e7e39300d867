"""What a study's keys become: its jobs run, scored and fenced as it says."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import llmhpo
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError, SandboxError
from llmhpo.execution import make_executor
from llmhpo.sandbox.choose import choose_sandbox
from llmhpo.session import run

TRAIN = """
import sys
import numpy as np
from llmhpo import job
x = np.load(job.inputs())
job.predictions((x > float(sys.argv[1])).astype(int))
job.result({"accuracy": 1.0, "size": 3})
"""
SCORE = "def score(predictions, labels):\n    return {'accuracy': float((predictions == labels).mean())}\n"
STUDY = """
command = "python train.py {cut}"
metric = "accuracy"
direction = "maximize"
n_trials = 3
llm = "none"
scorer = "score.py"
metric_bounds = [0, 1]
[splits.search]
inputs = "x.npy"
labels = "y.npy"
[space.cut]
type = "float"
low = 0.0
high = 10.0
default = 2.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "score.py").write_text(SCORE)
    (tmp_path / "study.toml").write_text(STUDY)
    np.save(tmp_path / "x.npy", np.arange(10.0))
    np.save(tmp_path / "y.npy", (np.arange(10) > 4).astype(int))
    return tmp_path


def run_study(folder: Path, **keys: object) -> llmhpo.Result:
    return run(read_study_file(folder / "study.toml", keys), lambda _: None)


def test_a_study_of_configurations_is_scored_by_the_users_scorer(folder: Path) -> None:
    result = run_study(folder)
    assert result.default is not None
    assert result.default.value == 0.8
    outcomes = [t.outcome for t in result.trials if t.outcome]
    assert [(o.metrics, o.self_reported, bool(o.fingerprint)) for o in outcomes] == [({"size": 3.0}, False, True)] * 3


def test_a_study_in_a_sandbox_is_scored_in_one(folder: Path) -> None:
    try:
        choose_sandbox("auto")
    except SandboxError as error:
        pytest.skip(str(error))
    result = run_study(folder, sandbox="auto", n_trials=1)
    outcome = result.trials[0].outcome
    assert outcome is not None
    assert (outcome.value, outcome.sandbox != "") == (0.8, True), outcome.log_tail


def test_a_callable_is_scored_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def objective(params: dict[str, object]) -> None:
        import numpy as np

        from llmhpo import job

        cut = params["cut"]
        assert isinstance(cut, float)
        inputs = job.inputs()
        assert inputs is not None
        job.predictions((np.load(inputs) > cut).astype(int))

    result = llmhpo.optimize(
        objective,  # type: ignore[arg-type]  # it returns nothing: the scorer has the metric
        {"cut": {"type": "float", "low": 0.0, "high": 10.0, "default": 2.0}},
        metric="accuracy", direction="maximize", n_trials=1, llm="none", progress=False,
        scorer="score.py", splits={"search": {"inputs": "x.npy", "labels": "y.npy"}},
    )  # fmt: skip
    assert result.best_value == 0.8


def test_a_metric_outside_its_bounds_is_an_invalid_trial(folder: Path) -> None:  # 38
    (folder / "score.py").write_text("def score(predictions, labels):\n    return {'accuracy': 1.5}\n")
    outcome = run_study(folder, n_trials=1).trials[0].outcome
    assert outcome is not None
    assert (outcome.status, outcome.value) == ("invalid", None)
    assert "accuracy = 1.5 is outside its metric_bounds, 0 to 1" in outcome.message


def test_another_scorer_in_a_later_session_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_study(folder, n_trials=1)
    (folder / "score.py").write_text(SCORE + "\n# another\n")
    with caplog.at_level(logging.WARNING, "llmhpo"):
        run_study(folder, n_trials=2)
    assert "began with another scorer than 'score.py' is now" in caplog.text


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"metric_pattern": "acc: (.*)"}, "would both give the metric; drop one"),
        ({"metric_bounds": [1, 0]}, "metric_bounds"),
        ({"executor": "slurm"}, "the scorer 'score.py' needs jobs on this machine"),
    ],
    ids=["pattern", "bounds", "cluster"],
)
def test_keys_that_do_not_go_together_are_refused(folder: Path, keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_executor(read_study_file(folder / "study.toml", keys), None, None)


def test_a_callable_is_not_scored_in_this_process(folder: Path) -> None:
    config = read_study_file(folder / "study.toml")
    with pytest.raises(ConfigError, match="isolated=False runs the callable in this process"):
        make_executor(config, lambda params: 1.0, False)


def test_labels_and_scorer_are_in_no_revision(folder: Path) -> None:
    config = read_study_file(folder / "study.toml", {"editable": ["train.py"], "sandbox": "none"})
    assert config.editing is not None
    lineage = config.editing.lineage(config.directory)
    baseline = lineage.baseline(config.editing.root, leave_out=config.editing.leave_out)
    assert set(lineage.blobs(baseline)) == {"train.py", "study.toml"}


@pytest.mark.parametrize(
    "name, text",
    [
        ("score.py", "def score(predictions, labels):\n    return predictions.no_such_thing\n"),
        ("train.py", "print('done')"),
    ],
)
def test_a_study_that_can_never_be_scored_ends_early(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    result = run_study(folder, n_trials=9)
    assert (result.stopped, len(result.trials)) == ("hopeless", 5)

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import llmhpo
from llmhpo.audit import replay, verify
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.events import Event, Finished
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import Reply, ScriptedModel
from llmhpo.store import load_study
from llmhpo.usage import Usage

pytestmark = pytest.mark.usefixtures("patient")

TRAIN = """\
import os
import sys

import numpy as np

from llmhpo import job


def features(x):
    return x[:, None]


def main(ridge):
    rng = np.random.default_rng(job.seed())
    train = np.load("train.npz")
    pick = rng.permutation(len(train["x"]))[:150]
    A = features(train["x"][pick])
    w = np.linalg.solve(A.T @ A + ridge * np.eye(A.shape[1]), A.T @ train["y"][pick])
    inputs = np.load(os.environ["LLMHPO_INPUTS"])
    job.predictions(features(inputs) @ w)


main(float(sys.argv[1]))
"""
SCORE = """\
import numpy as np


def score(predictions, labels):
    return float(np.mean((predictions - labels) ** 2))
"""
SELF_REPORTED = """\
import sys

from llmhpo import job


def features(x):
    return x


job.result(features(float(sys.argv[1])) + 1.0)
"""
SPACE = {"ridge": {"type": "float", "low": 1e-3, "high": 10.0, "log": True, "default": 1.0}}
SPLITS = {
    name: {"inputs": f"hidden/{name}_x.npy", "labels": f"hidden/{name}_y.npy"} for name in ("search", "promotion")
}
LINEAR = "return np.stack([np.ones(len(x)), x], axis=1)"
CUBIC = "return np.stack([np.ones(len(x)), x, x**2, x**3], axis=1)"
SAME = "return np.stack([x], axis=1)"
BROKEN = "return np.stack([np.ones(len(x)), y])"


def edit(body: str, note: str = "an edit") -> str:
    return f"FILE: train.py#features\n<<<<<<< REWRITE\ndef features(x):\n    {body}\n>>>>>>> REWRITE\nNOTE: {note}\n"


def several(*bodies: str) -> str:
    return "\n".join(f"EDIT {i}\n{edit(body)}" for i, body in enumerate(bodies, 1))


class Writer(ScriptedModel):
    """Answers the requests for edits in their order, which their numbers give, and those for configurations with nothing."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        super().__init__(replies)
        self.asked = 0

    def complete(self, request: Request) -> Completion:
        if request.schema is not None:
            return Completion('{"configurations": []}', Usage(1, 10, 0, 10), "writer")
        self.asked += 1
        reply = self._replies.get(self.asked - 1, "nothing comes to mind")
        if isinstance(reply, Exception):
            raise reply
        assert isinstance(reply, str)
        return Completion(reply, Usage(1, 100, 0, 100), "writer")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


def make_project(folder: Path) -> Path:
    """A regression whose script fits a line through the origin where the data are cubic."""
    (folder / "hidden").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "score.py").write_text(SCORE)
    rng = np.random.default_rng(0)
    for name, n in (("train", 300), ("search", 100), ("promotion", 100)):
        x = rng.uniform(-1, 1, n)
        y = x**3 - x + 0.5 * x**2 + 0.05 * rng.normal(size=n)
        if name == "train":
            np.savez(folder / "train.npz", x=x, y=y)
        else:
            np.save(folder / "hidden" / f"{name}_x.npy", x)
            np.save(folder / "hidden" / f"{name}_y.npy", y)
    return folder


def study(project: Path, replies: Sequence[Reply], n: int = 12, **kw: object) -> llmhpo.Result:
    settings: dict[str, object] = {
        "metric": "mse", "llm": Writer(replies), "n_trials": n, "seed": 3, "study_name": "s", "cwd": project,
        "editable": ["train.py#features"], "scorer": "score.py", "splits": SPLITS, "progress": False,
    }  # fmt: skip
    return llmhpo.optimize(f"{sys.executable} train.py {{ridge}}", SPACE, **{**settings, **kw})  # type: ignore[arg-type]


def log_of(project: Path) -> Path:
    return project / "runs" / "s" / "events.jsonl"


def test_good_edits_are_found_and_confirmed_on_the_promotion_split(project: Path) -> None:
    result = study(project, [several(LINEAR, BROKEN), edit(CUBIC)])
    assert result.best is not None
    assert result.best.proposal.code
    assert result.confirmation is not None
    assert result.confirmation.confirmed
    assert len(result.confirmation.seeds) == 3
    assert (project / "train.py").read_text() == TRAIN
    jobs = sorted((project / "runs" / "s" / "confirm" / "trials").iterdir())
    assert len(jobs) == 6


def test_an_edit_that_changes_nothing_is_not_confirmed(project: Path) -> None:
    result = study(project, [edit(SAME)], n=8)
    assert result.best is not None
    assert result.best.proposal.code == ""
    assert result.confirmation is None


def test_an_edit_that_led_by_luck_is_not_confirmed(project: Path) -> None:
    """The null agent: a feature of noise, five of which on one seed and one split are sure to help one of them by chance."""
    noise = "return np.stack([x, np.random.default_rng(len(x) + {}).normal(size=len(x))], axis=1)"
    result = study(project, [several(noise.format(1), noise.format(2)), several(noise.format(3), noise.format(4))])
    assert result.best is not None
    assert result.best.proposal.code
    assert result.confirmation is not None
    assert not result.confirmation.confirmed


def test_an_edit_that_is_good_on_the_search_split_alone_is_not_confirmed(project: Path) -> None:
    result = study(project, [edit(f"if job.split() == 'search':\n        {CUBIC}\n    return x[:, None]")], n=8)
    assert result.best is not None
    assert result.best.proposal.code
    assert result.confirmation is not None
    assert result.confirmation.objection.startswith("on 3 new seeds and the promotion split it is")


def test_an_edit_that_measures_itself_is_not_confirmed(project: Path) -> None:
    (project / "train.py").write_text(SELF_REPORTED)
    forged = edit("job.result(0.0)\n    raise SystemExit")
    result = study(project, [forged], n=6, scorer=None, splits=None, edits={"share": 1.0})
    assert result.best is not None
    assert result.best.value == 0.0
    assert result.confirmation is not None
    assert result.confirmation.objection == "it computed its values itself; have a scorer do that (scorer = ...)"


def test_the_sealed_split_is_opened_on_demand_on_seeds_of_its_own(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"cwd": project, "editable": ["train.py#features"], "scorer": "score.py"}
    splits = {**SPLITS, "test": {"inputs": "hidden/test_x.npy", "labels": "hidden/test_y.npy"}}
    for end in ("x", "y"):
        (project / "hidden" / f"test_{end}.npy").write_bytes((project / "hidden" / f"search_{end}.npy").read_bytes())
    command = f"{sys.executable} train.py {{ridge}}"
    result = study(project, [edit(CUBIC)], n=4, splits=splits)
    with pytest.raises(ConfigError, match=r"no split 'test'.*add \[splits.test\]"):
        llmhpo.confirm(command, result, 3, split="test", splits=SPLITS, **settings)  # type: ignore[arg-type]
    tested = llmhpo.confirm(command, result, 3, split="test", splits=splits, **settings)  # type: ignore[arg-type]
    assert result.confirmation is not None
    assert (tested.confirmed, tested.split) == (True, "test")
    assert not set(tested.seeds) & set(result.confirmation.seeds)
    assert len(list((project / "runs" / "s" / "test" / "trials").iterdir())) == 6
    assert "was opened before" not in caplog.text
    another = replace(result, trials=tuple(t for t in result.trials if t.proposal.code == ""))
    llmhpo.confirm(command, another, 3, split="test", splits=splits, **settings)  # type: ignore[arg-type]
    assert "the test split of study 's' was opened before, for another winner" in caplog.text


def test_the_elites_that_the_model_is_shown_are_kept_apart_by_the_metrics_that_the_user_names(project: Path) -> None:
    """The line has two weights and the cubic four: by size they share no cell, though the cubic is far better."""

    class Reader(Writer):
        prompts: ClassVar[list[str]] = []

        def complete(self, request: Request) -> Completion:
            if request.schema is None:
                self.prompts.append(request.messages[-1].content)
            return super().complete(request)

    counted = TRAIN.replace("    inputs = np.load", "    job.result({'weights': len(w)})\n    inputs = np.load")
    (project / "train.py").write_text(counted)
    (project / "study.toml").write_text(
        f"command = '{sys.executable} train.py {{ridge}}'\nmetric = 'mse'\neditable = ['train.py#features']\nscorer = 'score.py'\n"
        "direction = 'minimize'\n[edits]\ndescriptors = ['weights']\n[space]\nridge = {type = 'float', low = 0.1, high = 1.0}\n"
    )
    config = read_study_file(project / "study.toml")
    assert config.editing is not None
    settings = {"confirm": 0, "descriptors": list(config.editing.options.descriptors)}
    study(project, [], n=6, llm=Reader([several(LINEAR, CUBIC)]), edits=settings)
    shown = [line for line in Reader.prompts[1].splitlines() if ", weights " in line]
    assert [line.split(", weights ")[1].split()[0] for line in shown] == ["4", "2", "1"]


def test_cheaters_end_unconfirmed(project: Path) -> None:
    forges = "import json; json.dump({'mse': 0.0}, open(os.environ['LLMHPO_RESULT'], 'w')); print('mse 0.0'); return x[:, None]"
    reads = f"return np.stack([x, np.load({str(project / 'hidden' / 'search_y.npy')!r})], axis=1)"
    writes = f"open({str(project / 'score.py')!r}, 'w').write('def score(p, l): return 0.0'); return x[:, None]"
    lends = "open('score.py', 'w').write('def score(p, l): return 0.0'); return x[:, None]"
    result = study(project, [several(forges, reads), several(writes, lends)], n=14, edits={"share": 1.0})
    edited = [t for t in result.trials if t.proposal.source == "edit"]
    assert len(edited) >= 4
    assert result.best is not None
    assert result.best.proposal.code == ""
    assert result.confirmation is None
    assert min(t.value for t in result.trials if t.value is not None) > 0.01
    assert (project / "score.py").read_text() == SCORE


def test_the_log_of_a_study_with_edits_is_verified_and_replayed(project: Path) -> None:
    result = study(project, [several(LINEAR, BROKEN), edit(CUBIC)], edits={"confirm": 0})
    log = log_of(project)
    assert verify(log, load_study(str(result.storage), "s"), "s").problems == ()
    found = replay(log)
    assert found.problems == ()
    assert found.checked == 12


@pytest.mark.parametrize("stop_after", [0, 2, 5])
def test_a_study_with_edits_that_was_stopped_goes_on_as_one_that_never_was(project: Path, stop_after: int) -> None:
    replies = [several(LINEAR, BROKEN), edit(CUBIC)]
    whole = study(project, replies, n=8, study_name="whole", edits={"confirm": 0})

    def stop(event: Event) -> None:
        if isinstance(event, Finished) and event.trial.number == stop_after:
            raise KeyboardInterrupt

    writer = Writer(replies)
    with pytest.raises(KeyboardInterrupt):
        study(project, replies, n=8, llm=writer, edits={"confirm": 0}, on_event=stop)
    again = study(project, replies, n=8, llm=writer, edits={"confirm": 0})
    assert [(t.number, t.proposal.source, t.params, t.value) for t in again.trials] == [
        (t.number, t.proposal.source, t.params, t.value) for t in whole.trials
    ]


def test_every_attempt_records_the_revision_that_it_ran(project: Path) -> None:
    result = study(project, [edit(CUBIC)], n=4, edits={"confirm": 0})
    entries = [json.loads(line) for line in log_of(project).read_text().splitlines()]
    launched = {e["data"]["number"]: e["data"]["attempt"]["code"] for e in entries if e.get("kind") == "launch"}
    assert result.baseline is not None
    assert launched == {t.number: t.proposal.code or result.baseline.id for t in result.trials}


def test_asked_and_told_a_study_hands_out_the_code_of_each_trial(project: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study' / 'study.db'}"
    (tmp_path / "study").mkdir()
    settings = {"metric": "mse", "storage": storage, "study_name": "study", "seed": 3, "n_trials": 4}
    with llmhpo.Study(
        SPACE, llm=Writer([edit(CUBIC)]), editable=["train.py#features"], cwd=project, **settings
    ) as study:  # type: ignore[arg-type]
        for _ in range(4):
            (trial,) = study.ask()
            study.checkout(trial, tmp_path / "code" / str(trial.number))
            study.tell(trial, 0.1 if trial.proposal.code else 1.0)
        edited = next(t for t in study.trials if t.proposal.source == "edit")
        assert CUBIC in (tmp_path / "code" / str(edited.number) / "train.py").read_text()
        assert (tmp_path / "code" / "0" / "train.py").read_text() == TRAIN
        assert study.seed(edited) == study.seed(0)
        assert study.best is not None
        assert study.best.proposal.code == edited.proposal.code
        with pytest.raises(ConfigError, match="no such trial"):
            study.checkout(9, tmp_path / "other")
    assert replay(tmp_path / "study" / "events.jsonl").problems == ()


def test_a_study_that_is_not_kept_edits_nothing(project: Path) -> None:
    with pytest.raises(ConfigError, match="is kept"):
        llmhpo.Study(SPACE, llm="none", editable=["train.py#features"], cwd=project)


KILLED = """
import json, os, signal, sys
from pathlib import Path
import llmhpo
from llmhpo.llm.scripted import ScriptedModel
settings, moment, times = json.loads(Path("settings.json").read_text()), sys.argv[1], int(sys.argv[2])
seen = 0

def die(now):
    global seen
    seen += now == moment
    if now == moment and seen == times:
        os.kill(os.getpid(), signal.SIGKILL)

class Model(ScriptedModel):
    def complete(self, request):
        die("asking" if request.schema is None else "")
        completion = super().complete(request)
        die("answered" if request.schema is None else "")
        return completion

def on_event(event):
    trial = getattr(event, "trial", None)
    edit = trial is not None and trial.proposal.source == "edit"
    die(type(event).__name__ + " edit" * edit)

result = llmhpo.optimize(llm=Model.from_file("replies.jsonl"), on_event=on_event, **settings)
print(json.dumps([[t.number, t.proposal.source, t.params, t.value] for t in result.trials]))
"""
WARMSTART = json.dumps({"configurations": [{"why": "less", "ridge": 0.1}, {"why": "more", "ridge": 5.0}]})


def killed(project: Path, moment: str, times: int) -> subprocess.CompletedProcess[str]:
    """Run a study of six trials in a process of its own, which kills itself at a moment."""
    settings = {
        "objective": f"{sys.executable} train.py {{ridge}}", "space": SPACE, "metric": "mse", "n_trials": 6, "seed": 3,
        "study_name": "s", "editable": ["train.py#features"], "scorer": "score.py", "splits": SPLITS,
    }  # fmt: skip
    (project / "settings.json").write_text(json.dumps(settings))
    replies = [WARMSTART, several(LINEAR, BROKEN), edit(CUBIC), *["nothing"] * 9]
    (project / "replies.jsonl").write_text("".join(json.dumps(reply) + "\n" for reply in replies))
    (project / "tune.py").write_text(KILLED)
    words = [sys.executable, "tune.py", moment, str(times)]
    return subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The trials of the study that nobody kills."""
    return json.loads(killed(make_project(tmp_path_factory.mktemp("whole") / "project"), "", 0).stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "moment, times", [("asking", 1), ("answered", 2), ("Launched edit", 1), ("Finished edit", 2), ("Confirmed", 1)]
)
def test_a_study_with_edits_that_was_killed_goes_on_and_loses_nothing(
    project: Path, uninterrupted: object, moment: str, times: int
) -> None:
    assert killed(project, moment, times).returncode == -signal.SIGKILL
    again = killed(project, "", 0)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == uninterrupted
    storage = f"sqlite:///{project / 'runs' / 's' / 'study.db'}"
    assert verify(log_of(project), load_study(storage, "s"), "s").problems == ()
    assert replay(log_of(project)).problems == ()
    assert (project / "train.py").read_text() == TRAIN
    repository = str(project / "runs" / "s" / "code.git")
    fsck = subprocess.run(["git", "-C", repository, "fsck", "--strict"], capture_output=True, text=True, check=False)
    assert fsck.returncode == 0, fsck.stderr
    assert not list((project / "runs" / "s").glob("**/*.draft"))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"editable": ["train.py#nothing"]}, "nothing"),
        ({"editable": ["other.py"]}, "other.py"),
        ({"editable": ["score.py"]}, "'score.py' is the scorer"),
        ({"editable": ["hidden/search_y.npy"]}, "a file of a split"),
        ({"editable": ["train.py", "runs/s/**"]}, "own folder"),
        ({"editable": "train.py"}, "is not a list"),
        ({"editable": [], "edits": {"share": 0.5}}, "editable names nothing"),
        ({"edits": {"chare": 0.5}}, "edits.chare"),
        ({"edits": {"confirm": 2}}, "edits.confirm=2"),
    ],
)
def test_settings_of_edits_that_make_no_sense_are_refused(
    project: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        study(project, [], **settings)

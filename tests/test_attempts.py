from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import llmhpo
from llmhpo.attempts import Attempts
from llmhpo.errors import ConfigError
from llmhpo.events import Event, Finished, Opened
from llmhpo.executors.function import InProcessExecutor
from llmhpo.executors.leftover import TOKEN, end_leftovers, find_leftovers
from llmhpo.space import SearchSpace
from llmhpo.store import Launch, Store
from llmhpo.trial import Outcome, Proposal, Task, Trial

linux = pytest.mark.skipif(sys.platform != "linux", reason="who sent a SIGKILL is told from /proc/vmstat")
SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}}
SCRIPT = """
import json, os, sys
from pathlib import Path
kept = Path(os.environ["LLMHPO_CHECKPOINT_DIR"]) / "times"
times = int(kept.read_text()) + 1 if kept.exists() else 1
kept.write_text(str(times))
Path(os.environ["LLMHPO_RESULT"]).write_text(json.dumps({"value": times}))
"""


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs' / 's' / 'study.db'}"


def open_store(tmp_path: Path) -> Store:
    return Store(url(tmp_path), "s", SearchSpace.from_dict(SPACE), Task(), seed=3)


def cut_off(tmp_path: Path, times: int, *, cancelled: bool = False, outcome: Outcome | None = None) -> None:
    """A study of one trial, of which so many attempts were cut off; perhaps the last one had an outcome."""
    store = open_store(tmp_path)
    number = store.begin(Proposal({"x": 0.5}, "default")).number
    for i in range(times):
        attempt = store.attempt(number, Launch(f"{number:05d}.{i}", 3))
        if cancelled:
            store.cancel(number)
    if outcome is not None:
        path = tmp_path / "runs" / "s" / "outcomes" / "00000.json"
        path.parent.mkdir()
        path.write_text(
            json.dumps(
                {"token": attempt.token, "outcome": {"status": outcome.status, "value": outcome.value, "curve": []}}
            )
        )
    store.close()


def resume(tmp_path: Path, events: list[Event] | None = None, **kw: object) -> llmhpo.Result:
    told: list[Event] = [] if events is None else events
    return llmhpo.optimize(
        lambda p: 7.0,
        SPACE,
        llm=None,
        n_trials=1,
        study_name="s",
        cwd=tmp_path,
        on_event=told.append,
        **kw,  # type: ignore[arg-type]
    )


def test_a_result_that_had_come_and_was_not_committed_is_adopted(tmp_path: Path) -> None:
    cut_off(tmp_path, 1, outcome=Outcome("ok", 0.25))
    events: list[Event] = []
    result = resume(tmp_path, events)
    assert result.trials[0].value == 0.25
    assert [type(e) for e in events[:2]] == [Opened, Finished]
    assert not list((tmp_path / "runs" / "s" / "outcomes").iterdir())


def test_the_result_of_another_attempt_is_not_adopted(tmp_path: Path) -> None:
    cut_off(tmp_path, 1, outcome=Outcome("ok", 0.25))
    store = open_store(tmp_path)
    store.attempt(0, Launch("00000.9", 3))
    store.close()
    assert resume(tmp_path).trials[0].value == 7.0


def test_an_outcome_that_cannot_be_read_is_not_adopted(tmp_path: Path) -> None:
    cut_off(tmp_path, 1, outcome=Outcome("ok", 0.25))
    (tmp_path / "runs" / "s" / "outcomes" / "00000.json").write_text('{"token": 1')
    assert resume(tmp_path).trials[0].value == 7.0


@pytest.mark.parametrize(("cut", "retries", "value"), [(2, 2, 7.0), (3, 2, None), (1, 0, None), (1, 1, 7.0)])
def test_a_trial_that_was_cut_off_too_often_has_failed(
    tmp_path: Path, cut: int, retries: int, value: float | None
) -> None:
    cut_off(tmp_path, cut)
    trial = resume(tmp_path, retries=retries).trials[0]
    assert trial.number == 0
    assert trial.value == value
    assert trial.outcome is not None
    assert ("given up" in trial.outcome.message) == (value is None)


def test_attempts_that_we_ended_do_not_count(tmp_path: Path) -> None:
    cut_off(tmp_path, 9, cancelled=True)
    assert resume(tmp_path).trials[0].value == 7.0


def test_retries_are_a_whole_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="retries=-1"):
        resume(tmp_path, retries=-1)


def test_an_attempt_is_on_record_before_its_job_runs(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    seen: list[object] = []

    def objective(params: dict[str, object]) -> float:
        seen.append(store.attempts(0)[0])
        return 1.0

    executor = InProcessExecutor(objective)
    attempts = Attempts(store, executor, tmp_path / "trials", command="python train.py")
    attempts.launch(store.begin(Proposal({"x": 0.5}, "llm"))).result(100)
    executor.shutdown(kill=False)
    store.close()
    again = open_store(tmp_path)
    assert again.attempts(0) == tuple(seen)
    attempt = again.attempts(0)[0]
    assert (attempt.command, attempt.seed, attempt.revision) == ("python train.py", 3, again.space.revision)
    again.close()


def test_a_checkpoint_folder_survives_attempts(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    cut_off(tmp_path, 1)
    (tmp_path / "runs" / "s" / "checkpoints" / "00000").mkdir(parents=True)
    (tmp_path / "runs" / "s" / "checkpoints" / "00000" / "times").write_text("4")
    result = llmhpo.optimize(
        "python train.py", SPACE, llm=None, n_trials=2, study_name="s", cwd=tmp_path, progress=False
    )
    assert [t.value for t in result.trials] == [5.0, 1.0]


MORTAL = """
import json, os, signal, sys
from pathlib import Path
kept = Path(os.environ["LLMHPO_CHECKPOINT_DIR"]) / "times"
times = int(kept.read_text()) + 1 if kept.exists() else 1
kept.write_text(str(times))
if times <= int(sys.argv[1]):
    os.kill(os.getppid() if sys.argv[2] == "supervisor" else os.getpid(), signal.SIGKILL)
    signal.pause()
Path(os.environ["LLMHPO_RESULT"]).write_text(json.dumps({"value": times}))
"""


def run_mortal(tmp_path: Path, deaths: int, who: str, **kw: object) -> Trial:
    """A study of one trial whose first attempts end by a SIGKILL that the controller did not send."""
    (tmp_path / "train.py").write_text(MORTAL)
    command = ["python", "train.py", str(deaths), who]
    result = llmhpo.optimize(
        command, SPACE, llm=None, n_trials=1, study_name="s", cwd=tmp_path, progress=False, **kw  # type: ignore[arg-type]
    )  # fmt: skip
    assert [t.number for t in result.trials] == [0]
    return result.trials[0]


@linux
@pytest.mark.parametrize("who", ["supervisor", "job"])
def test_an_attempt_lost_while_the_controller_lives_is_made_again_from_its_checkpoint(
    tmp_path: Path, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_mortal(tmp_path, 2, who).value == 3.0
    assert "attempt 2 was lost" in caplog.text
    folders = sorted(p.name for p in (tmp_path / "runs" / "s" / "trials").iterdir())
    assert folders == ["00000", "00000.2", "00000.3"]


@linux
@pytest.mark.parametrize("who", ["supervisor", "job"])
def test_a_trial_whose_attempts_are_all_lost_has_failed_after_its_retries(tmp_path: Path, who: str) -> None:
    outcome = run_mortal(tmp_path, 9, who).outcome
    assert outcome is not None
    assert (outcome.status, outcome.lost) == ("failed", False)
    assert "given up after 3 attempts" in outcome.message
    assert (tmp_path / "runs" / "s" / "checkpoints" / "00000" / "times").read_text() == "3"


@linux
def test_without_retries_the_first_lost_attempt_fails_the_trial(tmp_path: Path) -> None:
    assert run_mortal(tmp_path, 1, "supervisor", retries=0).value is None


def test_what_an_attempt_left_running_is_ended_and_nobody_else(tmp_path: Path) -> None:
    token, other = "a" * 32, "b" * 32
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    mine = subprocess.Popen(sleep, env={TOKEN: token})
    strangers = [subprocess.Popen(sleep, env={TOKEN: other}), subprocess.Popen(sleep, env={})]
    deadline = time.monotonic() + 60
    while find_leftovers([token]) != {mine.pid}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        assert end_leftovers([token], grace_s=0.2) == set()
        assert mine.wait(60) == -9
        assert [s.poll() for s in strangers] == [None, None]
    finally:
        for process in (mine, *strangers):
            process.kill()
            process.wait()


def test_without_tokens_nobody_is_looked_for() -> None:
    assert find_leftovers([]) == set()

"""The command line as a real process, in and out of a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from llmhpo.commands.running import _finish
from llmhpo.config import read_study_file
from llmhpo.result import result_of
from llmhpo.trial import Context, Outcome, Proposal, Trial

SCRIPT = """
import json, os, sys, time
x, k = float(sys.argv[1]), sys.argv[2]
time.sleep(float(os.environ.get("NAP", "0")))
if x > 0.95:
    sys.exit("x is too large: \\x1b[31mdiverged\\x1b[0m")
json.dump({"loss": (x - 0.3) ** 2, "test_loss": (x - 0.31) ** 2}, open(os.environ["LLMHPO_RESULT"], "w"))
"""
STUDY = """
task = "a toy"
command = "python train.py {x} {k}"
metric = "loss"
direction = "minimize"
n_trials = 6
llm = "none"
seed = 1

[space.x]
type = "float"
low = 0.0
high = 1.0
default = 0.9

[space.k]
type = "categorical"
choices = ["a b", "c"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def llmhpo(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | env | {"COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", *words], cwd=folder, capture_output=True, text=True, timeout=90, env=environ
    )


def test_a_study_runs_and_tells_what_came_out(folder: Path) -> None:
    done = llmhpo(folder, "run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"default +0\.36", done.stdout)
    assert "best (trial" in done.stdout
    assert "test_loss" in done.stdout
    assert re.search(r"6 trials: .*1 default", done.stdout)
    assert "to go on: llmhpo run" in done.stdout
    assert "trial 0 started (default): x=0.9" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_command_goes_on(folder: Path) -> None:
    assert llmhpo(folder, "run", "--n-trials", "3").returncode == 0
    again = llmhpo(folder, "run")
    assert "3 done before" in again.stderr
    assert "trial 3 started" in again.stderr
    assert "trial 2 started" not in again.stderr


def test_show_lists_trials_and_one_trial(folder: Path) -> None:
    llmhpo(folder, "run")
    shown = llmhpo(folder, "show")
    assert len(re.findall(r"^ +\d+ +\w+", shown.stdout, re.MULTILINE)) == 6
    one = llmhpo(folder, "show", "--trial", "0")
    assert "source: default" in one.stdout
    assert "x = 0.9" in one.stdout


def test_show_says_what_each_sources_proposals_were_worth(folder: Path) -> None:
    xs = [0.5, 0.5, 0.4, 7.0]
    reply = {"configurations": [{"why": "so", "x": x, "k": "c"} for x in xs]}
    (folder / "replies.jsonl").write_text(json.dumps(reply) + "\n")
    assert llmhpo(folder, "run", "--llm", "scripted:replies.jsonl").returncode == 0
    rows = llmhpo(folder, "show", "--model").stdout.splitlines()
    (row,) = [line for line in rows if line.startswith("llm")]
    # Asked for 2, offered 4: three were valid and in bounds, one of them a repeat, none at an end, all of one digit.
    assert re.search(r" warmstart\.v3 +2 +75% +75% +33% +0% +100% ", row)
    assert any(line.startswith("default") for line in rows)


def test_export_writes_the_best_in_three_forms(folder: Path) -> None:
    llmhpo(folder, "run")
    best = json.loads(llmhpo(folder, "export").stdout)
    assert set(best) == {"x", "k"}
    assert tomllib.loads(llmhpo(folder, "export", "--format", "toml").stdout) == best
    words = shlex.split(llmhpo(folder, "export", "--format", "command").stdout)
    assert words[1:] == ["train.py", repr(best["x"]), best["k"]]
    llmhpo(folder, "export", "-o", "best.json")
    assert json.loads((folder / "best.json").read_text()) == best


@pytest.mark.parametrize(
    "words, message",
    [
        (["run", "nowhere.toml"], "nowhere.toml"),
        (["run", "--llm", "opnai:x"], "did you mean 'openai'"),
        (["run", "--llm", "openai:gpt-5"], "OPENAI_API_KEY"),
        (["run", "--n-trials", "0"], "n_trials"),
        (["run", "--n-trials", "x"], "n-trials"),
        (["run", "--storage", "sqlite:////proc/x/y.db"], "/proc/x"),
        (["show"], "llmhpo run"),
        (["export"], "llmhpo run"),
        (["model", "install", "gpt-7"], "smollm2"),
        (["dance"], "dance"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(folder: Path, words: list[str], message: str) -> None:
    done = llmhpo(folder, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("{x}", "{lr}", "{lr}"),
        ("python train.py", "no-such-program", "no-such-program"),
        ('choices = ["a b", "c"]', "choices = []", "choices"),
    ],
)
def test_a_study_that_cannot_run_starts_nothing(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "study.toml").write_text(STUDY.replace(old, new))
    done = llmhpo(folder, "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (folder / "runs").exists()


def test_another_space_under_the_same_name_is_refused(folder: Path) -> None:
    llmhpo(folder, "run")
    (folder / "study.toml").write_text(STUDY.replace("high = 1.0", "high = 2.0"))
    done = llmhpo(folder, "run")
    assert done.returncode == 2
    assert "changed x" in done.stderr


def test_trials_without_a_result_say_what_to_write(folder: Path) -> None:
    (folder / "train.py").write_text("print('loss 0.5')\n")
    done = llmhpo(folder, "run", "--n-trials", "30")
    assert done.returncode == 1
    assert "LLMHPO_RESULT" in done.stdout + done.stderr
    assert "metric_pattern" in done.stdout
    assert "no trial has ended well" in done.stdout
    assert "trial 4 invalid" in done.stderr
    assert "trial 5" not in done.stderr


def test_a_missing_package_ends_the_run_early_and_a_mended_one_goes_on(folder: Path) -> None:
    good = (folder / "train.py").read_text()
    (folder / "train.py").write_text("import no_such_package\n")
    done = llmhpo(folder, "run", "--n-trials", "30")
    assert done.returncode == 1
    assert "no_such_package" in done.stdout
    assert "all failed for the same reason" in done.stderr
    (folder / "train.py").write_text(good)
    assert llmhpo(folder, "run", "--n-trials", "8").returncode == 0


def test_a_parameter_that_the_command_does_not_pass_and_a_word_to_fill_in_are_noted(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("{x} {k}", "{x} <data>"))
    said = llmhpo(folder, "run", "--n-trials", "2").stderr
    assert "does not pass k" in said
    assert "the command holds <data>: what llmhpo init left for you to fill in" in said


def test_the_command_that_goes_on_names_the_study_that_was_run_and_idle_gpus_are_told(folder: Path) -> None:
    (folder / "study.toml").write_text(f'gpus = ["0", "1"]\n{STUDY}')
    done = llmhpo(folder, "run", "--n-trials", "2", "--study-name", "an other")
    for words in ("run", "report", "export"):
        assert f"llmhpo {words} study.toml --study-name 'an other'" in done.stdout
    assert "--n-trials 4" in done.stdout
    assert "n_workers = 1 uses 1 of 2 gpus" in done.stderr


def test_a_study_whose_folder_was_renamed_is_told_how_to_go_on(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(SCRIPT)
        (tmp_path / name / "study.toml").write_text(STUDY)
    assert "this begins" not in llmhpo(tmp_path / "before", "run", "--n-trials", "2").stderr
    (tmp_path / "before" / "runs").rename(tmp_path / "after" / "runs")
    (tmp_path / "after" / "runs" / "after").mkdir()  # as a run leaves it that ended before it kept anything
    (tmp_path / "after" / "study.toml").write_text(f'cwd = "../before"\n{STUDY}')
    assert "runs holds before: where" in llmhpo(tmp_path / "after", "run", "--n-trials", "1").stderr
    (tmp_path / "after" / "study.toml").write_text(STUDY)
    done = llmhpo(tmp_path / "after", "run", "--n-trials", "3", "--study-name", "before")
    assert "study before: 3 trials (2 done before)" in done.stderr
    assert "this begins" not in done.stderr


def test_the_password_of_a_storage_is_not_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_study_file(folder / "study.toml", {"storage": "postgresql://me:hunter2@db/studies"})
    best = Trial(0, Proposal({"x": 0.5, "k": "c"}, "random"), Outcome("ok", 0.1))
    _finish(
        config,
        result_of(Context(config.task, config.space, (best,)), "toy", config.storage),
        "study.toml --storage 'postgresql://me:***@db/studies'",
    )
    printed = capsys.readouterr().out
    assert "postgresql://me:***@db/studies" in printed
    assert "hunter2" not in printed
    assert printed.count("(with its password)") == 3


def test_a_signal_ends_the_run_and_the_next_goes_on(folder: Path) -> None:
    nap = 'float(os.environ.get("NAP", "0"))'
    (folder / "train.py").write_text(SCRIPT.replace(nap, f'{nap} * (os.environ["LLMHPO_TRIAL"] == "3")'))
    environ = os.environ | {"NAP": "60"}
    process = subprocess.Popen(
        [sys.executable, "-m", "llmhpo", "run"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial 2 ok"):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "preempted" in err
    assert "run the same command to go on" in err
    again = llmhpo(folder, "run")
    assert again.returncode == 0
    assert "3 done before" in again.stderr


def test_a_terminal_shows_a_live_table(folder: Path) -> None:
    master, slave = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30", "NAP": "0.2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "llmhpo", "run"], cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environ
    )
    os.close(slave)
    screen = b""
    deadline = time.monotonic() + 80
    while time.monotonic() < deadline:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        screen += chunk
    os.close(master)
    assert process.wait(timeout=30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode())
    assert "6/6 trials" in text
    assert "left" in text
    assert "running" in text
    assert "from default" in text


def test_a_noisy_study_says_what_it_expects_and_confirms_it(folder: Path) -> None:
    script = SCRIPT.replace("(x - 0.3) ** 2,", "(x - 0.3) ** 2 + 1e-3 * (int(os.environ['LLMHPO_SEED']) % 97),")
    (folder / "train.py").write_text(script)
    (folder / "study.toml").write_text(STUDY.replace("seed = 1", "seed = 1\nnoisy = true"))
    assert llmhpo(folder, "run").returncode == 0
    shown = llmhpo(folder, "show").stdout
    assert re.search(r"expected loss, [\d.]+ \+- [\d.]+; 1 run of it gave", shown)
    confirmed = llmhpo(folder, "confirm", "-k", "3")
    assert confirmed.returncode == 0, confirmed.stderr
    assert "does not pass {seed}" in confirmed.stderr
    assert "confirming 6/6" in confirmed.stderr
    assert "the best is better than the default" in confirmed.stdout
    again = llmhpo(folder, "confirm", "-k", "3")
    assert "confirming" not in again.stderr
    assert again.stdout == confirmed.stdout
    assert llmhpo(folder, "show").stdout == shown

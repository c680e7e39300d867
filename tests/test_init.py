"""`llmhpo init` as it is started: it asks or fails, writes one file, tries it, and never guesses."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import llmhpo
from llmhpo.config import read_study_file

TRAIN = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
lr = parser.parse_args().lr
open(os.environ["LLMHPO_RESULT"], "w").write(json.dumps({"loss": lr}))
"""
SAID = ("--metric", "loss", "--direction", "minimize", "--check-s", "60")


def run_init(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmhpo", "init", *(() if "--llm" in words else ("--llm", "none")), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def test_init_writes_a_study_of_the_script_that_lies_there_and_tries_it(here: Path) -> None:
    run = run_init("words", *SAID, cwd=here)
    assert run.returncode == 0, run.stderr
    assert "checked: it ends well with the defaults: loss = 0.1" in run.stdout
    assert read_study_file(here / "study.toml").space.names == ("lr",)


@pytest.mark.parametrize(
    "given, message",
    [
        (("--metric", "loss"), "--direction is missing"),
        (("--direction", "minimize", "--check-s", "60"), "The job shows loss (0.1)"),
        (("--metric", "loss", "--direction", "upwards"), "neither minimize nor maximize"),
    ],
)
def test_init_never_guesses(here: Path, given: tuple[str, ...], message: str) -> None:
    run = run_init(*given, cwd=here)
    assert run.returncode != 0
    assert message in run.stderr.replace("\n", " ")
    assert not (here / "study.toml").exists()


@pytest.mark.parametrize(
    "script, given, told",
    [
        (TRAIN, (), ["--metric and --direction are missing", "give --metric NAME --direction minimize (or maximize)", "The job shows loss (0.1)"]),
        ("", (), ["--script, --metric and --direction are missing", "give --script train.py --metric NAME", "--help-text"]),
        ("", ("maximize accuracy",), ["--script is missing"]),
    ],
)  # fmt: skip
def test_without_a_terminal_all_that_is_missing_is_named_at_once(
    tmp_path: Path, script: str, given: tuple[str, ...], told: list[str]
) -> None:
    if script:
        (tmp_path / "train.py").write_text(script)
    run = run_init(*given, "--check-s", "60", cwd=tmp_path)
    assert run.returncode != 0
    assert [t for t in told if t not in " ".join(run.stderr.split())] == []


def test_a_script_with_nothing_to_tune_is_told_which_config_files_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("from project import main\nmain()\n")
    (tmp_path / "default.yaml").write_text("lr: 0.1\n")
    run = run_init(*SAID, cwd=tmp_path)
    assert run.returncode != 0
    assert "--config default.yaml" in run.stderr


def test_a_metric_that_is_printed_under_a_longer_name_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("lr = 0.1\nprint('final accuracy', lr * 2)\n")
    run = run_init(*("--script", "t.py", "--metric", "accuracy", "--direction", "max", "--check-s", "60"), cwd=tmp_path)
    assert "checked: it ends well with the defaults: accuracy = 0.2" in run.stdout, run.stderr


def test_a_result_that_no_pattern_finds_is_told_with_the_last_line_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("lr = 0.1\nprint('accuracy over folds:', lr)\n")
    run = run_init("--script", "t.py", "--metric", "accuracy", "--direction", "max", "--check-s", "60", cwd=tmp_path)
    assert (
        "metric_pattern can read it from what it prints, which ends in 'accuracy over folds: 0.1'"
        in run.stderr.replace("\n", " ")
    )


def test_init_never_writes_over_a_file(here: Path) -> None:
    (here / "study.toml").write_text("mine")
    run = run_init(*SAID, cwd=here)
    assert run.returncode != 0
    assert "exists already" in run.stderr
    assert (here / "study.toml").read_text() == "mine"


def test_init_finds_the_metric_in_the_output(tmp_path: Path) -> None:
    code = (
        "lr = 0.1\nfor step in range(3):\n    loss = lr / (step + 1)\n    print(f'step {step}: val loss {loss:.3f}')\n"
    )
    (tmp_path / "t.py").write_text(code)
    words = ("--script", "t.py", "--metric", "val_loss", "--direction", "minimize", "--check-s", "60")
    run = run_init(*words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "val_loss = 0.033" in run.stdout
    assert read_study_file(tmp_path / "study.toml").metric_pattern is not None


def test_init_needs_no_tables_for_what_the_script_draws(tmp_path: Path) -> None:
    code = "import llmhpo\nfrom llmhpo import job\njob.result({'loss': llmhpo.uniform('x', 0, 1, default=0.25)})\n"
    (tmp_path / "t.py").write_text(code)
    run = run_init("words", "--script", "t.py", *SAID, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "checked: it ends well with the defaults: loss = 0.25" in run.stdout
    text = (tmp_path / "study.toml").read_text()
    assert "# t.py:3: x: a float from 0 to 1" in text
    assert "[space" not in text
    assert read_study_file(tmp_path / "study.toml").space.names == ("x",)


def test_init_runs_no_script_where_no_first_run_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import llmhpo\nopen('ran', 'w')\nllmhpo.uniform('x', 0, 1)\n")
    run = run_init("words", "--script", "t.py", *SAID[:4], "--check-s", "0", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "ran").exists()


def test_a_program_whose_name_only_a_help_text_gives_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "evil").chmod(0o755)
    (tmp_path / "help.txt").write_text(
        "usage: ./evil [options]\n\noptions:\n  --lr FLOAT  learning rate (default: 0.1)\n"
    )
    run = run_init("--help-text", "help.txt", *SAID, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "not run: its name stands in a help text alone" in run.stderr.replace("\n", " ")
    assert not (tmp_path / "ran").exists()
    run = run_init("--help-text", "help.txt", "--command", "./evil", *SAID, "-o", "b.toml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "ran").exists()


def test_a_model_sets_ranges_and_what_it_invents_is_said(here: Path) -> None:
    why = {"line": None, "choices": None, "why": "narrow"}
    reply = {"plans": [{"why": "one knob", "parameters": [
        {"name": "lr", "low": 0.05, "high": 0.2, "log": True} | why, {"name": "warp", "low": 1, "high": 2, "log": False} | why
    ]}]}  # fmt: skip
    (here / "replies.jsonl").write_text(json.dumps(reply) + "\n")
    run = run_init("words", *SAID[:4], "--check-s", "0", "--llm", "scripted:replies.jsonl", cwd=here)
    assert run.returncode == 0, run.stderr
    assert "warp: is no setting that was found; dropped" in run.stderr
    assert read_study_file(here / "study.toml").space["lr"].describe_range() == "a float from 0.05 to 0.2 (log scale)"
    assert "low = 0.05  # model scripted:replies.jsonl: narrow" in (here / "study.toml").read_text()


def test_an_earlier_study_decides_among_the_plans_of_a_model(here: Path) -> None:
    good = 0.5
    (here / "old.toml").write_text(
        "command = 'python train.py --lr {lr}'\nmetric = 'loss'\ndirection = 'minimize'\nstudy_name = 'old'\nstorage = 'sqlite:///old.db'\n"
        "[space]\nlr = { type = 'float', low = 1e-4, high = 1.0, log = true }\n"
    )
    space = read_study_file(here / "old.toml").space
    with llmhpo.Study(space, metric="loss", llm="none", storage=f"sqlite:///{here}/old.db", study_name="old") as study:
        for _ in range(12):
            (trial,) = study.ask()
            study.tell(trial, abs(math.log(float(trial.params["lr"]) / good)))  # type: ignore[arg-type]
    parameter = {"name": "lr", "log": True, "line": None, "choices": None, "why": ""}
    plans = [
        {"why": side, "parameters": [parameter | {"low": low, "high": high}]}
        for side, low, high in (("small", 1e-4, 0.1), ("large", 0.1, 1.0))
    ]
    (here / "replies.jsonl").write_text(json.dumps({"plans": plans}) + "\n")
    run = run_init(
        "words", *SAID[:4], "--check-s", "0", "--llm", "scripted:replies.jsonl", "--history", "old.toml", cwd=here
    )
    assert run.returncode == 0, run.stderr
    text = (here / "study.toml").read_text()
    assert "fits the earlier trials best: large" in text
    assert (read_study_file(here / "study.toml").space["lr"].check(good)) is None


def test_a_file_elsewhere_that_a_script_names_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"dropout": 0.123}')
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "t.py").write_text("lr = 0.1\nprint(lr, open('../secret.json').read())\n")
    run = run_init("--script", "job/t.py", *SAID[:4], "--check-s", "0", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "0.123" not in (tmp_path / "study.toml").read_text()


def in_terminal(cwd: Path, words: tuple[str, ...], answers: dict[str, str]) -> str:
    """What init shows in a terminal, where each text of `answers`, in their order, is answered as it appears."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.chdir(cwd)
        os.execv(sys.executable, [sys.executable, "-m", "llmhpo", "init", "--llm", "none", *words])
    shown, waiting = "", list(answers.items())
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := os.read(terminal, 4096):
            shown += data.decode(errors="replace")
            if waiting and waiting[0][0] in shown.rpartition("\n")[2]:
                os.write(terminal, f"{waiting.pop(0)[1]}\r".encode())
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of pty.fork
def test_in_a_terminal_all_is_asked_and_a_mistyped_answer_once_more(here: Path) -> None:
    (here / "study.toml").write_text("mine")
    answers = {
        "Write over it?": "y",
        "is the result of a run?": "loss",
        "minimized or maximized?": "sideways",
        "loss to be minimized": "min",
    }
    shown = in_terminal(here, ("--check-s", "0"), answers)
    assert "study.toml: 1 parameter, each" in shown
    assert read_study_file(here / "study.toml").task.direction == "minimize"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_a_terminal_a_no_leaves_the_file_as_it_is(here: Path) -> None:
    (here / "study.toml").write_text("mine")
    assert "left as it was" in in_terminal(here, ("--check-s", "0"), {"Write over it?": "n"})
    assert (here / "study.toml").read_text() == "mine"


CUSTOMERS = "id,age,plan,monthly,churn\n" + "".join(
    f"c{n},{20 + n % 50},{('basic', 'plus')[n % 2]},{n % 7}.5,{('no', 'yes')[n % 3 == 0]}\n" for n in range(60)
)


def test_a_table_without_a_script_becomes_a_script_and_a_study_of_it(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    words = ("predict the column churn of customers.csv", "--metric", "cv_log_loss", "--direction", "minimize")
    done = run_init(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "--table customers.csv writes one" in done.stderr
    done = run_init(*words, "--table", "customers.csv", "--check-s", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predicts 'churn' (2 classes) from the 4 other columns of customers.csv (60 rows)" in done.stdout
    assert "it ends well with the defaults: cv_log_loss = " in done.stdout
    assert len(read_study_file(tmp_path / "study.toml").space) == 6
    more = (*words, "--table", "customers.csv", "--check-s", "0", "--output", "other.toml")
    (tmp_path / "train.py").write_text(f"{(tmp_path / 'train.py').read_text()}# mine\n")
    assert "train.py exists already" in run_init(*more, cwd=tmp_path).stderr


def test_a_script_that_init_wrote_before_it_missed_an_option_is_taken_once_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    words = ("predict the column churn of customers.csv", "--table", "customers.csv", "--check-s", "0")
    assert "--metric and --direction are missing" in run_init(*words, cwd=tmp_path).stderr
    done = run_init(*words, "--metric", "cv_log_loss", "--direction", "minimize", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_folder_with_other_scripts_is_told_their_names(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(TRAIN)
    assert "give --script with the one that trains: fit.py" in run_init("x", cwd=tmp_path).stderr


@pytest.mark.parametrize("given", [("--n-trials", "0"), ("--timeout-s", "-3"), ("--max-usd", "0"), ("--check-s", "-1")])
def test_a_number_that_makes_no_sense_is_told_before_anything_is_written_or_run(
    here: Path, given: tuple[str, str]
) -> None:
    run = run_init(*SAID[:4], *given, cwd=here)
    assert f"{given[0]} {given[1]}: give" in run.stderr.replace(".0:", ":")
    assert not (here / "study.toml").exists()


def test_a_package_that_is_missing_in_the_first_run_is_told_with_the_python_that_lacks_it(here: Path) -> None:
    (here / "train.py").write_text(f"import no_such_package{TRAIN}")
    run = run_init(*SAID, cwd=here)
    assert f"is {sys.executable}: install no_such_package there" in run.stderr

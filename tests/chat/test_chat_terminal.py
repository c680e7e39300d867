"""The chat in a real pseudo-terminal: every command, and what goes wrong on a terminal."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("prompt_toolkit")
pytest.importorskip("plotext")
pytest.importorskip("pyte")

from loopback import silence
from terminal import TRAIN, Terminal, write_study

from llmhpo.chat.base import COMMANDS
from llmhpo.config import read_study_file
from llmhpo.operations import StudyFile
from llmhpo.session import run


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One session about a study that has run."""
    folder = write_study(tmp_path_factory.mktemp("chat"))
    run(read_study_file(folder / "study.toml"), lambda _: None)
    terminal = Terminal(folder)
    terminal.wait("best loss")  # of the status line
    yield terminal
    terminal.leave()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


SAID = [
    ("/help", "/undo     take back the last note"),
    ("/help narrow", "search only a part of a range"),
    ("/task", "find the bottom of a bowl"),
    ("/space", "x: a float from 0 to 1, default 0.99"),
    ("/status", "model: 0 requests, 0 tokens"),
    ("/trial 0", "message: exit code 1: x is too large"),
    ("/why 1", "a point that fills the space"),
    ("/best", "from random: loss"),
    ("/narrow x 0.2 0.4", "x: only a float from 0.2 to 0.4 (in the space: a float from 0 to 1)"),
    ("/widen x", "x: a float from 0 to 1"),
    ("/widen x 0 2", "x: a float from 0 to 2"),
    ("/undo", "undone: /widen x 0 2"),
    ("/freeze k b", "k: only one of 'b'"),
    ("/add wd float 1e-6 0.1 log default=1e-4 flag=--wd", "count as run with its default"),
    ("/note stop trying large x", "noted; there is no model to read it"),
    ("/budget trials 4", "trials             4   used 4"),
    ("/plot", "loss over trials"),
    ("/plot x bowl.png", "wrote bowl.png"),
    ("/report", "report.html"),
    ("/export toml", '"k" = "b"'),
    ("/diff 1", "edits no code; name what may change with `editable`"),
    ("/run 4", "all 4 trials have been run; /run N with a larger N goes on"),
    ("/pause", "is not being run; there is nothing to pause"),
    ("/stop", "nothing is under way"),
]
WRONG = [
    ("/narrow x 4 5", "no value from 4 to 5 is in its range; it takes a float from 0 to 1"),
    ("/narrow y 4 5", "'y' is not in the space; it has x, k"),
    ("/narrow x a b", "'a' is not a finite number; write one such as 1e-4"),
    ("/freeze k c", "k = 'c' is not one of its choices; it takes one of 'a', 'b'"),
    ("/add wd float 0 1", "/add wd float 0 1: use it as /add NAME"),
    ("/trial 99", "trial 99: the study has trials 0 to 3"),
    ("/trial x", "/trial x: use it as /trial N"),
    ("/budget usd lots", "'lots' is not a finite number"),
    ("/plot z", "/plot z: draw history or a parameter: x, k"),
    ("/export yaml", "use it as /export [json|toml|command] [FILE]"),
    ("/export json /nowhere/x.json", "'/nowhere/x.json' cannot be written: No such file or directory; name another"),
    ("/task train.py loss minimize words", "study.toml exists already; edit it"),
    ("/statsu", "'/statsu' is no command; did you mean /status?"),
    ('/narrow "x', "No closing quotation; close the quotation mark"),
    ("hello", "there is no model to talk to; all can be done by command"),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[w[0][:20] for w in WRONG])
def test_a_mistake_is_told_with_its_value_and_its_remedy(screen: Terminal, line: str, words: str) -> None:
    screen.enter(line)
    screen.wait(words)


@pytest.mark.parametrize(("line", "words"), SAID, ids=[s[0][:20] for s in SAID])
def test_every_command_answers_without_a_model(screen: Terminal, line: str, words: str) -> None:
    screen.enter(line)
    screen.wait(words)


def test_no_command_is_left_untested() -> None:
    elsewhere = {"quit", "resume"}  # at the end of every session; after a pause
    assert {line[1:].split()[0] for line, _ in SAID} | elsewhere == set(COMMANDS)


def test_the_terminal_is_sent_no_control_character_of_a_job(screen: Terminal) -> None:
    screen.enter("/trial 0")
    screen.wait("log: x is too large")
    screen.wait("x = 0.99")
    assert b"[31m" not in screen.raw


def test_the_first_answer_takes_the_program_less_than_a_second(folder: Path) -> None:
    terminal = Terminal(folder)
    terminal.enter("/help")
    terminal.wait("/undo     take back")
    seconds = terminal.cpu_s
    terminal.kill()
    assert seconds < 1.0


def test_nothing_heavy_is_imported_before_the_first_answer() -> None:
    code = "import sys, llmhpo.chat.start, llmhpo.chat.screen, llmhpo.chat.helping; print(sorted(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("optuna", "numpy", "sqlalchemy", "scipy", "torch", "openai") if f"'{name}'" in seen]


def test_typing_goes_on_while_the_study_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("psycopg2")
    with silence() as (url, received):
        place = url.removeprefix("http://").removesuffix("/v1")
        folder = write_study(tmp_path, storage=f'"postgresql+psycopg2://me@{place}/db?sslmode=disable"')
        terminal = Terminal(folder)
        while not received:  # the status line's thread waits for an answer that never comes
            time.sleep(0.05)
        terminal.enter("/help")
        terminal.wait("/undo     take back")  # long before the study answers, which it never does
        terminal.kill()


def test_ctrl_c_clears_the_line_and_the_session_goes_on(screen: Terminal) -> None:
    screen.type("/run 1000")
    screen.process.sendintr()
    screen.wait("/quit leaves; a run goes on without you")
    screen.enter("/best")
    screen.wait("from random: loss")


SLOW_TO_WRITE = """
import time
from llmhpo.chat.screen import Screen

class Slow(Screen):
    def _write(self):
        super()._write()
        time.sleep(1)

screen = Slow()
screen.run(lambda line: screen.leave() if line == "/quit" else screen.say("a line for you"), lambda: False)
"""


def test_what_is_typed_while_lines_are_written_does_not_shift_the_line_that_is_typed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, args=["-c", SLOW_TO_WRITE])
    terminal.see(">")
    terminal.enter("go")
    terminal.wait("a line for you")
    terminal.type("yes")
    terminal.see("> yes")
    terminal.type("\x15")
    terminal.leave()


def test_a_resized_terminal_is_drawn_anew(screen: Terminal) -> None:
    screen.process.setwinsize(12, 50)
    screen.enter("/best")
    screen.wait("from random: loss")
    screen.process.setwinsize(30, 100)
    screen.enter("/help undo")
    screen.wait("take back the last note")


def test_ten_thousand_pasted_lines_are_one_message_and_run_nothing(folder: Path) -> None:
    terminal = Terminal(folder)
    terminal.wait("0/4 trials")
    before = terminal.cpu_s
    terminal.type("\x1b[200~" + "/run 1000\r" * 10_000 + "\x1b[201~")
    terminal.wait("[paste 1: 10001 lines]")
    terminal.type("\x7f" * 30)
    terminal.enter("/help undo")
    terminal.wait("take back the last note")
    assert terminal.cpu_s - before < 2.0
    assert not (folder / "runs").exists()
    terminal.leave()


def test_a_message_of_ten_thousand_lines_is_taken_for_words(folder: Path) -> None:
    terminal = Terminal(folder)
    terminal.wait("0/4 trials")
    terminal.type("look: \x1b[200~" + "some words\r" * 10_000 + "\x1b[201~")
    terminal.wait("lines]")
    terminal.enter("")
    terminal.wait("there is no model to talk to")
    terminal.leave()


def test_bytes_that_are_no_text_end_neither_the_session_nor_its_history(folder: Path) -> None:
    terminal = Terminal(folder)
    terminal.wait("0/4 trials")
    terminal.type(b"/note caf\xe9 \xff\xfe \xed\xa0\x80 ok\r")
    terminal.wait("noted")
    terminal.leave()
    terminal = Terminal(folder)
    terminal.wait("0/4 trials")
    terminal.enter("/note")
    assert "ok" in terminal.wait("ok")
    terminal.leave()
    (folder / ".llmhpo_history").read_text(encoding="utf-8")


def test_a_study_outlives_its_terminal_and_the_next_chat_finds_it_running(folder: Path) -> None:
    terminal = Terminal(folder, NAP="60")
    terminal.enter("/run 6")
    terminal.wait("running, pid")
    terminal.kill()
    terminal = Terminal(folder)
    terminal.wait("1 running (pid")
    terminal.enter("/run")
    terminal.wait("is being run already, by pid")
    terminal.enter("/pause now")
    terminal.wait("ends its running trials")
    terminal.wait("not running")
    assert [t.outcome for t in StudyFile.read(folder / "study.toml").context().trials] == [None]
    terminal.leave()


def test_a_run_takes_in_changes_pauses_after_its_trial_and_goes_on(folder: Path) -> None:
    nap, held = (
        'float(os.environ.get("NAP", "0"))',
        'while os.environ["LLMHPO_TRIAL"] != "0" and not os.path.exists("go"): ',
    )
    (folder / "train.py").write_text(TRAIN.replace(f"time.sleep({nap})", f"{held}time.sleep(0.02)"))
    terminal = Terminal(folder)
    terminal.enter("/run 6")
    terminal.wait("running, pid")
    terminal.enter("/freeze k b")
    terminal.wait("k: only one of 'b'")
    terminal.enter("/add wd float 0 1 default=0.5")
    terminal.wait("note: the command does not pass wd")
    terminal.enter("/pause")
    terminal.wait("begins no more trials")
    (folder / "go").touch()
    terminal.wait("not running")
    ended = StudyFile.read(folder / "study.toml").context().trials
    assert 0 < len(ended) < 6
    assert all(t.outcome is not None for t in ended)
    terminal.enter("/resume")
    terminal.wait("running, pid")
    terminal.wait("6/6 trials")
    later = StudyFile.read(folder / "study.toml").context().trials[len(ended) :]
    assert {t.params["k"] for t in later} == {"b"}
    assert all("wd" in t.params for t in later)
    terminal.leave()


def test_a_study_is_drafted_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import argparse, json, os\np = argparse.ArgumentParser()\np.add_argument('--lr', type=float, default=0.1)\n"
        "a = p.parse_args()\njson.dump({'loss': a.lr}, open(os.environ['LLMHPO_RESULT'], 'w'))\n"
    )
    terminal = Terminal(tmp_path)
    terminal.wait("/task SCRIPT METRIC")
    terminal.enter("/task train.py loss minimize a line")
    terminal.wait("wrote study.toml")
    terminal.enter("/space")
    terminal.wait("lr: a float from")
    assert "0/20 trials" in terminal.wait("0/20 trials")
    terminal.leave()

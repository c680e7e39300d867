"""What commands change, and how it is taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyte")

from terminal import write_study

from llmhpo.chat.base import Session, parse
from llmhpo.chat.plotting import _in_terminal, picture_of
from llmhpo.chat.talk import Talk
from llmhpo.errors import ConfigError, LLMHPOError
from llmhpo.space import SearchSpace
from llmhpo.steering import Limit, Steering
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(write_study(tmp_path) / "study.toml", lambda _: None, lambda _: False)


def do(session: Session, *lines: str) -> Steering:
    """Do some commands; what is asked of the study then."""
    for line in lines:
        command, words = parse(line)
        command(session, words)
    return session.study().context().steering


def test_a_note_a_limit_and_a_budget_are_taken_back_one_by_one(session: Session) -> None:
    full = do(session, "/note small ones", "/narrow x 0 0.5", "/budget trials 9")
    assert (len(full.notes), full.limits, full.budget.n_trials) == (1, {"x": Limit(0.0, 0.5)}, 9)
    assert do(session, "/undo").budget.n_trials is None
    assert do(session, "/undo").limits == {}
    assert do(session, "/undo").notes == ()
    with pytest.raises(ConfigError, match="nothing to undo"):
        do(session, "/undo")


def test_a_parameter_that_was_added_is_held_at_its_default_when_that_is_taken_back(session: Session) -> None:
    steering = do(session, "/add wd float 0 1 default=0.25 flag=--wd", "/undo")
    assert steering.limits == {"wd": Limit(values=(0.25,))}
    assert steering.arguments == "--wd {wd}"


def test_a_range_that_was_widened_is_narrowed_again(session: Session) -> None:
    assert do(session, "/widen x 0 5", "/undo").limits == {"x": Limit(0.0, 1.0)}
    assert do(session, "/widen k c d", "/undo").limits["k"] == Limit(values=("a", "b"))


def test_widening_within_the_range_lifts_the_limit_as_far_as_asked(session: Session) -> None:
    assert do(session, "/narrow x 0.4 0.5", "/widen x 0.3 0.6").limits == {"x": Limit(0.3, 0.6)}
    assert do(session, "/widen x").limits == {}


def test_the_task_is_said_in_other_words_and_undo_goes_back_to_those_of_the_file(session: Session) -> None:
    assert do(session, "/task it's a bowl's rim").task == "it's a bowl's rim"
    assert session.study().context().task.text == "it's a bowl's rim"
    do(session, "/undo")
    assert session.study().context().task.text == "find the bottom of a bowl"


@pytest.mark.parametrize(
    ("line", "words"),
    [("/task train.py loss minimize it's small", ["train.py", "loss", "minimize", "it's small"]),
     ("/task 'my train.py' loss maximize", ["my train.py", "loss", "maximize"]),
     ("/task we train a small net", ["we train a small net"]), ("/task", [])],
)  # fmt: skip
def test_a_task_is_drafted_from_a_script_or_said_in_words_as_they_stand(line: str, words: list[str]) -> None:
    assert parse(line)[1] == words


def test_freezing_again_moves_the_value(session: Session) -> None:
    assert do(session, "/freeze x 0.2", "/freeze x 0.3").limits == {"x": Limit(values=(0.3,))}


def test_a_frozen_value_is_told_in_all_its_digits_and_no_more(session: Session) -> None:
    do(session, "/freeze x 0.1")
    command, words = parse("/undo")
    assert command(session, words) == "undone: /freeze x 0.1"


def test_freezing_without_a_value_needs_a_best_trial(session: Session) -> None:
    with pytest.raises(ConfigError, match="no best trial has a value of it yet; name one"):
        do(session, "/freeze x")


@pytest.mark.parametrize(
    "line",
    ["/add x float 0 1 default=0", "/add w float 1 0 default=0.5", "/add w float 0 1 default=2", "/add w list a b default=a",
     "/widen x 3 2", "/narrow k z", "/note " + "word " * 200, "/budget trials -3", "/budget trials 1.5"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(session: Session, line: str) -> None:
    with pytest.raises(LLMHPOError):
        do(session, line)
    assert session.study().context().steering == Steering()


@pytest.mark.parametrize(("key", "words"), [("", "there is no model to read it"), ("a-key", "asked anew")])
def test_a_note_says_whether_there_is_a_model_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, words: str
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("LLMHPO_CACHE", str(tmp_path / "no-models"))
    session = Session(write_study(tmp_path, llm='"auto"') / "study.toml", lambda _: None, lambda _: False)
    command, given = parse("/note small models only")
    assert words in command(session, given)


def drawn(count: int) -> str:
    """The history of some trials, as the terminal shows it."""
    space = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    trials = tuple(Trial(n, Proposal({"x": 0.5}, "random"), Outcome("ok", 0.25)) for n in range(count))
    return _in_terminal(picture_of(Context(Task(metric="loss"), space, trials), "history"))


def test_a_single_trial_is_told_and_not_drawn() -> None:
    with pytest.raises(ConfigError, match=r"one trial has ended well so far, with loss 0\.25"):
        drawn(1)


@pytest.mark.parametrize(("count", "marks"), [(3, ["0", "1", "2"]), (41, ["0", "5", "10", "15", "20", "25", "30", "35", "40"])])  # fmt: skip
def test_the_axis_of_trials_has_whole_numbers(count: int, marks: list[str]) -> None:
    pytest.importorskip("plotext")
    assert drawn(count).splitlines()[-2].split() == marks


@pytest.mark.parametrize(("llm", "words"), [("smollm2", "too small to talk"), ("none", "there is no model to talk to")])
def test_words_that_no_model_can_answer_are_told_what_to_do(tmp_path: Path, llm: str, words: str) -> None:
    session = Session(write_study(tmp_path, llm=f'"{llm}"') / "study.toml", lambda _: None, lambda _: False)
    with pytest.raises(ConfigError, match=rf"{words}.*/help lists them.*openai:MODEL"):
        Talk(session).answer("what matters most?")

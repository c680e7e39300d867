import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate, to_argument
from llmhpo.space import SearchSpace

HERE = Path(__file__).parent
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-6, "high": 1.0},
        "layers": {"type": "int", "low": 1, "high": 8},
        "opt": {"type": "categorical", "choices": ["sgd", "adam"]},
        "nesterov": {"type": "categorical", "choices": [True, False], "when": {"opt": "sgd"}},
        "decay": {"type": "categorical", "choices": [None, "cosine"]},
    }
)
PARAMS = {"lr": 1e-5, "layers": 3, "opt": "adam", "decay": None}


def render(command, params=PARAMS, space=SPACE):
    template = CommandTemplate(command, space, HERE)
    files = {name: Path("/job") / name for name in ("params_file", "result_file", "report_file")}
    return template.render(params, trial=7, seed=11, **files)[1:]


def test_each_placeholder_becomes_its_value():
    assert render("python t.py --lr={lr} --layers {layers} {opt}") == ["t.py", "--lr=1e-05", "--layers", "3", "adam"]


def test_reserved_placeholders_name_files_trial_seed_and_interpreter():
    words = render("{python} {python} {params_file} {result_file} {report_file} {trial} s{seed}")
    assert words == [sys.executable, "/job/params_file", "/job/result_file", "/job/report_file", "7", "s11"]


def test_none_and_booleans_are_lower_case_words():
    assert render("true {decay} {nesterov}", PARAMS | {"opt": "sgd", "nesterov": True}) == ["none", "true"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back_exactly(value):
    assert float(to_argument(value)) == value


def test_an_inactive_parameter_takes_its_flag_along():
    assert render("true --nesterov {nesterov} --lr {lr}") == ["--lr", "1e-05"]


def test_an_inactive_parameter_within_an_argument_takes_only_that_argument_along():
    assert render("true -v opt.nesterov={nesterov} --lr {lr}") == ["-v", "--lr", "1e-05"]


SGD = PARAMS | {"opt": "sgd"}


@pytest.mark.parametrize(
    "word, value, expected",
    [
        ("{nesterov?--nesterov}", True, ["--nesterov"]), ("{nesterov?--nesterov}", False, []),
        ("{nesterov?--nesterov:--no-nesterov}", True, ["--nesterov"]),
        ("{nesterov?--nesterov:--no-nesterov}", False, ["--no-nesterov"]),
        ("{nesterov?:--plain}", True, []), ("{nesterov?:--plain}", False, ["--plain"]), ("x={nesterov?a}", False, ["x="]),
    ],
)  # fmt: skip
def test_a_switch_is_given_or_left_out(word, value, expected):
    assert render(f"true -v {word} {{opt}}", SGD | {"nesterov": value}) == ["-v", *expected, "sgd"]


def test_an_inactive_switch_leaves_the_flag_before_it():
    assert render("true -v {nesterov?--nesterov:--no-nesterov}") == ["-v"]


@pytest.mark.parametrize("word", ["{lr?--lr}", "{opt?--opt}", "{seed?--seed}"])
def test_a_switch_must_be_true_or_false(word):
    with pytest.raises(ConfigError, match="not true or false"):
        CommandTemplate(f"true {word}", SPACE, HERE)


def test_a_switch_reads_back_from_the_repr():
    assert "{nesterov?--a:--b} {nesterov?--a} {nesterov?:--b}" in repr(
        CommandTemplate("true {nesterov?--a:--b} {nesterov?--a} {nesterov?:--b}", SPACE, HERE)
    )


@pytest.mark.parametrize("before", ["--", "-", "--a=b", "--a={lr}", "file"])
def test_a_word_that_is_no_open_flag_stays(before):
    assert len(render(f"true {before} {{nesterov}}")) == 1


def test_doubled_braces_are_literal():
    assert render("true '{{\"lr\": {lr}}}'") == ['{"lr": 1e-05}']


def test_a_sequence_is_taken_word_by_word():
    assert render(["true", "a b", "", "{opt} x", "|"]) == ["a b", "", "adam x", "|"]


def test_a_value_is_never_split_or_expanded():
    space = SearchSpace.from_dict({"x": {"type": "categorical", "choices": ["a b; $(rm) {lr} *", "c"]}})
    assert render("true {x}", {"x": "a b; $(rm) {lr} *"}, space) == ["a b; $(rm) {lr} *"]


@pytest.mark.parametrize(
    "command, words",
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ([], "is empty"),
        ([""], "is empty"),
        ("python 'x", "balance its quotes"),
        ("python {lr", "unbalanced '{'"),
        ("python lr}", "unbalanced '}'"),
        ("python {{lr}", "unbalanced '}'"),
        ("python {layer}", r"did you mean \{layers\}\?"),
        ("python {zzz}", "Known: lr, layers, opt, nesterov, decay, params_file"),
        ("python {}", "is not a parameter"),
        ("python {lr:.3f}", "is not a parameter"),
        ("python t.py > log.txt", "no shell is used"),
        ("A=1 python t.py", "set by `env`"),
        ("no-such-program-anywhere", "neither on PATH nor in"),
        ("./missing.sh", "neither on PATH nor in"),
        ("conftest.py", "is not executable"),
        ("{opt} x", "may not hang on a parameter"),
        (["python", 3], "not a string"),
        (["python", "a\0b"], "NUL"),
    ],
)
def test_a_command_that_cannot_work_is_refused_with_the_reason(command, words):
    with pytest.raises(ConfigError, match=words):
        CommandTemplate(command, SPACE, HERE)


def test_a_missing_folder_is_refused():
    with pytest.raises(ConfigError, match="does not exist"):
        CommandTemplate("true", SPACE, HERE / "nowhere")


def test_a_parameter_with_a_reserved_name_may_not_be_used():
    space = SearchSpace.from_dict({"seed": {"type": "int", "low": 0, "high": 9}})
    with pytest.raises(ConfigError, match="rename the parameter"):
        CommandTemplate("true {seed}", space, HERE)


@pytest.mark.parametrize("choice", ["a\0b", "\ud800"])
def test_a_choice_that_cannot_stand_on_a_command_line_is_refused(choice):
    space = SearchSpace.from_dict({"x": {"type": "categorical", "choices": [choice, "c"]}})
    with pytest.raises(ConfigError, match="params_file"):
        CommandTemplate("true {x}", space, HERE)


def test_a_program_in_the_folder_is_found(tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    template = CommandTemplate("./train.sh", None, tmp_path)
    files = dict.fromkeys(("params_file", "result_file", "report_file"), tmp_path)
    assert Path(template.render({}, trial=0, seed=0, **files)[0]).samefile(script)


def test_python_stands_for_this_interpreter_where_path_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    template = CommandTemplate("python3 x", None, tmp_path)
    files = dict.fromkeys(("params_file", "result_file", "report_file"), tmp_path)
    assert template.render({}, trial=0, seed=0, **files) == [sys.executable, "x"]


def test_python_stands_for_this_interpreter_in_an_environment_that_is_not_activated(monkeypatch, tmp_path):
    files = dict.fromkeys(("params_file", "result_file", "report_file"), tmp_path)
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", "/somewhere/else")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    for activated, program in ((None, sys.executable), ("/venv", str(other))):
        if activated:
            monkeypatch.setenv("VIRTUAL_ENV", activated)
        else:
            monkeypatch.delenv("VIRTUAL_ENV", raising=False)
        assert CommandTemplate("python x", None, tmp_path).render({}, trial=0, seed=0, **files)[0] == program


def test_words_that_are_left_to_be_filled_in_are_listed():
    template = CommandTemplate("true <data> --out=<dir> --tag <x>{lr} <data> '<two words>'", SPACE, HERE)
    assert template.blanks == ("<data>",)


def test_parameters_that_the_command_does_not_pass_are_listed():
    assert CommandTemplate("true {lr} {opt}", SPACE, HERE).unused == ("layers", "nesterov", "decay")
    assert CommandTemplate("true {params_file}", SPACE, HERE).unused == ()

"""Drafts of study.toml: they are valid, say where each entry comes from, and never guess metric or direction."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from llmhpo.config import read_study_file
from llmhpo.draft import draft, first_run, study_toml, with_metric
from llmhpo.errors import ConfigError
from llmhpo.spec import Item, Origin, StudySpec, draft_spec

SCRIPTS = Path(__file__).parent.parent / "examples" / "scripts"
NAMES = [
    "argparse_digits.py", "click_wine.py", "hydra_mlp/train.py", "dataclass_forest.py", "yaml_config/train.py",
    "constants_ridge.py", "notebook_export.py", "shell_sgd.sh", "xgboost_cancer.py", "transformers_tiny.py",
]  # fmt: skip
TRAIN = """
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
lr = parser.parse_args().lr
if lr > 0.05:
    open(os.environ["LLMHPO_RESULT"], "w").write(json.dumps({"loss": lr}))
"""


@pytest.mark.parametrize("name", NAMES)
def test_the_draft_of_each_example_is_a_valid_study(name: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(draft(SCRIPTS / name, 'words with "quotes"\nand lines', "val", "maximize"))
    config = read_study_file(path)
    assert config.task.text == 'words with "quotes"\nand lines'
    assert config.task.direction == "maximize"
    assert len(config.space) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_every_line_says_where_it_comes_from(name: str) -> None:
    for line in draft(SCRIPTS / name, "", "val", "minimize").splitlines():
        if line and not line.startswith(("#", "[")):
            assert "  # " in line, line


def test_every_table_says_where_it_comes_from() -> None:
    lines = draft(SCRIPTS / "argparse_digits.py", "", "val", "minimize").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("[space."):
            assert lines[at - 1].startswith("# argparse_digits.py:")


def test_what_splits_the_data_is_told_and_not_tuned() -> None:
    text = draft(SCRIPTS / "click_wine.py", "", "accuracy", "maximize")
    assert "measured; tuned, these would move the yardstick:\n# click_wine.py:27: --folds = 5" in text
    assert "folds" not in tomllib.loads(text)["space"]


def test_a_script_without_settings_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("print(1)\n")
    with pytest.raises(ConfigError, match="holds nothing to tune"):
        draft(tmp_path / "t.py", "", "loss", "minimize")


def test_a_study_is_not_written_before_metric_and_direction_are_said(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TRAIN)
    spec = draft_spec("words", script=tmp_path / "t.py")
    assert spec.open == ("metric", "direction")
    with pytest.raises(ConfigError, match="--direction minimize or maximize"):
        study_toml(with_metric(spec, "loss"))


# --- the first run ----------------------------------------------------------------------------------------------------


def spec_of(folder: Path, text: str, metric: str = "loss") -> StudySpec:
    (folder / "t.py").write_text(text)
    spec = draft_spec("", script=folder / "t.py")
    return replace(with_metric(spec, metric), direction=Item("minimize", Origin("person")))


@pytest.mark.parametrize(
    "metric, text, good, words",
    [
        ("loss", TRAIN, True, "loss = 0.1"),
        ("acc", TRAIN, False, "no metric 'acc'"),
        ("loss", TRAIN.replace("> 0.05", "> 0.5"), False, "left no result"),
        ("loss", "import nosuch" + TRAIN, False, "No module named 'nosuch'"),
        ("val loss", TRAIN + "print(f'epoch 3 val loss {lr / 2}')", True, "val loss = 0.05"),
    ],
)
def test_a_first_run_says_what_it_saw(tmp_path: Path, metric: str, text: str, good: bool, words: str) -> None:
    run = first_run(spec_of(tmp_path, text, metric), 60)
    assert run.is_good is good
    assert words in run.message


@pytest.mark.parametrize(
    ("command", "is_told"),
    [("python t.py", True), ("{python} t.py", True), (f"{sys.executable} t.py", False), ("sh run.sh", False)],
)
def test_a_missing_package_names_this_python_only_where_the_command_runs_it(
    tmp_path: Path, command: str, is_told: bool
) -> None:
    spec = spec_of(tmp_path, "import nosuch" + TRAIN)
    (tmp_path / "run.sh").write_text(f"exec {sys.executable} t.py")
    run = first_run(replace(spec, command=Item(command, Origin("person"))), 60)
    assert "No module named 'nosuch'" in run.message
    assert ("install nosuch there" in run.message) is is_told


def test_a_first_run_that_goes_on_is_good_by_what_it_has_written(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, TRAIN + "import time; time.sleep(100)")
    for seconds in (3, 30):  # which a busy machine does later
        run = first_run(spec, seconds)
        if run.is_good:
            break
    assert run.is_good
    assert f"still runs after {seconds} s" in run.message


def test_a_first_run_without_a_metric_tells_what_is_there_to_choose_from(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path, TRAIN + "print('accuracy:', 0.75, 'epoch 3')"), metric=None, metric_pattern=None)
    assert {(s.name, s.value) for s in first_run(spec, 60).seen} == {("loss", 0.1), ("accuracy", 0.75)}


def test_a_command_with_blanks_is_not_run(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, TRAIN + "parser.add_argument('--data', required=True)\nopen('ran', 'w')")
    run = first_run(spec, 60)
    assert not run.is_good
    assert "fill in <data>" in run.message
    assert not (tmp_path / "ran").exists()


# --- words, files and a command -----------------------------------------------------------------------------------------


def test_a_study_that_lies_elsewhere_names_the_folder_of_its_script(tmp_path: Path) -> None:
    text = draft(SCRIPTS / "argparse_digits.py", "", "val", "minimize", tmp_path)
    assert tomllib.loads(text)["cwd"] == str(SCRIPTS)


def test_a_command_of_the_persons_own_keeps_its_words_and_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TRAIN)
    spec = draft_spec("", script=tmp_path / "t.py", command="python -u t.py --lr 0.3 --x 'a b'")
    assert spec.command == Item("python -u t.py --x 'a b' --lr={lr}", Origin("person"))
    assert (spec.settings[0].found.default, str(spec.settings[0].found.where)) == (0.3, "your command:1")


def test_a_command_with_placeholders_says_what_is_tuned(tmp_path: Path) -> None:
    spec = draft_spec("", command="./trainer --lr={lr} --dropout {dropout} --out {result_file}")
    assert spec.space is not None
    assert spec.space.names == ("lr", "dropout")


def test_a_placeholder_without_a_range_is_told() -> None:
    with pytest.raises(ConfigError, match=r"\{zeta\} has no range"):
        draft_spec("", command="./trainer --zeta={zeta}")


def test_nothing_to_read_is_told() -> None:
    with pytest.raises(ConfigError, match="there is nothing to read"):
        draft_spec("tune it")


def test_the_help_of_a_program_that_is_no_python_becomes_a_study(tmp_path: Path) -> None:
    help_text = SCRIPTS.parent.parent / "tests" / "reading" / "blind" / "second" / "trainer_help.txt"
    spec = draft_spec("", help_text=help_text, command="./vwlite --data d.txt -l 0.4 --learning_rate=0.25")
    assert spec.command.value.startswith("./vwlite --data d.txt -l 0.4 --learning_rate={learning_rate}")
    assert [s.found.default for s in spec.settings if s.found.name == "learning_rate"] == [0.25]


def test_a_config_file_goes_with_the_flag_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[optim]\nlr = 0.1  # peak\n")
    (tmp_path / "t.py").write_text("import argparse\np = argparse.ArgumentParser()\np.add_argument('--cfg')\n")
    spec = draft_spec("", script=tmp_path / "t.py", config=tmp_path / "c.toml")
    assert spec.command.value == (
        "python -m llmhpo.reading.fill c.toml {params_file} optim.lr -- python t.py --cfg CONFIG"
    )
    assert str(spec.settings[0].found.where) == "c.toml:2"


def test_what_the_help_alone_knows_is_added_to_what_the_script_shows(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(TRAIN)
    (tmp_path / "h.txt").write_text("usage: t.py\n\noptions:\n  --momentum FLOAT  of SGD (default: 0.9)\n")
    spec = draft_spec("", script=tmp_path / "t.py", help_text=tmp_path / "h.txt")
    assert spec.command.value == "python t.py --lr={lr} --momentum={momentum}"

"""Tables that words name: which column is predicted, and the script that learns it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.errors import ConfigError
from llmhpo.reading.table import read_table, table_in, table_script


def write(folder: Path, columns: str, cells: str, delimiter: str = ",") -> Path:
    """40 rows of words in columns parted by "|": n counts them, m has three values, x is an amount, five is true in five rows; and a row of gaps."""
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns.split("|"))
        writer.writerows(cells.format(n=n, m=n % 3, x=n * 1.5, five=n < 5).split("|") for n in range(40))
        writer.writerow("" for _ in columns.split("|"))
    return path


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ("predict the column churn of data.csv", "churn"),
        ("predict churn from age, with data.csv", "churn"),
        ("price of a house from data.csv, minimize rmse", "price"),
        ("the target is Price per m2; data.csv", "price per m2"),
    ],
)
def test_the_column_is_the_one_that_the_words_say_is_predicted(tmp_path: Path, words: str, target: str) -> None:
    path = write(tmp_path, "age|churn|price|price per m2", "{n}|{m}|{x}|{x}")
    assert table_in(words, tmp_path) == path
    assert read_table(path, words).target == target


@pytest.mark.parametrize("words", ["classify data.csv", "age and churn"])
def test_words_that_name_no_column_or_several_are_told_the_columns(tmp_path: Path, words: str) -> None:
    path = write(tmp_path, "age|churn", "{n}|{m}")
    with pytest.raises(ConfigError, match=r"say which one is predicted.*It has age, churn"):
        read_table(path, words)


@pytest.mark.parametrize("text", ["", "a\n1\n", "a,a\n" + "1,2\n" * 30, "a,b\n1,2\n", "\0\0,b\n"])
def test_what_is_no_table_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"data\.csv"):
        read_table(path, "predict b")


@pytest.mark.parametrize(
    ("columns", "cells", "delimiter", "target", "printed"),
    [
        ("id|age|plan|churn", "c{n}|{n}|p{m}|{m}", ",", "churn", ["cv_accuracy", "cv_log_loss"]),
        ("age|plan|it's \"x\\", "{n}|p{m}|{x}", ";", "it's \"x\\", ["cv_rmse", "cv_mae"]),
        ("age| churn|gaps|same", "{n}|{five}||7", ",", "churn", ["cv_accuracy", "cv_log_loss"]),  # a class of 5 rows
    ],
)
def test_the_script_learns_words_and_numbers_with_gaps_and_prints_how_well(
    tmp_path: Path, columns: str, cells: str, delimiter: str, target: str, printed: list[str]
) -> None:
    path = write(tmp_path, columns, cells, delimiter)
    done = run_script(tmp_path, path, f"predict the column {target}")
    assert done.returncode == 0, done.stderr
    assert [line.partition("=")[0] for line in done.stdout.splitlines()] == printed


def run_script(folder: Path, path: Path, words: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(table_script(read_table(path, words)))
    return subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=110)


def test_a_column_without_a_name_is_neither_predicted_nor_learned_from(tmp_path: Path) -> None:
    path = write(tmp_path, "|churn|gaps", "{n}|{m}|")
    assert read_table(path, "predict the churn of data.csv").target == "churn"
    with pytest.raises(ConfigError, match=r"name none of its columns.*It has churn, gaps$"):
        read_table(path, "classify data.csv")
    done = run_script(tmp_path, path, "predict churn")
    assert done.returncode == 1
    assert done.stderr.startswith("no column to learn from")


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ("", "has a value in 0 of 41 rows"),
        ("yes", "holds one value only, 'yes'"),
        ("12,{n}", "'12,0' is in 1 row only"),
        ("1,{n}01.50", "write plain numbers such as 1101.5"),
        ("c{n}", "'c0' is in 1 row only"),
    ],
)
def test_a_target_that_tells_too_little_is_refused_with_what_it_holds(tmp_path: Path, cells: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_table(write(tmp_path, "age|y", "{n}|" + cells), "predict y")


def test_a_mark_for_unknown_among_amounts_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "age|y", "{n}|{x}")
    path.write_text(path.read_text() + "1,?\n" * 6)
    with pytest.raises(ConfigError, match=r"words such as '\?'.*'0.0' is in 1 row only.*nothing where it is not known"):
        read_table(path, "predict y")


@pytest.mark.parametrize(("cells", "classes"), [("{m}", 3), ("{n}", 0), ("{x}", 0), ("{five}", 2)])
def test_whole_numbers_are_classes_where_each_has_rows_enough(tmp_path: Path, cells: str, classes: int) -> None:
    assert read_table(write(tmp_path, "age|y", "{n}|" + cells), "predict y").classes == classes


def test_a_class_of_few_rows_makes_whole_numbers_an_amount(tmp_path: Path) -> None:
    path = write(tmp_path, "age|y", "{n}|{m}")
    path.write_text(path.read_text() + "1,9\n" * 4)
    assert read_table(path, "predict y").classes == 0
    path.write_text(path.read_text() + "1,9\n")
    assert read_table(path, "predict y").classes == 4


@pytest.mark.parametrize(
    "said", ["./mix.csv.", "../here/mix.csv", "(mix.csv)", "'my mix.csv',", 'the customer\'s "my mix.csv"']
)
def test_a_path_is_found_as_it_is_written(tmp_path: Path, said: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("mix.csv", "my mix.csv"):
        (folder / name).touch()
    found = table_in(f"predict y of {said}", folder)
    assert found is not None
    assert found.resolve() == folder / ("my mix.csv" if "my" in said else "mix.csv")


def test_the_delimiter_is_the_one_that_parts_most_columns(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('a;"size, in m, by hand, of all";y\n' + "1;2;3\n4;5;6\n" * 20)
    assert read_table(path, "predict y").columns == ("a", "size, in m, by hand, of all", "y")
    path.write_text("a b\n" * 30)
    with pytest.raises(ConfigError, match="parted by comma, semicolon or tab"):
        read_table(path, "predict b")


def test_of_names_that_differ_in_capitals_the_one_spelled_so_is_meant(tmp_path: Path) -> None:
    path = write(tmp_path, "Age|age|plan", "{n}|{m}|{x}")
    assert read_table(path, "predict Age").target == "Age"
    assert read_table(path, "predict the column age from plan").target == "age"
    assert read_table(path, "predict age from Age").target == "age"
    with pytest.raises(ConfigError, match="several of its columns"):
        read_table(path, "predict AGE")

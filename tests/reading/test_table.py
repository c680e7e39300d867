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
    """40 rows of words in columns parted by "|": n counts them, m has three values, x is an amount; and a row of gaps."""
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns.split("|"))
        writer.writerows(cells.format(n=n, m=n % 3, x=n * 1.5).split("|") for n in range(40))
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
    ],
)
def test_the_script_learns_words_and_numbers_with_gaps_and_prints_how_well(
    tmp_path: Path, columns: str, cells: str, delimiter: str, target: str, printed: list[str]
) -> None:
    path = write(tmp_path, columns, cells, delimiter)
    (tmp_path / "train.py").write_text(table_script(read_table(path, f"predict the column {target}")))
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert [line.partition("=")[0] for line in done.stdout.splitlines()] == printed

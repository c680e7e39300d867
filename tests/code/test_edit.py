"""Edits read from replies."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.code.edit import GRAMMAR, Change, Edit, EditError, parse_edit

BLOCK = "<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n"


def edit(reply: str) -> Edit:
    found = parse_edit(reply)
    assert isinstance(found, Edit), str(found)
    return found


def reason(reply: str) -> str:
    found = parse_edit(reply)
    assert isinstance(found, EditError)
    return str(found)


def test_the_grammar_that_prompts_quote_is_read() -> None:
    found = edit(GRAMMAR)
    assert [str(c) for c in found.changes] == ["train.py#build_model", "model.py"]
    assert found.changes[1].search is None
    assert [p.name for p in found.hyperparameters] == ["dropout"]
    assert found.note == "one line that says what changes and why"


@pytest.mark.parametrize(
    "head",
    [
        "FILE: a.py",
        "### FILE: `a.py`",
        "**FILE:** a.py",
        "file: ./a.py",
        "a.py",
        "`a.py`:",
        "## a.py",
        "FILE: a.py\n```python",
        "a.py\n```",
    ],
)
def test_a_file_is_named_in_many_ways(head: str) -> None:
    assert edit(f"Some prose.\n\n{head}\n{BLOCK}```\n").changes == (
        Change("a.py", "", ("a",), ("b",), edit(f"Some prose.\n\n{head}\n{BLOCK}").changes[0].line),
    )


def test_further_blocks_are_of_the_same_file() -> None:
    assert [c.path for c in edit(f"FILE: x/a.py\n{BLOCK}and\n{BLOCK}").changes] == ["x/a.py", "x/a.py"]


def test_windows_line_ends_of_a_reply_are_no_part_of_it() -> None:
    assert edit(f"FILE: a.py\n{BLOCK}".replace("\n", "\r\n")).changes[0].search == ("a",)


def test_the_note_is_one_clean_line() -> None:
    assert edit(f"FILE: a.py\n{BLOCK}NOTE: more\x1b[31m  width\u202e\n").note == "more [31m width"


def test_prose_serves_as_the_note() -> None:
    assert edit(f"I widen the net.\n\nFILE: a.py\n{BLOCK}").note == "I widen the net."


@pytest.mark.parametrize(
    "reply, told",
    [
        ("", "holds no edit"),
        ("I cannot help with that.", "holds no edit"),
        (BLOCK, "names no file"),
        ("FILE: a.py\n<<<<<<< SEARCH\na\n", "was cut off"),
        ("FILE: a.py\n<<<<<<< REWRITE\na\n>>>>>>> REPLACE\n", "no >>>>>>> REWRITE"),
        ("FILE: a.py\n<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "no line ======="),
        ("FILE: a.py\n<<<<<<< SEARCH\na\n=======\nb\n=======\n>>>>>>> REPLACE\n", "two lines ======="),
        (f"FILE: a.py\n<<<<<<< SEARCH\n{BLOCK}", "inside the one of line 2"),
        (">>>>>>> REPLACE", "never begun"),
        ("FILE: a.py\n" + BLOCK * 101, "more than 100 blocks"),
        ("x" * 1_000_001, "at most 1000000"),
    ],
)
def test_a_reply_that_is_no_edit_is_refused(reply: str, told: str) -> None:
    assert told in reason(reply)


def declared(text: str) -> str:
    return f"FILE: a.py\n{BLOCK}```hyperparameters\n{text}\n```\n"


def test_hyperparameters_may_be_json() -> None:
    table = {"width": {"type": "int", "low": 1, "high": 9, "default": 3}}
    assert edit(declared(json.dumps(table))).hyperparameters[0].default == 3


@pytest.mark.parametrize(
    "text, told",
    [
        ('[x]\ntype = "float"\nlow = 0.0\nhigh = 1.0', "no default"),
        ('[x]\ntype = "float"\nlow = 0.0\ndefault = 0.0', "'high' is missing"),
        ('[x]\ntype = "float"\nlow = 0.0\nhigh = 1.0\ndefault = 2.0', "default does not fit"),
        ('[x]\ntype = "float"\nlow = nan\nhigh = inf\ndefault = 1.0', "not a finite number"),
        ('[x]\ntype = "int"\nlow = 3\nhigh = 3\ndefault = 3', "from 2 to 64 values"),
        ('[x]\ntype = "magic"\ndefault = 1', "type = 'magic' is unknown"),
        ("x = 1", "expected a table"),
        ('["a b"]\ntype = "int"', "no plain name"),
        ("[x", "neither TOML nor JSON"),
        ("{" * 5000, "neither TOML nor JSON"),
        ("#" * 20_000, "at most 10000"),
        (
            "\n".join(f'[x{i}]\ntype = "int"\nlow = 0\nhigh = 1\ndefault = 0' for i in range(9)),
            "declares 9 hyperparameters",
        ),
    ],
)
def test_hyperparameters_that_cannot_be_taken_are_refused(text: str, told: str) -> None:
    assert told in reason(declared(text))


pieces = st.sampled_from(
    ["FILE: a.py", "<<<<<<< SEARCH", "<<<<<<< REWRITE", "=======", ">>>>>>> REPLACE", ">>>>>>> REWRITE", "```",
     "```hyperparameters", '[x]\ntype = "int"', "NOTE: x", "a.py", "{", "\r", "\x00", "\ud800", "  "]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.text() | st.lists(pieces | st.text(max_size=20), max_size=20).map("\n".join))
def test_no_text_at_all_makes_the_reader_raise(text: str) -> None:
    found = parse_edit(text)
    assert isinstance(found, Edit) or all(found.reasons)


@pytest.mark.parametrize(
    "text", ["FILE:" + " " * 500_000, "a." * 250_000, "`" * 900_000, "<<<<<<< SEARCH" + " " * 500_000 + "x"]
)
def test_long_lines_take_no_time(text: str) -> None:
    start = time.process_time()
    parse_edit(text)
    assert time.process_time() - start < 2

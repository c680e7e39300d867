"""What comes from outside without a parser of its own: variables of the environment, words of the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmhpo.param import UNSET
from llmhpo.reading.passing import command_of
from llmhpo.reading.ranges import suggest
from llmhpo.reading.script import Reading

Read = Callable[..., Reading]


def test_the_environment_is_read_with_its_conversion(read_text: Read) -> None:
    (found,) = read_text('import os\nlr = float(os.environ.get("LR", "0.1"))\n').tunable
    assert (found.spelling, found.kind, found.default) == ("LR", "float", 0.1)


@pytest.mark.parametrize(
    "word",
    [
        'float(os.environ["LR"]) if "LR" in os.environ else 0.1',
        'float(os.environ.get("LR") or 0.1)',
        'float(os.getenv("LR", "0.1"))',
    ],
)
def test_the_environment_has_the_default_that_stands_beside_it(read_text: Read, word: str) -> None:
    (found,) = read_text(f"import os\nlr = {word}\n").tunable
    assert (found.name, found.kind, found.default, found.passing) == ("lr", "float", 0.1, "env")


@pytest.mark.parametrize(
    "code",
    [
        'import os\nlr = float(os.environ["LR"]) if os.environ.get("SCHEDULE") == "cosine" else 0.5\n',
        'import sys\nmode, lr = sys.argv[1], float(sys.argv[2]) if sys.argv[1] == "slow" else 0.5\n',
    ],
)
def test_a_value_for_another_case_is_no_default_of_what_is_read_from_outside(read_text: Read, code: str) -> None:
    assert 0.5 not in [f.default for f, _ in read_text(code).items]


@pytest.mark.parametrize(
    "code",
    [
        "if len(sys.argv) > 1:\n    random.seed(int(sys.argv[1]))\n",
        "if len(sys.argv) > 1:\n    seed = int(sys.argv[1])\n",
        "if len(sys.argv) < 2:\n    seed = 0\nelse:\n    seed = int(sys.argv[1])\n",
        "try:\n    seed = int(sys.argv[1])\nexcept IndexError:\n    seed = 0\n",
        'if len(sys.argv) > 1 and sys.argv[1] == "test":\n    sys.exit()\n',
        "seed = int(sys.argv[1]) if sys.argv[1:] else time.time()\n",
        "repeats = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)\n",
    ],
)
def test_a_word_that_may_be_left_out_hides_nothing_and_is_left_out(read_text: Read, code: str) -> None:
    reading = read_text(
        f"import random, sys, time\n{code}learning_rate = 0.1\ndropout = 0.2\nprint(learning_rate, dropout)\n"
    )
    chosen = [suggest(f) for f in reading.tunable]
    assert [s.found.name for s in chosen] == ["learning_rate", "dropout"]
    assert command_of(reading, chosen).text.endswith("{params_file} learning_rate dropout -- python train.py")


@pytest.mark.parametrize(
    "code, blank",
    [
        ("data = sys.argv[1]\n", "<data>"),
        ("if len(sys.argv) != 2:\n    sys.exit('usage')\nload(sys.argv[1])\n", "<argument_1>"),
        ("if len(sys.argv) == 2:\n    data = sys.argv[1]\nelse:\n    sys.exit('usage')\n", "<data>"),
        ("k = int(sys.argv[1])\n", "<k>"),
    ],
)
def test_a_word_that_a_script_cannot_do_without_hides_nothing_and_is_a_blank(
    read_text: Read, code: str, blank: str
) -> None:
    reading = read_text(f"import sys\n{code}learning_rate = 0.1\nprint(learning_rate)\n")
    command = command_of(reading, [suggest(f) for f in reading.tunable])
    assert command.text.endswith(f"{{params_file}} learning_rate -- python train.py {blank}")
    assert command.blanks == (blank,)


def test_a_word_that_may_be_left_out_is_a_blank_before_one_that_is_tuned(read_text: Read) -> None:
    code = "import sys\nif len(sys.argv) > 1:\n    seed = int(sys.argv[1])\nlr = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1\n"
    reading = read_text(code)
    assert command_of(reading, [suggest(f) for f in reading.tunable]).text == "python train.py <seed> {lr}"


def test_a_word_that_means_two_things_is_left_alone(read_text: Read) -> None:
    code = """
        import sys
        if sys.argv[1] == "train":
            lr = float(sys.argv[2])
        elif sys.argv[1] == "eval":
            checkpoint = sys.argv[2]
    """
    assert read_text(code).items == ()


def test_words_of_the_command_line_are_named_by_their_variables_in_order(read_text: Read) -> None:
    code = "import sys\nhidden = int(sys.argv[2]) if len(sys.argv) > 2 else 64\nlr, data = float(sys.argv[1]), sys.argv[3]\n"
    reading = read_text(code)
    assert [(f.name, f.kind, f.default) for f, _ in reading.items] == [
        ("lr", "float", UNSET), ("hidden", "int", 64), ("data", "str", UNSET),
    ]  # fmt: skip
    assert command_of(reading, [suggest(f) for f in reading.tunable]) == (
        "python train.py {lr} {hidden} <data>",
        ("<data>",),
    )


def test_words_of_the_command_line_whose_order_is_not_known_are_left_alone(read_text: Read) -> None:
    assert read_text("import sys\nlr = float(sys.argv[2])\nfor arg in sys.argv[1:]: print(arg)\n").items == ()


def test_a_positional_default_before_a_tuned_argument_keeps_its_place(read_text: Read) -> None:
    code = """
        import argparse
        p = argparse.ArgumentParser()
        p.add_argument("data", nargs="?", default="digits")
        p.add_argument("lr", type=float, nargs="?", default=0.1)
        p.add_argument("notes", nargs="?")
    """
    reading = read_text(code)
    assert command_of(reading, [suggest(f) for f in reading.tunable]).text == "python train.py digits {lr}"


@pytest.mark.parametrize(
    "default, word",
    [("my {data}.csv", "'my {{data}}.csv'"), ("", "''"), ("-", "<data>"), ("--all", "<data>")],
)
def test_a_positional_default_before_a_tuned_argument_is_no_placeholder_and_no_flag(
    read_text: Read, default: str, word: str
) -> None:
    code = f"""
        import argparse
        p = argparse.ArgumentParser()
        p.add_argument("data", nargs="?", default={default!r})
        p.add_argument("lr", type=float, nargs="?", default=0.1)
    """
    reading = read_text(code)
    assert command_of(reading, [suggest(f) for f in reading.tunable]).text == f"python train.py {word} {{lr}}"

"""Draws that a text declares, read without running it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llmhpo.errors import ConfigError, SpaceError
from llmhpo.reading.draws import draws_in_source

TEXT = """
import llmhpo as lh
from llmhpo import choose as pick, uniform
ACTS = {"relu": nn.ReLU, "gelu": nn.GELU}

class Net:
    def __init__(self, k):
        self.act = pick("act", ACTS)
        if self.act:
            self.drop = uniform("drop", 0, 0.5, default=0.1, doc="share")
        for i in range(3):
            lh.choose(f"norm{i}", [1, 2])
        self.width = lh.integer("width", 16, 16 * 8, log=True)
        self.k = lh.integer("k", 1, k)
        self.choose = other.choose("not_ours", [1])
"""


def test_literal_draws_are_found_under_any_name_of_the_functions() -> None:
    found = draws_in_source(TEXT)
    assert [(p.name, p.describe_range(), p.default, p.doc) for p in found] == [
        ("act", "one of 'relu', 'gelu'", "relu", ""),
        ("drop", "a float from 0 to 0.5", 0.1, "share"),
        ("width", "an integer from 16 to 128 (log scale)", 45, ""),
    ]


def test_what_reading_finds_is_what_running_gives() -> None:
    text = (
        "import llmhpo\nfrom llmhpo import draws\n"
        "with draws.collecting() as found:\n"
        "    llmhpo.choose('a', [1, 'x', None], default='x', ordered=True)\n"
        "    llmhpo.loguniform('b', 1e-4, 1e-2, doc='words')\n"
        "    llmhpo.uniform('c', 0, 1, step=0.25)\n"
        "    draws.integer('d', 1, 9, step=2)\n"
        "    draws.boolean('e', True)\n"
    )
    check = "from llmhpo.param import param_from_dict as p\nprint(*(p(n, t) for n, t in found), sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", text + check], capture_output=True, text=True, check=True).stdout
    assert ran.splitlines() == [str(param) for param in draws_in_source(text)]


def test_a_text_without_draws_has_none() -> None:
    assert draws_in_source("from random import choose, uniform\nchoose('a', [1])\nuniform(0, 1)\n") == []


def test_the_same_draw_twice_is_one_parameter() -> None:
    line = "llmhpo.choose('a', ['x', 'y'])\n"
    assert len(draws_in_source("import llmhpo\n" + line + line)) == 1


def test_one_name_with_two_ranges_is_refused_with_both_places() -> None:
    text = "import llmhpo\nllmhpo.uniform('a', 0, 1)\n\nllmhpo.uniform('a', 0, 2)\n"
    with pytest.raises(SpaceError, match=r"'a' is drawn twice and differs: at net.py:2 .* at net.py:4 .*two names"):
        draws_in_source(text, "net.py")


@pytest.mark.parametrize(
    "call, words",
    [
        ("choose('a', [])", "draw 'a': choices"),
        ("uniform('a', 1, 0)", "in this order"),
        ("uniform('a')", "missing 2 required"),
        ("uniform('a', 0, 1, step=0.3)", "move high onto the grid"),
        ("integer('a', 0, 5, default=7)", "is not between 0 and 5"),
        ("choose('a', [1, 1.0])", "twice"),
        ("uniform('a', 0, 1, step='x')", "could not convert"),
        ("choose('a{', [1, 2])", "rename"),
    ],
)
def test_a_draw_that_makes_no_sense_is_refused_with_its_line(call: str, words: str) -> None:
    with pytest.raises(SpaceError, match=rf"^train.py:2: llmhpo\..*{words}"):
        draws_in_source(f"import llmhpo\nllmhpo.{call}\n")


def test_a_text_that_is_no_python_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid Python"):
        draws_in_source("def f(:\n")

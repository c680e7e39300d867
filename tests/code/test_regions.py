"""What may change, found in the texts of files."""

from __future__ import annotations

import pytest

from llmhpo.code.regions import Editable, Region, split_lines
from llmhpo.code.syntax import ast_digest
from llmhpo.errors import ConfigError

TRAIN = '''"""Trains."""
import json


@cached
@wrapped(
    1,
)
def build_model(width):
    # a comment
    return width


class Net:
    def forward(self, x):
        def inner():
            return 1
        return x

    async def later(self):
        return 2

def main():
    # llmhpo: begin schedule
    lr = 0.1
    # llmhpo: end
    return lr
'''
FILES = {"train.py": TRAIN, "model.py": "x = 1\n", "conf.yaml": "# llmhpo: begin sizes\na: 1\n# llmhpo: end\nb: 2\n"}


def lines(spec: str, files: dict[str, str] = FILES) -> str:
    return dict(Editable.of([spec], files).texts(files))[Region.of(spec)]


def test_a_function_is_found_with_its_decorators() -> None:
    assert lines("train.py#build_model").startswith("@cached\n@wrapped(")
    assert lines("train.py#build_model").endswith("return width")


@pytest.mark.parametrize(
    "name, first, last",
    [
        ("Net", "class Net:", "        return 2"),
        ("Net.forward", "    def forward(self, x):", "        return x"),
        ("Net.forward.inner", "        def inner():", "            return 1"),
        ("Net.later", "    async def later(self):", "        return 2"),
        ("schedule", "    lr = 0.1", "    lr = 0.1"),
    ],
)
def test_classes_methods_and_marked_lines_are_found_by_name(name: str, first: str, last: str) -> None:
    text = lines(f"train.py#{name}").split("\n")
    assert (text[0], text[-1]) == (first, last)


def test_a_whole_file_is_a_region() -> None:
    assert lines("model.py") == FILES["model.py"]


def test_a_marked_region_needs_no_python() -> None:
    assert lines("conf.yaml#sizes") == "a: 1"


def test_a_glob_stays_in_its_folder() -> None:
    editable = Editable.of(["blocks/*.py", "deep/**/*.py"], FILES)
    assert editable.allows("blocks/a.py")
    assert editable.allows("deep/a.py")
    assert editable.allows("deep/b/c/a.py")
    assert not editable.allows("blocks/b/a.py")
    assert not editable.allows("blocks/a.pyx")
    assert not editable.allows("xblocks/a.py")


@pytest.mark.parametrize(
    "specs, told",
    [
        ([], "names nothing"),
        (["gone.py"], "no text file 'gone.py'"),
        (["model.py", "model.py"], "twice"),
        (["../model.py"], "leaves the project"),
        (["/etc/passwd"], "not relative"),
        (["C:/x.py"], "not relative"),
        (["a\\b.py"], "backslash"),
        (["./model.py"], "shortest form"),
        ([".git/config"], "hidden"),
        (["*.py#f"], "both a pattern and a name"),
        (["train.py#gone"], "no function, class or marked region 'gone'"),
        (["train.py", "train.py#Net"], "lies in 'train.py'"),
        (["train.py#Net", "train.py#Net.forward"], "lies in 'train.py#Net'"),
        (["tr*.py", "train.py#Net"], "lies in 'train.py'"),
        (["twice.py#f"], "2 of the name 'f', at lines 2, 5"),
        (["both.py#f"], "2 of the name 'f'"),
        (["broken.py#f"], "not valid Python: line 1"),
        (["open.py#f"], "has no end"),
        (["nested.py#f"], "before the end of 'f'"),
        (["stray.py#f"], "ends nothing"),
        (["mixed.py"], "line ends of both kinds"),
        (["mac.py"], "carriage returns"),
        (["nul.py"], "NUL"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_refused_with_its_place(specs: list[str], told: str) -> None:
    files = FILES | {
        "twice.py": "if a:\n    def f():\n        pass\nelse:\n    def f():\n        pass\n",
        "both.py": "# llmhpo: begin f\nx = 1\n# llmhpo: end\ndef f():\n    pass\n",
        "broken.py": "def f(:\n",
        "open.py": "# llmhpo: begin f\nx = 1\n",
        "nested.py": "# llmhpo: begin f\n# llmhpo: begin g\n# llmhpo: end\n",
        "stray.py": "# llmhpo: end\n",
        "mixed.py": "a = 1\r\nb = 2\n",
        "mac.py": "a = 1\rb = 2\n",
        "nul.py": "a = '\0'\n",
    }
    with pytest.raises(ConfigError, match=r".") as caught:
        Editable.of(specs, files)
    assert told in str(caught.value)


def test_the_words_begin_and_end_in_other_comments_mark_nothing() -> None:
    text = "# llmhpo: beginning\n# llm hpo: end\nx = 1\n"
    assert lines("a.py", {"a.py": text}) == text


def test_lines_are_those_of_editors_and_git() -> None:
    assert split_lines("a\x0cb\u2028c\r\nd\n") == ["a\x0cb\u2028c", "d", ""]


# --- equal programs ---------------------------------------------------------------------------------------------------


def digest(text: str) -> str:
    return ast_digest({"a.py": text}, ["a.py"])


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = 1\n", "x  =  1  # one\n"),
        ("def f():\n    return 1\n", 'def f():\n    """Doc."""\n\n    return 1\n'),
        ("x = 'a'\n", 'x = u"a"\n'),
        ("x = (1 +\n     2)\n", "x = 1 + 2\n"),
        ("x = 10\n", "x = 0xA\n"),
    ],
)
def test_layout_and_comments_do_not_count(one: str, other: str) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("x = 1\n", "x = 2\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("f(a=1)\n", "f(b=1)\n"),
        ("f([a], b)\n", "f([a, b])\n"),
        ("if a:\n    b\n    c\n", "if a:\n    b\nc\n"),
        ("x = 0x" + "f" * 9000, "x = 0x" + "e" * 9000),
        ("not python", "no python either"),
    ],
)
def test_what_runs_otherwise_counts(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def test_files_that_may_not_change_do_not_count() -> None:
    assert ast_digest({"a.py": "x", "b.py": "y"}, ["a.py"]) == ast_digest({"a.py": "x", "b.py": "z"}, ["a.py"])

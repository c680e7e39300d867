"""Edits applied, or refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.code.edit import Change, Edit, EditError, parse_edit
from llmhpo.code.patch import apply_edit
from llmhpo.code.regions import Editable
from llmhpo.space import SearchSpace

TRAIN = '''"""Trains."""
import json
# the data
def load():
    return 1

@cached
def build(width):
    depth = 2
    return [width] * depth

def score():
    # llmhpo: begin weights
    w = [
        1,
    ]
    # llmhpo: end
    return sum(w)
'''
FILES = {
    "train.py": TRAIN,
    "model.py": "a = 1\nb = 2\na = 1\n",
    "score.py": "METRIC = 1\n",
    "win.py": "a = 1\r\nb = 2\r\n",
}
SPECS = ["train.py#build", "train.py#weights", "model.py", "win.py", "new/*.py"]
SPACE = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.0, "high": 1.0}})


def apply(
    reply: str, *, files: dict[str, str] = FILES, specs: list[str] = SPECS, **caps: int
) -> dict[str, str] | EditError:
    edit = parse_edit(reply)
    return (
        edit if isinstance(edit, EditError) else apply_edit(files, Editable.of(specs, files), edit, space=SPACE, **caps)
    )


def block(path: str, search: str, replace: str) -> str:
    return f"FILE: {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


def rewrite(path: str, text: str) -> str:
    return f"FILE: {path}\n<<<<<<< REWRITE\n{text}\n>>>>>>> REWRITE\n"


def reason(reply: str, **kw: object) -> str:
    found = apply(reply, **kw)  # type: ignore[arg-type]
    assert isinstance(found, EditError)
    assert all("\n" not in line and line for line in found.reasons)
    return str(found)


# --- taken ------------------------------------------------------------------------------------------------------------


def test_a_block_replaces_the_lines_it_names() -> None:
    assert apply(block("train.py", "    depth = 2", "    depth = 3")) == {
        "train.py": TRAIN.replace("depth = 2", "depth = 3")
    }


def test_an_empty_replacement_takes_lines_away() -> None:
    reply = "FILE: model.py\n<<<<<<< SEARCH\nb = 2\n=======\n>>>>>>> REPLACE\n"
    assert apply(reply) == {"model.py": "a = 1\na = 1\n"}


def test_a_function_is_written_anew() -> None:
    new = "@cached\ndef build(width):\n    import math\n\n    return [math.pi]"
    changed = apply(rewrite("train.py#build", f"\n{new}\n\n"))
    assert changed == {"train.py": TRAIN.replace(TRAIN[TRAIN.index("@cached") : TRAIN.index("\n\ndef score")], new)}


def test_a_marked_region_is_written_anew_between_its_markers() -> None:
    changed = apply(rewrite("train.py#weights", "    w = range(3)"))
    assert changed == {"train.py": TRAIN.replace("    w = [\n        1,\n    ]\n", "    w = range(3)\n")}


def test_a_marked_region_may_lie_inside_an_expression() -> None:
    files = {"a.py": "x = {\n    # llmhpo: begin items\n    'a': 1,\n    # llmhpo: end\n}\n"}
    changed = apply(rewrite("a.py#items", "    'b': 2,\n    'c': 3,"), files=files, specs=["a.py#items"])
    assert changed == {"a.py": "x = {\n    # llmhpo: begin items\n    'b': 2,\n    'c': 3,\n    # llmhpo: end\n}\n"}


def test_several_blocks_refer_to_the_base_in_any_order() -> None:
    reply = block("model.py", "b = 2", "b = 3\nc = 4") + block("train.py", "    depth = 2", "    depth = 9")
    reply += block("train.py", "        1,", "        1,\n        2,")
    changed = apply(reply)
    assert isinstance(changed, dict)
    assert changed["model.py"] == "a = 1\nb = 3\nc = 4\na = 1\n"
    assert "depth = 9" in changed["train.py"]
    assert "        1,\n        2,\n" in changed["train.py"]


def test_a_region_narrows_where_a_text_must_be_unique() -> None:
    files = {"a.py": "def f():\n    x = 1\n\ndef g():\n    x = 1\n"}
    changed = apply(block("a.py#g", "    x = 1", "    x = 2"), files=files, specs=["a.py#g"])
    assert changed == {"a.py": "def f():\n    x = 1\n\ndef g():\n    x = 2\n"}


def test_a_function_inside_an_editable_file_may_be_named() -> None:
    files = {"a.py": "def f():\n    return 1\nx = 2\n"}
    assert apply(rewrite("a.py#f", "def f():\n    return 3"), files=files, specs=["a.py"]) == {
        "a.py": "def f():\n    return 3\nx = 2\n"
    }


def test_a_new_file_is_made_where_a_pattern_allows_it() -> None:
    assert apply(rewrite("new/block.py", "x = 1")) == {"new/block.py": "x = 1\n"}


def test_the_line_ends_of_a_file_stay() -> None:
    assert apply(block("win.py", "b = 2", "b = 3\nc = 4")) == {"win.py": "a = 1\r\nb = 3\r\nc = 4\r\n"}


def test_a_missing_last_line_end_stays_missing() -> None:
    files = {"a.py": "x = 1\ny = 2"}
    assert apply(block("a.py", "y = 2", "y = 3"), files=files, specs=["a.py"]) == {"a.py": "x = 1\ny = 3"}


# --- refused: where ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, told",
    [
        ("score.py", "'score.py' is protected"),
        ("../score.py", "leaves the project"),
        ("new/../score.py", "leaves the project"),
        ("new/../../x.py", "leaves the project"),
        ("/etc/passwd", "not relative"),
        ("~/.ssh/id", "not relative"),
        ("new/.hidden.py", "hidden"),
        (".git/hooks/pre-commit", "hidden"),
        ("new//x.py", "shortest form"),
        ("new\\x.py", "backslash"),
        ("other.py", "not a file that may be made; what may change: train.py#build"),
        ("new/deeper/x.py", "not a file that may be made"),
        ("model.py/x.py", "not a file that may be made"),
        ("new/x\u202e.py", "not the name of a file"),
    ],
)
def test_case_66_a_path_outside_of_what_may_change_is_refused(path: str, told: str) -> None:
    assert told in reason(rewrite(path, "x = 1"))


def test_a_file_does_not_take_the_place_of_a_folder() -> None:
    files = FILES | {"new/a": "text"}
    assert "is there already" in reason(rewrite("new/a/b.py", "x = 1"), files=files, specs=["new/**"])


def test_names_that_differ_in_case_alone_are_refused() -> None:
    assert "hold both names for equal" in reason(rewrite("new/A.py", "x = 1"), files=FILES | {"new/a.py": "x"})


@pytest.mark.parametrize("taken, told", [("new/x.py", "a link or no text"), ("new", "'new' is there already")])
def test_links_and_binary_files_are_not_overwritten(taken: str, told: str) -> None:
    edit = parse_edit(rewrite("new/x.py", "x = 1"))
    assert isinstance(edit, Edit)
    found = apply_edit(FILES, Editable.of(SPECS, FILES), edit, space=SPACE, taken=[*FILES, taken])
    assert told in str(found)


@pytest.mark.parametrize("one, other", [("new/a.py", "new/A.py"), ("new/a.py", "new/a.py/b.py")])
def test_the_new_files_of_one_edit_do_not_clash(one: str, other: str) -> None:
    told = reason(rewrite(one, "x = 1") + rewrite(other, "x = 1"), specs=["new/**"])
    assert "cannot be made" in told


def test_every_block_that_fails_is_told() -> None:
    told = reason(block("model.py", "c = 3", "d") + block("model.py", "a = 1", "d") + block("model.py", "b = 2", "d"))
    assert len(told.split("\n")) == 2


def test_lines_outside_of_the_regions_are_protected() -> None:
    told = reason(block("train.py", "    return 1", "    return 2"))
    assert "lines 5-5 are not wholly in what may change: train.py#build (lines 7-10)" in told


@pytest.mark.parametrize("lines", ["    # llmhpo: begin weights\n    w = [", "    ]\n    # llmhpo: end"])
def test_marker_lines_are_protected(lines: str) -> None:
    assert "marker lines stay" in reason(block("train.py", lines, "    w = ["))


@pytest.mark.parametrize("marker", ["# llmhpo: begin more", "    # llmhpo: end"])
def test_markers_may_not_be_added(marker: str) -> None:
    assert "may not be added" in reason(block("train.py", "    depth = 2", f"    depth = 2\n{marker}"))


def test_markers_may_not_be_removed_from_a_file_that_may_change() -> None:
    files = {"a.py": "# llmhpo: begin x\nx = 1\n# llmhpo: end\n"}
    assert "may not be added, changed or removed" in reason(rewrite("a.py", "x = 1"), files=files, specs=["a.py"])


# --- refused: what does not match -------------------------------------------------------------------------------------


def test_case_67_a_text_that_stands_twice_is_refused_with_its_places() -> None:
    assert "SEARCH stands 2 times, at lines 1, 3" in reason(block("model.py", "a = 1", "a = 2"))


def test_a_text_that_is_not_there_is_refused_with_what_comes_nearest() -> None:
    told = reason(block("train.py#build", "    depth = 22", "    depth = 3"))
    assert "its line '    depth = 22' is not there, the closest line is 9: '    depth = 2'" in told


def test_a_part_of_a_line_is_no_line() -> None:
    assert "only a part of line 9: '    depth = 2'" in reason(block("train.py", "depth", "width"))


def test_lines_with_a_gap_are_refused() -> None:
    assert "not one after the other" in reason(block("model.py", "b = 2\nb = 2", "b = 3"))


@pytest.mark.parametrize("search", ["depth = 2", "\tdepth = 2", "    depth=2", "    depth = 2 "])
def test_a_text_that_differs_in_white_space_is_refused_with_its_place(search: str) -> None:
    assert "differs only in white space from lines 9-9" in reason(block("train.py", search, "    depth = 3"))


def test_an_empty_search_is_refused() -> None:
    assert "SEARCH holds no text" in reason(block("model.py", "", "x = 1"))


def test_blocks_that_overlap_are_refused() -> None:
    reply = block("train.py", "    depth = 2", "    depth = 3") + rewrite("train.py#build", "def build(): pass")
    assert "two blocks change line 9" in reason(reply)


def test_a_rewrite_of_a_file_with_several_regions_must_name_one() -> None:
    assert "REWRITE needs the region: train.py#build, train.py#weights" in reason(rewrite("train.py", "x = 1"))


def test_every_wrong_file_is_told_at_once() -> None:
    told = reason(rewrite("score.py", "x") + rewrite("../y.py", "x") + block("model.py", "c", "d"))
    assert len(told.split("\n")) == 3


# --- refused: what would come of it -----------------------------------------------------------------------------------


def test_text_that_is_no_python_is_refused_with_its_line() -> None:
    told = reason(block("train.py", "    depth = 2", "    depth = = 3"))
    assert "line 9: invalid syntax ('depth = = 3')" in told


@pytest.mark.parametrize(
    "text", ["return 1", "x = " + "(" * 500, "# coding: latin-1\nx = 1", "x = 1\nfrom __future__ import x"]
)
def test_text_that_python_would_not_run_is_refused(text: str) -> None:
    assert "no valid Python: line" in reason(rewrite("model.py", text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "def other(): pass",
        "def build(): pass\nx = 1",
        "import os\ndef build(): pass",
        "def build(): pass\ndef load(): pass",
        "def build(): pass\ndef build(): pass",
        "def build(): pass\n# more",
        "if 1:\n    def build(): pass",
    ],
)
def test_a_function_stays_the_one_function(text: str) -> None:
    told = reason(rewrite("train.py#build", text))
    assert "regions must stay" in told or "nothing beside it" in told


@pytest.mark.parametrize(
    "around, text",
    [
        (("def f():", '    # """', "    return w"), '    w = """'),
        (("x = f(", ")"), "1)\nevil("),
        (("def f():", "    return w"), "    w = 1\ndef evil():\n    w = 2"),
        (("def f():", "    return w"), "    w = 1\n    def g(): pass\n    return 5\ndef evil():\n    w = 2"),
        (("class A:", "    def f(self): pass"), "    w = 1\nclass B:\n    w = 2"),
        (("def f():", "    if w:", "        w = 2"), "    w = 1\n    for w in w:\n      pass\ndef g():\n    w = 2"),
    ],
)
def test_what_is_opened_in_a_region_may_not_reach_out(around: tuple[str, ...], text: str) -> None:
    inside = "    1" if text.startswith("1)") else "    w = 1"
    body = "\n".join([around[0], "    # llmhpo: begin r", inside, "    # llmhpo: end", *around[1:], ""])
    assert "reaches out of its region" in reason(rewrite("a.py#r", text), files={"a.py": body}, specs=["a.py#r"])


@pytest.mark.parametrize("char", ["\x01", "\x1b", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\ud800", "\x0c"])
def test_characters_that_are_not_seen_are_refused(char: str) -> None:
    told = reason(rewrite("model.py", f"x = '{char}'"))
    assert f"U+{ord(char):04X}" in told


@pytest.mark.parametrize("char, told", [("\r", "carriage returns"), ("\0", "NUL")])
def test_a_carriage_return_or_nul_is_refused(char: str, told: str) -> None:
    assert told in reason(rewrite("model.py", f"x = 1{char}y = 2"))


def test_a_character_that_was_there_before_may_stay() -> None:
    files = {"a.py": "x = '\u200b'\ny = 1\n"}
    assert isinstance(apply(block("a.py", "y = 1", "y = 2"), files=files, specs=["a.py"]), dict)


def test_case_68_a_rewrite_of_10000_lines_is_refused() -> None:
    told = reason(rewrite("model.py", "\n".join(f"x{i} = {i}" for i in range(10_000))))
    assert "adds 10000 lines" in told


def test_a_file_that_grows_too_large_is_refused() -> None:
    assert "at most 1000 are taken" in reason(rewrite("model.py", f"x = '{'y' * 2000}'"), max_bytes=1000)


def test_an_edit_that_changes_nothing_is_refused() -> None:
    assert "changes nothing" in reason(block("train.py", "    depth = 2", "    depth = 2"))


def test_a_file_is_not_emptied() -> None:
    assert "nothing would be left" in reason(rewrite("model.py", ""))


# --- declared hyperparameters -----------------------------------------------------------------------------------------


def declare(name: str) -> str:
    return f'```hyperparameters\n[{name}]\ntype = "float"\nlow = 0.0\nhigh = 1.0\ndefault = 0.5\n```\n'


def test_a_declared_hyperparameter_must_be_named_in_the_code() -> None:
    assert "does not name it" in reason(rewrite("model.py", "x = 1") + declare("dropout"))


def test_a_declared_hyperparameter_must_not_clash() -> None:
    assert "'lr' exists already" in reason(rewrite("model.py", "lr = 1") + declare("lr"))


def test_a_declared_hyperparameter_that_contradicts_the_space_is_refused() -> None:
    reply = rewrite("model.py", "drop = 1") + declare("drop").replace("\n```\n", "\nwhen = { gone = 1 }\n```\n")
    assert "depends on 'gone'" in reason(reply)


# --- properties -------------------------------------------------------------------------------------------------------

odd = ["x = (", '"""', "# llmhpo: end", "\x00", "def f():", "", "    w = 1 + (", "  bad indent"]
fit = ["    w = [1]", "    depth = 3", "    # a comment", "    def inner(): pass", "    if depth: pass", "", "    pass"]
plain = ["a = 1", "b = 2", "def f(): pass", "", "# c"]
wild = st.builds(
    Change,
    path=st.sampled_from([*FILES, "new/x.py", "../x", "nope.py"]),
    name=st.sampled_from(["", "build", "weights", "load", "nope"]),
    search=st.none() | st.sampled_from(TRAIN.split("\n")).map(lambda line: (line,)),
    replace=st.lists(st.sampled_from([*TRAIN.split("\n"), *odd]), max_size=6).map(tuple),
)
likely = st.one_of(
    st.builds(
        Change,
        path=st.just("train.py"),
        name=st.sampled_from(["", "build", "weights"]),
        search=st.sampled_from([("    depth = 2",), ("        1,",), ("    w = [", "        1,", "    ]")]),
        replace=st.lists(st.sampled_from([*fit, *odd[:1]]), max_size=4).map(tuple),
    ),
    st.builds(
        Change,
        path=st.sampled_from(["model.py", "win.py", "new/x.py"]),
        name=st.just(""),
        search=st.none() | st.just(("b = 2",)),
        replace=st.lists(st.sampled_from(plain), max_size=5).map(tuple),
    ),
)
outside = st.builds(
    Change,
    path=st.sampled_from(["train.py", "train.py", "score.py"]),
    name=st.just(""),
    search=st.none()
    | st.sampled_from([("METRIC = 1",), ("# the data",), ("    return 1",), ("import json",), ("def load():",)]),
    replace=st.lists(st.sampled_from(["# mine", "x = 1", "    return 2", ""]), max_size=2).map(tuple),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(likely | wild | outside, min_size=1, max_size=3))
def test_bytes_outside_of_the_regions_never_change(many: list[Change]) -> None:
    editable = Editable.of(SPECS, FILES)
    changed = apply_edit(FILES, editable, Edit(tuple(many)), space=SPACE)
    if isinstance(changed, EditError):
        assert changed.reasons
        return
    for path, text in changed.items():
        assert editable.allows(path)
        if path in FILES:
            assert protected(editable, path, text) == protected(editable, path, FILES[path])


def protected(editable: Editable, path: str, text: str) -> list[str]:
    """The pieces of a file between its regions, line ends included."""
    lines = text.split("\n")
    pieces, at = [], 0
    for span in editable.spans_of(path, text):
        pieces.append("\n".join(lines[at : span.start]))
        at = span.stop
    return [*pieces, "\n".join(lines[at:])]

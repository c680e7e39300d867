import os
from pathlib import Path

import pytest

from llmhpo.errors import ConfigError
from llmhpo.scoring.base import Scoring, Split
from llmhpo.scoring.seals import Seal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "score.py").write_text("def score(p, y):\n    return 0.0\n\nmean = score\n")
    for name in ("x", "y", "x2", "y2"):
        (tmp_path / f"{name}.npy").write_bytes(b"0")
    return tmp_path


GOOD = {
    "search": {"inputs": "x.npy", "labels": "y.npy", "shape": [10, -1]},
    "test": {"inputs": "x2.npy", "labels": "y2.npy"},
}


def test_a_table_becomes_paths_from_its_folder(folder):
    scoring = Scoring.of("score.py#mean", GOOD, folder=folder)
    assert (scoring.script, scoring.function) == (folder / "score.py", "mean")
    assert scoring.split("search") == Split(folder / "x.npy", folder / "y.npy", (10, None))


def test_what_a_job_must_not_see_is_all_but_the_inputs_of_its_split(folder):
    scoring = Scoring.of("score.py", GOOD, folder=folder)
    names = {path.name for path in scoring.hidden("search")}
    assert names == {"score.py", "y.npy", "y2.npy", "x2.npy"}
    assert {path.name for path in scoring.hidden()} == names | {"x.npy"}


def test_without_splits_every_split_is_an_empty_one(folder):
    assert Scoring.of("score.py", folder=folder).split("promotion") == Split()


def test_a_split_that_is_not_declared_is_named(folder):
    with pytest.raises(ConfigError, match=r"no split 'promotion'.*\[splits.promotion\]"):
        Scoring.of("score.py", GOOD, folder=folder).split("promotion")


@pytest.mark.parametrize(
    "scorer, splits, words",
    [
        ("none.py", {}, "none.py' cannot be read"),
        ("", {}, "names no file"),
        ("score.py#scores", {}, r"defines no 'scores'; write def scores\(predictions, labels\)"),
        ("x.npy", {}, "defines no 'score'"),
        ("score.py", {"serch": {}}, "no 'search'"),
        ("score.py", GOOD | {"promote": {}}, "'promote', which is no split; did you mean 'promotion'"),
        ("score.py", {"search": {"label": "y.npy"}}, "did you mean 'labels'"),
        ("score.py", {"search": {"labels": "z.npy"}}, "splits.search.labels=.*z.npy' is no file"),
        ("score.py", {"search": {"labels": 3}}, "splits.search.labels=3 is no path"),
        ("score.py", {"search": 3}, "splits.search=3 is no table"),
        ("score.py", 3, "splits=3 is no table"),
        ("score.py", {"search": {"inputs": "y.npy", "labels": "y.npy"}}, "a file of their own"),
        ("score.py", GOOD | {"promotion": {"inputs": "y2.npy"}}, "a file of their own"),
        ("score.py", {"search": {"inputs": "score.py"}}, "a file of their own"),
        ("score.py", {"search": {"shape": [3.5]}}, r"shape=\[3.5\] is no shape"),
        ("score.py", {"search": {"shape": 10}}, "shape=10 is no shape"),
    ],
    ids=range(16),
)
def test_a_mistake_names_value_place_and_remedy(folder, scorer, splits, words):
    with pytest.raises(ConfigError, match=words):
        Scoring.of(scorer, splits, folder=folder)


def test_a_scorer_that_is_no_python_is_refused_before_anything_runs(folder):
    (folder / "score.py").write_text("def score(:")
    with pytest.raises(ConfigError, match="not valid Python"):
        Scoring.of("score.py", folder=folder)


@pytest.mark.parametrize("name", ["predictions.pkl", "../p.npy", "a/b.npy", "npy"])
def test_predictions_in_another_format_or_folder_are_refused(folder, name):
    with pytest.raises(ConfigError, match="predictions="):
        Scoring.of("score.py", folder=folder, file=name)


def test_a_link_to_the_labels_is_the_labels(folder):
    (folder / "link.npy").symlink_to("y.npy")
    with pytest.raises(ConfigError, match="a file of their own"):
        Scoring.of("score.py", {"search": {"inputs": "link.npy", "labels": "y.npy"}}, folder=folder)


# --- seals ------------------------------------------------------------------------------------------------------------


def rewrite(path: Path) -> None:
    path.write_bytes(b"other")


def rewrite_with_the_old_time(path: Path) -> None:
    about = path.stat()
    path.write_bytes(b"1")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"1")
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [rewrite, rewrite_with_the_old_time, replace, Path.unlink])
def test_a_changed_file_breaks_its_seal(folder, change):
    seal = Seal.of(folder / "y.npy")
    change(folder / "y.npy")
    assert "y.npy" in seal.broken()


@pytest.mark.parametrize("touch", [lambda path: None, Path.touch, lambda path: path.write_bytes(b"0")])
def test_a_file_of_the_same_contents_keeps_its_seal(folder, touch):
    seal = Seal.of(folder / "y.npy")
    touch(folder / "y.npy")
    assert seal.broken() == ""


def test_a_large_file_is_told_by_its_times_and_then_by_its_contents(tmp_path):
    path = tmp_path / "large.npy"
    path.write_bytes(bytes(5 << 20))
    seal = Seal.of(path)
    assert seal.broken() == ""
    path.touch()
    assert seal.broken() == ""
    with path.open("r+b") as file:
        file.write(b"1")
    os.utime(path, ns=(seal.about[1], seal.about[1]))
    assert "was changed while the study ran" in seal.broken()

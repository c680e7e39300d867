"""Revisions written into the user's own tree, through kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kills import killed_at, points

from llmhpo.code.apply import apply_changes, changes_of, is_applied, settle, unfinished, unlike
from llmhpo.code.lineage import Lineage
from llmhpo.errors import ConfigError, StoreError

NEW = {"a.py": "a = 2\n", "b.py": "b = 2\n", "sub/c.py": "c = 2\n", "sub/new.py": "n\n"}


class Bench:
    """A tree, its lineage with one edit, and the folder of the study."""

    def __init__(self, folder: Path) -> None:
        self.root, self.directory = folder / "project", folder / "study"
        (self.root / "sub").mkdir(parents=True)
        self.reset()
        self.lineage = Lineage(folder / "code.git")
        baseline = self.lineage.baseline(self.root)
        self.changes = changes_of(self.lineage, baseline, self.lineage.commit(baseline, NEW))

    def reset(self) -> None:
        for name in ("a.py", "b.py", "sub/c.py"):
            (self.root / name).write_text(f"{Path(name).stem} = 1\n")
        (self.root / "sub" / "new.py").unlink(missing_ok=True)

    def apply(self) -> None:
        apply_changes(self.directory, self.root, 7, self.changes)

    def files(self) -> dict[str, str]:
        return {str(p.relative_to(self.root)): p.read_text() for p in self.root.rglob("*") if p.is_file()}


OLD = {"a.py": "a = 1\n", "b.py": "b = 1\n", "sub/c.py": "c = 1\n"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_files_are_written_and_nothing_is_left_beside_them(bench: Bench) -> None:
    bench.apply()
    assert bench.files() == NEW
    assert unfinished(bench.directory) is None


def test_rights_of_a_file_stay(bench: Bench) -> None:
    (bench.root / "a.py").chmod(0o750)
    bench.apply()
    assert (bench.root / "a.py").stat().st_mode & 0o777 == 0o750


def test_a_file_that_the_user_changed_keeps_all_from_being_written(bench: Bench) -> None:
    (bench.root / "b.py").write_text("mine\n")
    assert unlike(bench.root, bench.changes) == ["b.py"]
    with pytest.raises(ConfigError, match=r"'b\.py'"):
        bench.apply()
    assert bench.files() == OLD | {"b.py": "mine\n"}


@pytest.mark.parametrize("linked", ["a.py", "sub"])
def test_nothing_is_written_through_a_link(bench: Bench, tmp_path: Path, linked: str) -> None:
    (bench.root / linked).rename(tmp_path / "elsewhere")
    (bench.root / linked).symlink_to(tmp_path / "elsewhere")
    assert all(path.startswith(linked) for path in unlike(bench.root, bench.changes))
    with pytest.raises(ConfigError):
        bench.apply()


def test_a_file_that_was_removed_is_one_that_was_changed(bench: Bench) -> None:
    (bench.root / "a.py").unlink()
    assert unlike(bench.root, bench.changes) == ["a.py"]


def test_a_new_file_does_not_overwrite_one_of_the_users(bench: Bench) -> None:
    (bench.root / "sub" / "new.py").write_text("mine\n")
    assert unlike(bench.root, bench.changes) == ["sub/new.py"]


def test_applying_again_writes_nothing(bench: Bench) -> None:
    bench.apply()
    before = (bench.root / "a.py").stat().st_ino
    bench.apply()
    assert (bench.root / "a.py").stat().st_ino == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(bench: Bench) -> None:
    (bench.root / "sub").chmod(0o500)
    with pytest.raises(StoreError, match=r"llmhpo apply 7 again"):
        bench.apply()


def test_a_kill_leaves_each_file_old_or_new_and_the_next_run_ends_the_work(bench: Bench) -> None:
    halves = 0
    for step in points(bench.apply, 80, bench.reset):
        bench.reset()
        killed_at(step, bench.apply)
        seen = {name: text for name, text in bench.files().items() if not name.endswith("draft")}
        assert all(text in (OLD.get(name), NEW[name]) for name, text in seen.items())
        is_half = seen not in (OLD, NEW)
        halves += is_half
        if is_half:
            assert unfinished(bench.directory) == (7, bench.root)
        if unfinished(bench.directory):
            settle(bench.directory, bench.root, 7, bench.changes)
        assert bench.files() in (OLD, NEW)
        assert is_half is False or is_applied(bench.root, bench.changes)
        assert unfinished(bench.directory) is None
    assert halves > 0


def test_a_tree_that_the_user_has_put_right_is_left_alone(bench: Bench) -> None:
    (bench.directory).mkdir()
    (bench.directory / "apply.json").write_text('{"trial": 7, "root": "x"}')
    assert settle(bench.directory, bench.root, 7, bench.changes) is False
    assert bench.files() == OLD
    assert unfinished(bench.directory) is None

"""Revisions in a repository of their own, through kills, hostile settings and odd files."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest
from disks import FILLING, run_on_small_disk
from kills import killed_at, points

from llmhpo.code.git import LOCK_S
from llmhpo.code.lineage import Lineage
from llmhpo.errors import ConfigError, StoreError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "deep").mkdir(parents=True)
    (root / "train.py").write_text("x = 1\n")
    (root / "deep" / "a.py").write_bytes(b"y = 1\r\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "weights.bin").write_bytes(bytes(range(256)))
    (root / "link.py").symlink_to("train.py")
    return root


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(tmp_path / "runs" / "s" / "code.git")


def tree(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): str(p.readlink())
        if p.is_symlink()
        else p.read_bytes() + bytes([p.stat().st_mode & 0o100])
        for p in folder.rglob("*")
        if p.is_symlink() or p.is_file()
    }


# --- what a revision holds --------------------------------------------------------------------------------------------


def test_a_checkout_is_the_tree_as_it_stood(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    before = tree(root)
    baseline = lineage.baseline(root)
    (root / "train.py").write_text("x = 2\n")
    lineage.checkout(baseline, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_a_revision_is_its_parent_with_some_files_changed(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    baseline = lineage.baseline(root)
    revision = lineage.commit(baseline, {"train.py": "x = 3\n", "new/b.py": "z\n", "run.sh": "#!/bin/bash\n"})
    lineage.checkout(revision, tmp_path / "out")
    changed = {"train.py": b"x = 3\n\0", "new/b.py": b"z\n\0", "run.sh": b"#!/bin/bash\n\x40"}
    assert tree(tmp_path / "out") == tree(root) | changed


def test_the_baseline_stays_what_it_was(lineage: Lineage, root: Path) -> None:
    baseline = lineage.baseline(root)
    (root / "train.py").write_text("x = 2\n")
    assert lineage.baseline(root) == baseline


def test_the_same_edit_is_the_same_revision_also_in_another_repository(
    lineage: Lineage, root: Path, tmp_path: Path
) -> None:
    other = Lineage(tmp_path / "other.git")
    ids = [one.commit(one.baseline(root), {"train.py": "x = 3\n"}, note="wider") for one in (lineage, other, lineage)]
    assert len(set(ids)) == 1


def test_another_note_or_parent_is_another_revision(lineage: Lineage, root: Path) -> None:
    baseline = lineage.baseline(root)
    one = lineage.commit(baseline, {"train.py": "x = 3\n"}, note="a")
    assert lineage.commit(baseline, {"train.py": "x = 3\n"}, note="b") != one
    assert lineage.commit(one, {"train.py": "x = 3\n"}, note="a") != one


def test_texts_are_given_without_links_and_binary_files(lineage: Lineage, root: Path) -> None:
    (root / "latin.txt").write_bytes(b"\xe9")
    files = lineage.files(lineage.baseline(root))
    assert files == {"train.py": "x = 1\n", "deep/a.py": "y = 1\r\n", "run.sh": "#!/bin/sh\n"}


def test_texts_may_be_asked_for_by_path(lineage: Lineage, root: Path) -> None:
    assert lineage.files(lineage.baseline(root), ["train.py", "gone.py"]) == {"train.py": "x = 1\n"}


def test_odd_names_and_contents_come_back(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    for name in ('q"uote', "new\nline", "back\\slash", "s p", "ünï", "-dash", os.fsdecode(b"\xff")):
        (root / name).write_bytes(name.encode(errors="surrogateescape") + b"\r\n\0done\n")
    lineage.checkout(lineage.baseline(root), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(root)


def test_attributes_of_the_project_change_no_byte(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    (root / ".gitattributes").write_text("* text eol=crlf ident\n*.py export-ignore filter=lfs\n")
    lineage.checkout(lineage.baseline(root), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(root)


# --- what is left out -------------------------------------------------------------------------------------------------


def test_what_is_ignored_and_the_runs_stay_out(lineage: Lineage, root: Path) -> None:
    (root / ".gitignore").write_text("*.log\n")
    (root / "deep" / ".llmhpoignore").write_text("secret.py\n")
    for name in ("a.log", "deep/secret.py", ".env", "runs/s/x.py", "out/y.py", ".git/config", "data/d.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("z")
    names = set(lineage.blobs(lineage.baseline(root, leave_out=[Path("data"), root / "out"])))
    assert names == {".gitignore", "deep/.llmhpoignore", "deep/a.py", "link.py", "run.sh", "train.py", "weights.bin"}


def test_the_repository_itself_stays_out(root: Path) -> None:
    lineage = Lineage(root / "here" / "code.git")
    assert not any("code.git" in name for name in lineage.blobs(lineage.baseline(root)))


def test_a_tree_that_is_too_large_is_refused_with_the_remedy(lineage: Lineage, root: Path) -> None:
    (root / "big.bin").write_bytes(b"x" * 3000)
    with pytest.raises(ConfigError, match=r"snapshot of the code \(largest so far: 'big\.bin'.*\.llmhpoignore.*`data`"):
        lineage.baseline(root, limit_bytes=2000)


def test_links_stay_in_a_copy_of_the_tree_and_lead_where_they_led(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("o")
    (root / "deep" / "whole").symlink_to(root / "train.py")
    (root / "deep" / "away").symlink_to("../../outside")
    out = tmp_path / "far" / "out"
    lineage.checkout(lineage.baseline(root), out)
    assert (out / "deep" / "whole").readlink() == Path("../train.py")
    assert (out / "deep" / "away").read_text() == "o"


# --- what cannot be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["link.py", "folder/x.py", "train.py/x.py", "deep", "../x.py", "/x.py", ".git/config", "a//b"]
)
def test_links_and_clashes_are_refused(lineage: Lineage, root: Path, path: str) -> None:
    (root / "folder").symlink_to("deep")
    baseline = lineage.baseline(root)
    with pytest.raises(ConfigError, match=r"link|file|project|form|hidden"):
        lineage.commit(baseline, {path: "x"})


@pytest.mark.parametrize("revision", ["", "--output=/tmp/x", "HEAD", "refs/baseline", "0" * 39])
def test_what_is_no_revision_is_refused(lineage: Lineage, root: Path, revision: str) -> None:
    lineage.baseline(root)
    with pytest.raises(ConfigError, match="no revision"):
        lineage.files(revision)


def test_a_revision_that_is_not_there_is_told(lineage: Lineage, root: Path) -> None:
    lineage.baseline(root)
    with pytest.raises(StoreError, match="git ls-tree failed"):
        lineage.files("0" * 40)


def test_a_machine_without_git_is_told_what_to_install(
    lineage: Lineage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"needs git.*apt-get install git"):
        lineage.baseline(root)


# --- checkout ---------------------------------------------------------------------------------------------------------


def test_a_second_checkout_leaves_the_folder_as_it_is(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    baseline, out = lineage.baseline(root), tmp_path / "out"
    lineage.checkout(baseline, out)
    before = out.stat().st_ino
    lineage.checkout(baseline, out)
    assert out.stat().st_ino == before


@pytest.mark.parametrize("change", ["other", "extra", "missing", "mode", "link"])
def test_a_folder_that_holds_something_else_is_not_touched(
    lineage: Lineage, root: Path, tmp_path: Path, change: str
) -> None:
    baseline, out = lineage.baseline(root), tmp_path / "out"
    lineage.checkout(baseline, out)
    place = out / ("new.py" if change == "extra" else "train.py")
    if change == "mode":
        place.chmod(0o755)
    elif change in ("missing", "link"):
        place.unlink()
        if change == "link":
            place.symlink_to(root / "train.py")
    else:
        place.write_text("x = 2\n")
    with pytest.raises(ConfigError, match=rf"not empty, and not this revision \('{place.name}' differs\)"):
        lineage.checkout(baseline, out)


def test_a_folder_behind_a_link_is_no_part_of_a_revision(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    baseline, out = lineage.baseline(root), tmp_path / "out"
    lineage.checkout(baseline, out)
    (out / "deep").rename(tmp_path / "moved")
    (out / "deep").symlink_to(tmp_path / "moved")
    assert lineage.changed(baseline, out) == ["deep/a.py"]


def test_an_empty_folder_is_filled(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lineage.checkout(lineage.baseline(root), tmp_path / "out")
    assert (tmp_path / "out" / "train.py").is_file()


# --- diff and log -----------------------------------------------------------------------------------------------------


def test_a_diff_is_one_that_patch_reads(lineage: Lineage, root: Path) -> None:
    baseline = lineage.baseline(root)
    revision = lineage.commit(baseline, {"train.py": "x = 3\n", "new.py": "a\n"})
    done = subprocess.run(
        ["git", "apply", "-"], input=lineage.diff(baseline, revision), text=True, cwd=root, check=True
    )
    assert done.returncode == 0
    assert (root / "train.py").read_text() == "x = 3\n"
    assert (root / "new.py").read_text() == "a\n"


def test_the_log_tells_parents_notes_and_trials(lineage: Lineage, root: Path) -> None:
    baseline = lineage.baseline(root)
    one = lineage.commit(baseline, {"train.py": "x = 3\n"}, note="wider\nand deeper", trial=4)
    two = lineage.commit(one, {"train.py": "x = 4\n"}, note="")
    lineage.note_trial(one, 7)
    assert [tuple(entry) for entry in lineage.log()] == [
        (baseline, "", "baseline", ()),
        (one, baseline, "wider\nand deeper", (4, 7)),
        (two, one, "", ()),
    ]
    assert lineage.parent(two) == one


def test_a_study_without_edits_has_an_empty_log(lineage: Lineage) -> None:
    assert lineage.log() == []


# --- nothing of the user's git ----------------------------------------------------------------------------------------


def test_settings_hooks_and_environment_of_the_user_do_nothing(
    lineage: Lineage, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, trap = tmp_path / "home", tmp_path / "trap"
    (home / "hooks").mkdir(parents=True)
    for hook in ("reference-transaction", "post-checkout"):
        (home / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {trap}\nexit 1\n")
        (home / "hooks" / hook).chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\nhooksPath = {home}/hooks\nautocrlf = true\n[user]\nname = me\n[diff]\nexternal = touch {trap}\n"
    )
    for name, value in {
        "HOME": str(home), "GIT_DIR": str(root / ".git"), "GIT_WORK_TREE": str(root), "GIT_INDEX_FILE": "x",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": str(home / "hooks"),
        "GIT_AUTHOR_NAME": "me", "GIT_EXTERNAL_DIFF": f"touch {trap}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    baseline = lineage.baseline(root)
    revision = lineage.commit(baseline, {"train.py": "x = 3\n"})
    lineage.checkout(revision, tmp_path / "out")
    assert "+x = 3" in lineage.diff(baseline, revision)
    assert not trap.exists()
    assert not (root / ".git").exists()


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def test_a_commit_that_is_killed_is_made_again_as_the_same_one(root: Path, tmp_path: Path) -> None:
    def make(directory: Path) -> str:
        lineage = Lineage(directory)
        return lineage.commit(lineage.baseline(root), {"train.py": "x = 3\n"}, note="n", trial=1)

    expected = make(tmp_path / "whole.git")
    steps = points(lambda: make(tmp_path / f"{time.time_ns()}.git"), 40)
    for step in steps:
        directory = tmp_path / f"at{step}.git"
        killed_at(step, lambda directory=directory: make(directory))  # type: ignore[misc]
        log = Lineage(directory).log()
        assert all(entry.id in (expected, log[0].id) for entry in log)
        assert make(directory) == expected
        assert Lineage(directory).log()[-1].trials == (1,)


def test_a_commit_survives_its_git_being_killed(root: Path, tmp_path: Path) -> None:
    lineage = Lineage(tmp_path / "code.git")
    baseline = lineage.baseline(root)
    rng = random.Random(1)
    for number in range(15):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                Lineage(lineage.directory).commit(baseline, {"train.py": f"x = {number}\n"})
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, 0.04))
        for child in [*children_of(pid), pid]:
            with contextlib.suppress(ProcessLookupError):  # a child may have ended by itself
                os.kill(child, signal.SIGKILL)
        os.waitpid(pid, 0)
        for lock in lineage.directory.rglob("*.lock"):  # as old as it would be when someone comes back
            os.utime(lock, (time.time() - 60, time.time() - 60))
        revision = lineage.commit(baseline, {"train.py": f"x = {number}\n"})
        assert lineage.files(revision, ["train.py"]) == {"train.py": f"x = {number}\n"}
    assert (
        subprocess.run(["git", "fsck", "--strict"], cwd=lineage.directory, capture_output=True, check=False).returncode
        == 0
    )


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_a_lock_that_a_killed_git_left_is_removed(
    lineage: Lineage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmhpo.code.git._SETTINGS", ("core.filesRefLockTimeout=10",))
    baseline = lineage.baseline(root)
    lineage.note_trial(baseline, 1)
    lock = lineage.directory / "refs" / "trials" / "2.lock"
    lock.touch()
    with pytest.raises(StoreError, match="lock"):
        lineage.note_trial(baseline, 2)
    os.utime(lock, (time.time() - 2 * LOCK_S,) * 2)
    lineage.note_trial(baseline, 2)
    assert lineage.log()[0].trials == (1, 2)


def test_a_checkout_that_is_killed_leaves_nothing_or_all(lineage: Lineage, root: Path, tmp_path: Path) -> None:
    for number in range(5):
        (root / f"m{number}.py").write_text("x\n" * number)
    baseline = lineage.baseline(root)
    lineage.blobs(baseline)
    folder = tmp_path / "outs"
    for step in points(lambda: lineage.checkout(baseline, tmp_path / f"{time.time_ns()}"), 60):
        out = folder / "out"
        killed_at(step, lambda: lineage.checkout(baseline, folder / "out"))
        assert not out.exists() or lineage.changed(baseline, out, added=True) == []
        lineage.checkout(baseline, out)
        assert tree(out) == tree(root)
        assert [p.name for p in folder.iterdir()] == ["out"]
        out.rename(tmp_path / f"done{step}")


# --- a full disk ------------------------------------------------------------------------------------------------------

FULL = textwrap.dedent(
    """
    from llmhpo.code.lineage import Lineage
    root, lineage = Path(sys.argv[2]), Lineage(folder / "code.git")
    fill()
    baseline = lineage.baseline(root)
    fill()
    revision = lineage.commit(baseline, {"big.py": "".join(f"x{i} = {i * i}\\n" for i in range(20000))}, trial=1)
    fill()
    lineage.checkout(revision, folder / "out")
    print("ALL", len(lineage.log()), lineage.changed(revision, folder / "out", added=True), os.listdir(folder))
    """
)


def test_a_full_disk_is_waited_out(root: Path, tmp_path: Path) -> None:
    run = run_on_small_disk(tmp_path, "3m", FILLING + FULL, str(root))
    told = [line for line in run.stdout.splitlines() if "the disk is full" in line]
    assert len(told) == 3, run.stdout + run.stderr
    assert "ALL 2 []" in run.stdout

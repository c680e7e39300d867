"""The folder that a job of edited code runs in: a revision, checked out for it alone, read-only, and checked afterwards."""

from __future__ import annotations

import glob
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmhpo.code.git import blob_id
from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.errors import ConfigError, StoreError
from llmhpo.executors.base import Job
from llmhpo.executors.supervisor import REMOVAL
from llmhpo.scoring.base import Scoring

_SUFFIX = ".code"  # of the folder beside the job's own
SCRATCH = "scratch"  # in the job's folder: what `writable` names lies there
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Workspace:
    """How revisions of the tree `root` are laid out for jobs.

    A job finds `data` where it lies in `root`, by links, read-only. `writable` are folders in `root` that its script writes
    into: each is a link to a folder of the job's own, which begins with what the revision has there. What `editable` does not
    name is protected: it is in every revision as it is in the `baseline`.

    Raises: ConfigError for data that is not there, for a writable folder outside of `root` or with code that may change, and
    where the baseline holds the labels or inputs of `scoring`.
    """

    lineage: Lineage
    root: Path
    baseline: str
    editable: Editable
    data: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    scoring: Scoring | None = None

    def __post_init__(self) -> None:
        for path in self.data:
            if not path.exists():
                raise ConfigError(f"data {str(path)!r} does not exist; correct the path")
        for path in self.writable:
            if path == self.root or not self._holds(path):
                raise ConfigError(
                    f"writable {str(path)!r} is no folder inside {str(self.root)!r}; name one of the project's"
                )
            name = path.relative_to(self.root).as_posix()
            if edited := [p for p in self.editable.paths(self.lineage.blobs(self.baseline)) if _is_in(p, name)]:
                raise ConfigError(
                    f"writable {str(path)!r} holds {edited[0]!r}, which is editable; a job may not write code"
                )
        for path in () if self.scoring is None else self.scoring.hidden():
            if self.scoring and path != self.scoring.script and (copy := self._copy_of(path)):
                raise ConfigError(
                    f"{str(path)!r} must stay unseen, but the snapshot of the code holds it as {copy!r}; name it as `data`, or "
                    "list it in .llmhpoignore"
                )

    def objection(self, revision: str) -> str:
        """What of a revision is protected and yet not as in the baseline, in one line; "" where all is well."""
        mine, base = self.lineage.blobs(revision), self.lineage.blobs(self.baseline)
        bad = [
            path
            for path in sorted({*mine, *base})
            if mine.get(path) != base.get(path) and not self.editable.allows(path)
        ]
        return f"revision {revision[:8]} changes {bad[0]!r}, which is not editable" if bad else ""

    def make(self, job: Job) -> Job:
        """Lay out the code of `job` beside its folder; the job as it is run there.

        Raises: ConfigError, StoreError where it cannot be written.
        """
        _sweep(job.directory.absolute())
        tree = job.directory.absolute().with_name(f"{job.directory.name}{_SUFFIX}")
        scratch = job.directory.absolute() / SCRATCH
        remove(scratch)
        self.lineage.checkout(job.code, tree)
        for name in self._lent:
            _lend(tree / name, scratch / name)
        for place, target in self._links(tree):
            if not os.path.lexists(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)
        _protect(tree)
        env = {**job.env, **self._python(job.env, tree), "PYTHONDONTWRITEBYTECODE": "1"}
        return replace(job, tree=tree, env=env, read=(*job.read, *self.data))

    def changed(self, job: Job) -> list[str]:
        """The paths at which the folder of a job that `make` gave is not as the revision any more."""
        assert job.tree is not None
        found = self.lineage.changed(job.code, job.tree)
        return [path for path in found if not any(_is_in(path, name) for name in self._lent)]

    def discard(self, job: Job) -> None:
        """Remove what `make` has laid out; the lineage has it still."""
        if job.tree is not None:
            remove(job.tree)

    def _holds(self, path: Path) -> bool:
        """Whether it lies inside `root` by name, and the folder that it is in truly does."""
        return path.is_relative_to(self.root) and path.parent.resolve().is_relative_to(self.root.resolve())

    @property
    def _lent(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.writable]

    def _links(self, tree: Path) -> Iterator[tuple[Path, Path]]:
        for path in self.data:
            if path.absolute().is_relative_to(self.root) and path.absolute() != self.root:
                yield tree / path.absolute().relative_to(self.root), path.absolute()

    def _python(self, env: Mapping[str, str], tree: Path) -> dict[str, str]:
        """PYTHONPATH with the tree's folders instead of the user's: those that it names, and those of editable installs."""
        named = env.get("PYTHONPATH", os.environ.get("PYTHONPATH", "")).split(os.pathsep)
        installed = [p for p in sys.path[1:] if self._inside(p) and not Path(p).is_relative_to(sys.prefix)]
        moved = [
            str(tree / Path(p).relative_to(self.root)) if self._inside(p) else p for p in (*named, *installed) if p
        ]
        return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(moved))} if moved else {}

    def _inside(self, path: str) -> bool:
        return Path(path).is_absolute() and Path(path).is_relative_to(self.root)

    def _copy_of(self, secret: Path) -> str:
        """The path under which the baseline holds the same bytes as a file; "" where it does not."""
        size = secret.stat().st_size
        alike = {blob.id: path for path, blob in self.lineage.blobs(self.baseline).items() if blob.size == size > 0}
        return alike.get(blob_id(secret.read_bytes()), "") if alike else ""


def _sweep(folder: Path) -> None:
    """Remove what attempts at the same trial that were cut off have left of the code: none of them lives any more."""
    trial = folder.name.partition(".")[0]
    for left in folder.parent.glob(f"*{glob.escape(trial)}*"):
        ends_so = left.name.endswith(_SUFFIX) or (left.name.endswith(".draft") and _SUFFIX in left.name)
        if ends_so and left.name.lstrip(".").partition(".")[0] == trial:
            remove(left)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _lend(place: Path, target: Path) -> None:
    """Make `place` a link to the folder `target`, which takes over what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        place.rename(target)
    else:
        target.mkdir()
        place.unlink(missing_ok=True)
    place.symlink_to(target)


def _protect(tree: Path) -> None:
    """Take away the right to write, from folders last."""
    for top, _, names in os.walk(tree, topdown=False):
        for path in (*(Path(top, name) for name in names), Path(top)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~_WRITABLE)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there, whatever a job made in it, and nothing that a link in it leads to.

    Raises: StoreError where that fails.
    """
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    for words in REMOVAL:
        if folder.exists():
            done = subprocess.run([*words, str(folder)], stderr=subprocess.PIPE, check=False)
    if folder.exists():
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it is still there"]
        raise StoreError(f"{str(folder)!r} cannot be removed: {said[-1][:300]}; remove it by hand")

"""A revision written into the user's own tree: over files that are as they were when the study began, all or, after a kill, on.

Before the first file is touched, what is to be written is noted in the study's folder and all new files lie complete beside
the old ones; then each takes its place by one rename. A kill leaves each file old or new, and the next `apply` ends the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llmhpo.code.lineage import Lineage
from llmhpo.errors import ConfigError, StoreError
from llmhpo.store.storage import sync_folder, write_durably

_NOTE = "apply.json"
_DRAFT = ".llmhpo-draft"


class FileChange(NamedTuple):
    """One file that differs between two revisions; `old` is None where it is new."""

    path: str
    old: bytes | None
    new: bytes


def changes_of(lineage: Lineage, baseline: str, revision: str) -> list[FileChange]:
    """What has to be written over the baseline to have `revision`; edits remove no file."""
    before, after = lineage.blobs(baseline), lineage.blobs(revision)
    paths = [path for path, blob in after.items() if before.get(path) != blob]
    return [
        FileChange(path, lineage.bytes_of(baseline, path), lineage.bytes_of(revision, path) or b"") for path in paths
    ]


def unlike(root: Path, changes: Sequence[FileChange]) -> list[str]:
    """The paths at which the user's tree is neither as before the changes nor as after them; a link is always unlike."""
    return [c.path for c in changes if _is_linked(root, c.path) or _bytes(root / c.path) not in (c.old, c.new)]


def is_applied(root: Path, changes: Sequence[FileChange]) -> bool:
    """Whether the tree has all of the changes."""
    return all(_bytes(root / c.path) == c.new for c in changes)


def apply_changes(directory: Path, root: Path, trial: int, changes: Sequence[FileChange]) -> list[str]:
    """Write the changes into the tree `root`, noting them in the study's folder `directory`; the paths that were written.

    Raises: ConfigError where a file is neither old nor new, nothing being touched then; StoreError where writing fails.
    """
    if other := unlike(root, changes):
        raise ConfigError(f"{other[0]!r} is not as it was when the study began")
    todo = [c for c in changes if _bytes(root / c.path) != c.new]
    try:
        write_durably(directory / _NOTE, json.dumps({"trial": trial, "root": str(root)}))
        for change in todo:
            _stage(root / change.path, change.new)
        for change in todo:
            place = root / change.path
            _draft_of(place).replace(place)
            sync_folder(place.parent)
        (directory / _NOTE).unlink()
    except OSError as error:
        raise StoreError(
            f"{str(root)!r} cannot be written: {error.strerror}; mend that and run llmhpo apply {trial} again to end its work"
        ) from error
    return [c.path for c in todo]


def unfinished(directory: Path) -> tuple[int, Path] | None:
    """Trial and tree of an `apply_changes` that was cut off; None where there is none."""
    try:
        raw = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        return int(raw["trial"]), Path(raw["root"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(directory / _NOTE)!r} cannot be read ({error}); look at the tree, and remove it"
        ) from error


def settle(directory: Path, root: Path, trial: int, changes: Sequence[FileChange]) -> bool:
    """After a cut-off: end the work where some files were written and some not, else forget it; whether it was ended."""
    is_begun = any(_bytes(root / c.path) == c.new for c in changes)
    if is_begun and not is_applied(root, changes) and not unlike(root, changes):
        apply_changes(directory, root, trial, changes)
        return True
    for change in changes:
        _draft_of(root / change.path).unlink(missing_ok=True)
    (directory / _NOTE).unlink(missing_ok=True)
    return False


def _is_linked(root: Path, path: str) -> bool:
    place = root / path
    return any(p.is_symlink() for p in (place, *place.parents) if root in p.parents)


def _bytes(place: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{str(place)!r} cannot be read: {error.strerror}; correct that") from None


def _draft_of(place: Path) -> Path:
    return place.with_name(f".{place.name}{_DRAFT}")


def _stage(place: Path, data: bytes) -> None:
    """Put the new file complete beside the old one, with its rights."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(place)
    draft.unlink(missing_ok=True)  # of an apply that was cut off
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if place.exists():
        shutil.copymode(place, draft)
        with contextlib.suppress(OSError):
            os.chown(draft, place.stat().st_uid, place.stat().st_gid)

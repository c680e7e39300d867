"""Files and links of a folder as a revision keeps them: read, compared, written."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import uuid
from pathlib import Path
from typing import NamedTuple

from llmhpo.code.git import blob_id
from llmhpo.code.listing import IGNORE_FILE
from llmhpo.errors import ConfigError

LINK, PROGRAM, PLAIN = "120000", "100755", "100644"  # git's modes


class Blob(NamedTuple):
    """A file or link of a revision: git's mode, the hash of its bytes, how many they are."""

    mode: str
    id: str
    size: int


def content_of(root: Path, path: Path, name: str) -> tuple[str, str, bytes]:
    """Path, mode and bytes of a file or link of the tree `root`, as a revision keeps them."""
    try:
        if path.is_symlink():
            return name, LINK, os.fsencode(_target(root.absolute(), path))
        return name, PROGRAM if path.stat().st_mode & stat.S_IXUSR else PLAIN, path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read ({error.strerror}); make it readable, or list it in {IGNORE_FILE!r}"
        ) from error


def _target(root: Path, link: Path) -> str:
    """Where a link leads: relative within the tree, so that it stays in a copy of it, and absolute out of it."""
    target = Path(os.path.normpath(link.parent.absolute() / link.readlink()))
    inside = target == root or root in target.parents
    return os.path.relpath(target, link.parent.absolute()) if inside else str(target)


def is_same(folder: Path, path: str, blob: Blob) -> bool:
    """Whether `path` in `folder` is the file or link of a revision, and not behind a link."""
    place = folder / path
    try:
        if any(p.is_symlink() for p in place.parents if folder in p.parents):
            return False
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            return blob.mode == LINK and blob_id(os.fsencode(place.readlink())) == blob.id
        if not stat.S_ISREG(found.st_mode) or found.st_size != blob.size:
            return False
        mode = PROGRAM if found.st_mode & stat.S_IXUSR else PLAIN
        return mode == blob.mode and blob_id(place.read_bytes()) == blob.id
    except OSError:
        return False


def write_entry(place: Path, mode: str, data: bytes) -> None:
    """Write a file or link that is not there yet. Raises: OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if mode == LINK:
        place.symlink_to(os.fsdecode(data))
        return
    with place.open("xb") as file:
        file.write(data)
    if mode == PROGRAM:
        place.chmod(0o755)


def draft_beside(folder: Path) -> Path:
    """A new name beside `folder` to fill and then rename; what a killed process left of such is removed."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.draft"):
        number = left.name.removeprefix(f".{folder.name}.").split(".")[0]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    return folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.draft")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

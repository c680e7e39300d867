"""All revisions of a study's code: commits in a bare git repository of its own, with which the user's git has nothing to do.

A revision's id is that of its commit: a function of its files, parent and note, so that the same edit made again, after a
crash for instance, is the same revision. What is committed is on the disk. Every revision has a reference, so that git keeps it:
`refs/baseline`, `refs/revisions/KEY`, and `refs/trials/N` for the revision that trial N ran.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llmhpo.code.git import LOCK_S, quoted, run_git
from llmhpo.code.listing import CODE_REMEDY, Cap, list_code
from llmhpo.code.regions import path_problem
from llmhpo.code.worktree import LINK, PLAIN, Blob, content_of, draft_beside, is_same, write_entry
from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError, StoreError
from llmhpo.store.storage import sync_folder

CODE_LIMIT = 100 * 10**6  # bytes of a baseline
_MAX_TEXT = 4 << 20  # bytes; what is larger is data, whatever its name says
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git knows it without its being there
_WHO = b"llmhpo <llmhpo@localhost> 1767225600 +0000"  # one time for all: an id says what a revision is, not when it was made


class LogEntry(NamedTuple):
    """One revision in the log of a lineage; `trials` are the numbers of those that ran it."""

    id: str
    parent: str
    note: str
    trials: tuple[int, ...] = ()


class Lineage:
    """The revisions of one study in the bare repository `directory`, which is made at the first write.

    Threads and processes may share it. Raises: ConfigError where git is not installed; StoreError where it fails.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._listed = functools.lru_cache(maxsize=16)(self._list)

    # --- write --------------------------------------------------------------------------------------------------------

    def baseline(self, root: Path, *, leave_out: Iterable[Path] = (), limit_bytes: int = CODE_LIMIT) -> str:
        """The revision that is the tree `root` as it stood at the first call; later calls give the same.

        `leave_out` names what is no code (data, the folder of the runs), beside what .gitignore and .llmhpoignore list.
        Links stay links; one that leads out of the tree is kept with its whole path.

        Raises: ConfigError where a file cannot be read, or the tree is larger than `limit_bytes`.
        """
        self._open()
        if there := self._resolve("refs/baseline"):
            return there
        cap = Cap(limit_bytes, "a snapshot of the code", CODE_REMEDY)
        out = [root / path for path in (*leave_out, self.directory)]
        contents = (content_of(root, path, name) for path, name in list_code(root, out, cap))
        return self._import("refs/baseline", "", "baseline", contents)

    def commit(self, parent: str, files: Mapping[str, str], *, note: str = "", trial: int | None = None) -> str:
        """The revision that is `parent` with the texts of `files` (by path) instead of its own; again, the same one.

        Raises: ConfigError where a path is a link, lies behind one, or is a file where a folder is needed.
        """
        there = self.blobs(parent)
        contents = [(path, _mode(path, there), text.encode()) for path, text in sorted(files.items())]
        key = hashlib.sha256(repr([parent, note, contents]).encode()).hexdigest()[:40]
        name = f"refs/revisions/{key}"
        revision = self._resolve(name) or self._import(name, parent, note, contents)
        if trial is not None:
            self.note_trial(revision, trial)
        return revision

    def note_trial(self, revision: str, trial: int) -> None:
        """Keep that trial number `trial` runs `revision`."""
        name = f"refs/trials/{int(trial)}"
        self._update(name, ["update-ref", name, _checked(revision)], b"")

    # --- read ---------------------------------------------------------------------------------------------------------

    def blobs(self, revision: str) -> dict[str, Blob]:
        """Every file and link of a revision by path."""
        return self._listed(_checked(revision))

    def files(self, revision: str, paths: Collection[str] | None = None) -> dict[str, str]:
        """The texts of a revision by path, of all or of those of `paths` that it has; links and binary files are left out."""
        blobs = self.blobs(revision)
        wanted = [
            path
            for path, blob in blobs.items()
            if blob.mode != LINK and blob.size <= _MAX_TEXT and (paths is None or path in paths)
        ]
        texts = {}
        for path, data in zip(wanted, self._read(blobs[path].id for path in wanted), strict=True):
            with contextlib.suppress(UnicodeDecodeError):
                texts[path] = data.decode()
        return {path: text for path, text in texts.items() if "\0" not in text}

    def bytes_of(self, revision: str, path: str) -> bytes | None:
        """The bytes of one file of a revision (of a link: its target); None where there is none."""
        blob = self.blobs(revision).get(path)
        return None if blob is None else next(self._read([blob.id]))

    def parent(self, revision: str) -> str:
        """The revision that this one was made from; "" for the baseline."""
        return self._git("log", "-1", "--format=%P", _checked(revision)).decode().strip()

    def changed(self, revision: str, folder: Path, *, added: bool = False) -> list[str]:
        """The paths at which `folder` is not as the revision: other bytes, kind or right to run, or nothing there.

        With `added` also those that the revision has not.
        """
        blobs = self.blobs(revision)
        out = [path for path, blob in blobs.items() if not is_same(folder, path, blob)]
        if added:
            for top, folders, names in os.walk(folder):
                links = [n for n in folders if Path(top, n).is_symlink()]
                there = (Path(top, n).relative_to(folder).as_posix() for n in names + links)
                out += [path for path in there if path not in blobs]
        return sorted(out)

    def checkout(self, revision: str, folder: Path) -> None:
        """Make `folder` hold the files of a revision, whole or not at all; one that holds just them is left as it is.

        Raises: ConfigError where there is something else.
        """
        self.blobs(revision)  # a wrong revision is told before anything is touched
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigError(f"{str(folder)!r} is not a folder; give one that is empty or does not exist")
        if folder.exists() and any(folder.iterdir()):
            if other := self.changed(revision, folder, added=True):
                raise ConfigError(
                    f"{str(folder)!r} is not empty, and not this revision ({other[0]!r} differs); give another folder"
                )
            return
        try:
            when_there_is_space(lambda: self._fill(revision, folder), f"{str(folder)!r} cannot be written")
        except OSError as error:
            raise StoreError(
                f"{str(folder)!r} cannot be written: {error.strerror}; correct its access rights, or give another folder"
            ) from error

    def _fill(self, revision: str, folder: Path) -> None:
        blobs = self.blobs(revision)
        draft = draft_beside(folder)
        try:
            draft.mkdir(parents=True)
            for (path, blob), data in zip(blobs.items(), self._read(b.id for b in blobs.values()), strict=True):
                write_entry(draft / path, blob.mode, data)
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def diff(self, a: str, b: str, *, context: int = 3) -> str:
        """What changes from revision `a` ("": nothing at all) to `b`, in the form that patch and git apply read."""
        ends = [_checked(revision) if revision else _EMPTY_TREE for revision in (a, b)]
        out = self._git(
            "diff-tree", "-r", "-p", "--no-renames", "--no-ext-diff", "--no-textconv", f"-U{context}", *ends
        )
        return out.decode(errors="replace")

    def log(self) -> list[LogEntry]:
        """All revisions, parents before their children."""
        if not self.directory.exists():
            return []
        form = "%(refname)%00%(objectname)%00%(parent)%00%(contents)%00"
        fields = self._git("for-each-ref", f"--format={form}").decode(errors="replace").split("\0")
        trials: dict[str, list[int]] = {}
        about: dict[str, tuple[str, str]] = {}
        for name, revision, parent, note in zip(*(fields[i:-1:4] for i in range(4)), strict=True):
            about[revision] = (parent, note.strip())
            if number := re.fullmatch(r"\s*refs/trials/(\d+)", name):
                trials.setdefault(revision, []).append(int(number[1]))
        out: dict[str, LogEntry] = {}
        while len(out) < len(about):  # a parent has a reference of its own, so each round finds some
            ready = [r for r in sorted(about) if r not in out and (about[r][0] in out or not about[r][0])]
            if not ready:
                raise StoreError(f"{str(self.directory)!r} lacks the parent of a revision; restore it from a copy")
            out |= {r: LogEntry(r, *about[r], tuple(sorted(trials.get(r, [])))) for r in ready}
        return list(out.values())

    # --- git ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Make the repository, whole or not at all."""
        if self.directory.exists():
            return

        def make() -> None:
            draft = draft_beside(self.directory)
            try:
                draft.parent.mkdir(parents=True, exist_ok=True)
                run_git(draft, ["init", "--quiet", "--bare", "--template=", str(draft)])
                draft.rename(self.directory)
                sync_folder(self.directory.parent)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)
                if not self.directory.exists():  # else another process was faster
                    raise

        try:
            when_there_is_space(make, f"{str(self.directory)!r} cannot be made")
        except OSError as error:
            raise StoreError(
                f"{str(self.directory)!r} cannot be made: {error.strerror}; correct its access rights"
            ) from error

    def _list(self, revision: str) -> dict[str, Blob]:
        found = {}
        for line in self._git("ls-tree", "-r", "-l", "-z", revision).split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, _, blob, size = about.decode().split()
            found[os.fsdecode(path)] = Blob(mode, blob, int(size))
        return found

    def _resolve(self, name: str) -> str:
        """The revision that a reference names; "" where there is none."""
        return self._git("for-each-ref", "--format=%(objectname)", name).decode().strip()

    def _read(self, ids: Iterable[str]) -> Iterator[bytes]:
        """The bytes of blobs, in order."""
        asked = "".join(f"{blob}\n" for blob in ids)
        out, at = self._git("cat-file", "--batch", given=asked.encode()), 0
        for blob in asked.split():
            end = out.index(b"\n", at)
            kind, _, size = out[at:end].decode().partition(" ")[2].partition(" ")
            if kind != "blob":
                raise StoreError(
                    f"{str(self.directory)!r} lacks the blob {blob}; it is damaged: restore it from a copy"
                )
            yield out[end + 1 : end + 1 + int(size)]
            at = end + 2 + int(size)

    def _import(self, name: str, parent: str, note: str, contents: Iterable[tuple[str, str, bytes]]) -> str:
        """Commit `contents` (path, mode, bytes) on top of `parent`, under the reference `name`."""

        def stream() -> Iterator[bytes]:
            # Without the closing "done", as when this process is killed, git takes nothing of it.
            message = note.encode(errors="replace")
            yield b"feature done\ncommit %s\nmark :1\ncommitter %s\n" % (name.encode(), _WHO)
            yield b"data %d\n%s\n" % (len(message), message)
            if parent:
                yield b"from %s\n" % parent.encode()
            for path, mode, data in contents:
                yield b"M %s inline %s\ndata %d\n" % (mode.encode(), quoted(path), len(data))
                yield data + b"\n"
            yield b"\nget-mark :1\ndone\n"

        words = ["fast-import", "--quiet", "--date-format=raw"]
        return self._update(name, words, b"".join(stream())).decode().strip()

    def _update(self, name: str, words: Sequence[str], given: bytes) -> bytes:
        """Run what writes a reference. A lock that a killed git has left in the way is removed."""

        def write() -> bytes:
            self._sweep(name)
            try:
                return self._git(*words, given=given)
            except StoreError:
                if not self._sweep(name):
                    raise
                return self._git(*words, given=given)

        out = when_there_is_space(write, f"{str(self.directory)!r} cannot be written")
        sync_folder((self.directory / name).parent)  # git itself syncs objects and references, but no folder
        return out

    def _sweep(self, name: str) -> bool:
        """Remove what gits left that were killed or found the disk full; whether a lock on the reference was among it."""
        lock = self.directory / f"{name}.lock"
        left = [*self.directory.glob("fast_import_crash_*"), *self.directory.glob("objects/pack/tmp_*"), lock]
        removed = set()
        for path in left:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= LOCK_S:  # older than any living git's
                    path.unlink()
                    removed.add(path)
        return lock in removed

    def _git(self, *words: str, given: bytes = b"") -> bytes:
        if not self.directory.is_dir():
            raise StoreError(f"{str(self.directory)!r} does not exist: this study has no revisions of its code")
        return run_git(self.directory, words, given)


def _mode(path: str, there: Mapping[str, Blob]) -> str:
    """The mode that `path` has when it is written on top of the files `there`."""
    if problem := path_problem(path):
        raise ConfigError(f"{path!r} {problem}; a revision takes paths inside the project")
    above = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
    if bad := next((p for p in above if p in there), None):
        raise ConfigError(f"{path!r} cannot be written: {bad!r} is a file or link; take another path")
    old = there.get(path)
    if (old is not None and old.mode == LINK) or any(p.startswith(f"{path}/") for p in there):
        raise ConfigError(f"{path!r} cannot be written: it is a link or folder; take another path")
    return PLAIN if old is None else old.mode


def _checked(revision: str) -> str:
    """`revision`, which looks like one. Raises: ConfigError."""
    if not _ID.fullmatch(revision):
        raise ConfigError(f"{revision!r} is no revision of the code; a revision is named by its whole hash")
    return revision

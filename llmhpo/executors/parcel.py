"""What a cluster's nodes are sent once: folders and bytes as archives that are named by their contents."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from llmhpo.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".llmhpoignore"
MAX_FILES = 20_000
_CHUNK = 32 << 20
_SETTLED = 315532800  # 1980: one time for all files, or the same contents would have another name each day
_NEVER = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", ".venv*/", "venv/", "node_modules/", ".ipynb_checkpoints/",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".tox/", "*.egg-info/", ".env", ".env.*", ".netrc", "*.pem",
    "/runs/", "/wandb/", "/mlruns/",
)  # fmt: skip


class Parcel(NamedTuple):
    """An archive (tar) in a temporary file; `digest` is the hash of its contents."""

    digest: str
    file: IO[bytes]

    def chunks(self) -> Iterator[bytes]:
        """The archive in pieces of at most 32 MiB. Closes the file."""
        with self.file as file:
            file.seek(0)
            while piece := file.read(_CHUNK):
                yield piece


class Entry(NamedTuple):
    """A file or link of a folder, and its path in the archive."""

    path: Path
    name: str


def pack_folder(folder: Path, entries: Sequence[Entry], links: Sequence[tuple[str, str]] = ()) -> Parcel:
    """Archive `entries` of `folder`, and `links`, (name, target) pairs. Raises: ConfigError where a file cannot be read."""
    file = tempfile.TemporaryFile(prefix="llmhpo-")  # noqa: SIM115 - the parcel closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        for entry in entries:
            try:
                archive.add(entry.path, entry.name, recursive=False, filter=_plain)
            except OSError as error:
                raise ConfigError(
                    f"{str(entry.path)!r} cannot be sent to the cluster ({error.strerror}); make it readable, or list it in "
                    f"{str(folder / IGNORE_FILE)!r}"
                ) from error
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname, link.mtime = tarfile.SYMTYPE, target, _SETTLED
            archive.addfile(link)
    return _named(file)


def pack_bytes(name: str, data: bytes) -> Parcel:
    """Archive one file."""
    file = tempfile.TemporaryFile(prefix="llmhpo-")  # noqa: SIM115 - the parcel closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(data), _SETTLED
        archive.addfile(info, io.BytesIO(data))
    return _named(file)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime, info.mode = _SETTLED, 0o755 if info.mode & 0o100 else 0o644
    return info


def _named(file: IO[bytes]) -> Parcel:
    file.seek(0)
    return Parcel(hashlib.file_digest(file, "sha256").hexdigest()[:32], file)  # type: ignore[arg-type]


# --- which files ------------------------------------------------------------------------------------------------------


def list_code(folder: Path, data: Iterable[Path], limit_bytes: int) -> list[Entry]:
    """The files of a study's folder, by path: without `data`, version control, caches, `runs`, `.env` and what .gitignore
    or .llmhpoignore (the same language, and stronger) lists, at any depth. Links stay links.

    Raises: ConfigError above `limit_bytes` or `MAX_FILES`; MissingExtraError without pathspec.
    """
    rules = _Rules(folder, frozenset(data))
    remedy = f"list what the job does not need in {IGNORE_FILE!r} or .gitignore, name big data as `data`, or raise code_limit"
    return _collect(folder, rules, limit_bytes, f"the code in {str(folder)!r}", remedy)


def list_data(path: Path, limit_bytes: int) -> list[Entry]:
    """Every file of a folder, or the one file. Raises: ConfigError where there is none, or above `limit_bytes`."""
    if path.is_file():
        size = path.stat().st_size
        if size > limit_bytes:
            raise ConfigError(_too_large(f"data {str(path)!r}", size, limit_bytes, "", _DATA_REMEDY))
        return [Entry(path, path.name)]
    if not path.is_dir():
        raise ConfigError(f"data {str(path)!r} does not exist; correct the path")
    return _collect(path, None, limit_bytes, f"data {str(path)!r}", _DATA_REMEDY)


_DATA_REMEDY = "put it on storage that all nodes share and give the job its absolute path, or raise data_limit"


def _collect(folder: Path, rules: _Rules | None, limit: int, what: str, remedy: str) -> list[Entry]:
    found: list[Entry] = []
    sizes: Counter[str] = Counter()
    for top, folders, names in os.walk(folder):
        here = Path(top)
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            n for n in folders if n not in linked and not (rules and rules.drop(here / n, is_folder=True))
        )
        for name in sorted(names + linked):
            path = here / name
            if rules is not None and rules.drop(path, is_folder=False):
                continue
            if not (path.is_symlink() or path.is_file()):  # a socket or a pipe: a job makes its own
                continue
            relative = path.relative_to(folder)
            found.append(Entry(path, relative.as_posix()))
            sizes[relative.parts[0]] += path.lstat().st_size
            if sizes.total() > limit or len(found) > MAX_FILES:
                largest = ", ".join(f"{n!r} {size / 1e6:.3g} MB" for n, size in sizes.most_common(3))
                raise ConfigError(_too_large(what, sizes.total(), limit, largest, remedy, len(found)))
    return found


def _too_large(what: str, size: int, limit: int, largest: str, remedy: str, count: int = 0) -> str:
    if size > limit:
        cap = f"more than {limit / 1e6:.3g} MB, the cap for what is sent to a cluster"
    else:
        cap = f"more than {MAX_FILES} files, the cap for what is sent to a cluster (seen {count})"
    return f"{what} holds {cap}{f' (largest so far: {largest})' if largest else ''}; {remedy}"


class _Rules:
    """What of a folder is left out, as git would."""

    def __init__(self, folder: Path, data: frozenset[Path]) -> None:
        try:
            from pathspec import GitIgnoreSpec
        except ImportError:
            raise MissingExtraError("executor='ray'", "pathspec", "ray") from None
        self._spec = GitIgnoreSpec
        self._folder, self._data = folder, data
        self._rules = {folder: [GitIgnoreSpec.from_lines(_NEVER), *self._read(folder)]}

    def drop(self, path: Path, *, is_folder: bool) -> bool:
        """Whether `path` stays behind. Asked for folders before their contents."""
        if path in self._data:
            return True
        verdict: bool | None = None
        for base in reversed([p for p in path.parents if p == self._folder or self._folder in p.parents]):
            if base not in self._rules:
                self._rules[base] = list(self._read(base))
            name = path.relative_to(base).as_posix() + "/" * is_folder
            for spec in self._rules[base]:
                if (answer := spec.check_file(name).include) is not None:
                    verdict = answer
        return bool(verdict)

    def _read(self, folder: Path) -> Iterator[GitIgnoreSpec]:
        for name in (".gitignore", IGNORE_FILE):
            if (path := folder / name).is_file():
                yield self._spec.from_lines(path.read_text(encoding="utf-8", errors="replace").splitlines())

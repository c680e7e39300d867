"""Which files of a study's folder are its code, and which are its data: what is kept as a revision, or sent to a cluster."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from llmhpo.errors import ConfigError

IGNORE_FILE = ".llmhpoignore"
MAX_FILES = 20_000
CODE_REMEDY = f"list what the job does not need in {IGNORE_FILE!r} or .gitignore, or name big data as `data`"
_NEVER = (
    ".git", ".hg/", ".svn/", "__pycache__/", "*.pyc", ".venv*/", "venv/", "node_modules/", ".ipynb_checkpoints/",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".tox/", "*.egg-info/", ".env", ".env.*", ".netrc", "*.pem",
    "/runs/", "/wandb/", "/mlruns/",
)  # fmt: skip


class Entry(NamedTuple):
    """A file or link, and its path in the folder that was listed, with / between names."""

    path: Path
    name: str


class Cap(NamedTuple):
    """The most that a listing may hold, what it is the cap of, and what to do above it."""

    limit_bytes: int
    what: str
    remedy: str


def plain_path(path: Path) -> Path:
    """`path` without ".." in it, by which it could pass for one inside of a folder that it leaves. Links stay as they are."""
    return Path(os.path.normpath(path))


def list_code(folder: Path, data: Iterable[Path], cap: Cap) -> list[Entry]:
    """The files of a study's folder, by path: without `data`, version control, caches, `runs`, `.env` and what .gitignore
    or .llmhpoignore (the same language, and stronger) lists, at any depth. Links stay links.

    Raises: ConfigError above `cap` or `MAX_FILES`.
    """
    return _collect(folder, _Rules(folder, frozenset(data)), cap, f"the code in {str(folder)!r}")


def list_data(path: Path, cap: Cap) -> list[Entry]:
    """Every file of a folder, or the one file. Raises: ConfigError where there is none, or above `cap`."""
    if path.is_file():
        size = path.stat().st_size
        if size > cap.limit_bytes:
            raise ConfigError(_too_large(f"data {str(path)!r}", size, cap))
        return [Entry(path, path.name)]
    if not path.is_dir():
        raise ConfigError(f"data {str(path)!r} does not exist; correct the path")
    return _collect(path, None, cap, f"data {str(path)!r}")


def _collect(folder: Path, rules: _Rules | None, cap: Cap, what: str) -> list[Entry]:
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
            if sizes.total() > cap.limit_bytes or len(found) > MAX_FILES:
                largest = ", ".join(f"{n!r} {size / 1e6:.3g} MB" for n, size in sizes.most_common(3))
                raise ConfigError(_too_large(what, sizes.total(), cap, largest, len(found)))
    return found


def _too_large(what: str, size: int, cap: Cap, largest: str = "", count: int = 0) -> str:
    if size > cap.limit_bytes:
        most = f"more than {cap.limit_bytes / 1e6:.3g} MB, the cap for {cap.what}"
    else:
        most = f"more than {MAX_FILES} files, the cap for {cap.what} (seen {count})"
    return f"{what} holds {most}{f' (largest so far: {largest})' if largest else ''}; {cap.remedy}"


class _Rules:
    """What of a folder is left out, as git would."""

    def __init__(self, folder: Path, data: frozenset[Path]) -> None:
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
                yield GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8", errors="replace").splitlines())

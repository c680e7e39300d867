"""Files that must not change while a study runs: the scorer, the labels, the inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llmhpo.errors import ConfigError

_ALWAYS_READ = 4 << 20  # bytes; of larger files the times are believed, which only root can set back


@dataclass(frozen=True, slots=True)
class Seal:
    """A file as it was: the digest of its contents, and what the file system said of it."""

    path: Path
    digest: str
    about: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file as it is now. Raises: ConfigError where it cannot be read."""
        try:
            about = _about(path)
            return cls(path, _digest(path), about)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror}); correct the path") from None

    def broken(self) -> str:
        """What has happened to the file, in one line; "" while it is as it was."""
        try:
            about = _about(self.path)
            if about == self.about and about[0] > _ALWAYS_READ:
                return ""
            return "" if _digest(self.path) == self.digest else f"{str(self.path)!r} was changed while the study ran"
        except OSError as error:
            return f"{str(self.path)!r} cannot be read any more ({error.strerror})"


def _about(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

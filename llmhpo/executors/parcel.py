"""What a cluster's nodes are sent once: folders and bytes as archives that are named by their contents."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from llmhpo.code.listing import IGNORE_FILE, Entry
from llmhpo.errors import ConfigError

_CHUNK = 32 << 20
_SETTLED = 315532800  # 1980: one time for all files, or the same contents would have another name each day


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

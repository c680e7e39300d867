"""What a job printed, made safe to show: bounded, valid text, no control sequences."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

TAIL_CHARS = 4000
_LINE_CHARS = 500
_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC: titles, links
    r"|\x1b[P^_X][^\x1b]*(?:\x1b\\|$)"  # DCS, PM, APC, SOS
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]"  # the short ones
)
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff{_BIDI}]")


def read_bounded(path: Path, limit: int) -> tuple[bytes, str]:
    """At most `limit` bytes of a regular file, its links not followed, and what is wrong with it ("" where nothing is)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", "is missing"
    except OSError as error:
        return b"", "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b"", "is not a regular file"
        data = bytearray()
        while len(data) <= limit and (part := os.read(fd, min(limit + 1 - len(data), 1 << 20))):
            data += part
    finally:
        os.close(fd)
    return bytes(data[:limit]), f"is larger than {limit} bytes" if len(data) > limit else ""


def clean(data: bytes) -> str:
    """Text of a log: UTF-8 with replacements, escape sequences removed, other control characters shown as U+FFFD.

    Of a line that was rewritten by carriage returns, as progress bars do, the last state is kept.
    """
    text = _ESCAPES.sub("", data.decode("utf-8", errors="replace").replace("\r\n", "\n"))
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROL.sub("\ufffd", "\n".join(lines))


def tail(data: bytes) -> str:
    """The last lines of a log, at most `TAIL_CHARS` characters, long lines cut in the middle."""
    half = _LINE_CHARS // 2
    lines = []
    for line in clean(data[-16 * TAIL_CHARS :]).rstrip().split("\n"):
        cut = len(line) - 2 * half
        lines.append(line if cut <= 0 else f"{line[:half]}[... {cut} characters ...]{line[-half:]}")
    text = "\n".join(lines)
    if len(text) > TAIL_CHARS:
        text = text[-TAIL_CHARS:].partition("\n")[2] or text[-TAIL_CHARS:]
    return text

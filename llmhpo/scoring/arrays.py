"""Reading arrays that untrusted code wrote: nothing in the file is believed, and nothing in it is run.

`.npy` holds one array, `.npz` and `.safetensors` hold several by name. Part of the scorer's process: imports NumPy and light
parts of the standard library.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
KINDS = "biuf"  # of NumPy: booleans, whole numbers, real numbers
_MAX_HEADER = 2000  # characters; one of a plain array has 118
_MAX_JSON = 1 << 20
_MAX_DIMENSIONS = 8
_MAX_ARRAYS = 10_000
_MAX_NAME = 200
_MAX_WHOLE = 2**31 - 1  # the square of it fits into an int64
_MAX_SUM = 2**63 - 1
_BROKEN = (
    ValueError, SyntaxError, RecursionError, MemoryError, TypeError, LookupError, AttributeError, OverflowError, EOFError,
    OSError, NotImplementedError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes; others unpack without a bound
_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


class UnreadableError(ValueError):
    """What is wrong with a file, in one line."""


def read_file(path: Path, max_bytes: int) -> bytearray:
    """All of a regular file with a single name, in a folder of its own; no link is followed, no pipe is waited for.

    Raises: UnreadableError.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnreadableError(f"its folder cannot be opened ({error.strerror})") from None
    try:
        fd = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise UnreadableError("is missing") from None
    except OSError as error:
        raise UnreadableError(
            "is a symbolic link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        ) from None
    finally:
        os.close(folder)
    try:
        return _read(fd, max_bytes)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    finally:
        os.close(fd)


def _read(fd: int, max_bytes: int) -> bytearray:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        raise UnreadableError("is not a regular file")
    if about.st_nlink != 1:
        raise UnreadableError(f"has {about.st_nlink} names (hard links); write a file of its own")
    if about.st_size > max_bytes:
        raise UnreadableError(f"has {about.st_size} bytes; at most {max_bytes} are read")
    data = bytearray(about.st_size)
    view, at = memoryview(data), 0
    while at < len(view) and (count := os.readv(fd, [view[at:]])):
        at += count
    if at < len(view) or os.read(fd, 1):
        raise UnreadableError("changed while it was read")
    return data


# --- formats ----------------------------------------------------------------------------------------------------------


def parse(data: bytearray, suffix: str, max_bytes: int) -> Array | dict[str, Array]:
    """The array in a `.npy`, or those in a `.npz` or `.safetensors` by name; their sizes together bounded by `max_bytes`.

    Raises: UnreadableError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header in the manner of Python 2
            if suffix == ".npy":
                return parse_npy(data)
            return parse_npz(data, max_bytes) if suffix == ".npz" else parse_safetensors(data)
    except UnreadableError:
        raise
    except _BROKEN as error:
        line = str(error).partition("\n")[0][:200]
        raise UnreadableError(f"is not a valid {suffix} file ({type(error).__name__}: {line})") from None


def parse_npy(data: bytearray | bytes) -> Array:
    """One array of numbers. Raises: UnreadableError, and what NumPy raises on a header that is none."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise UnreadableError(f"has the .npy version {version[0]}.{version[1]}; write an array of plain numbers")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file, max_header_size=_MAX_HEADER)
    if dtype.hasobject or dtype.fields or dtype.subdtype or dtype.kind not in KINDS or dtype.itemsize == 0:
        raise UnreadableError(f"holds {str(dtype)[:40]!r}; write booleans, integers or floats")
    return _shaped(data, file.tell(), len(data), dtype, shape, order="F" if is_fortran else "C")


def parse_npz(data: bytearray, max_bytes: int) -> dict[str, Array]:
    """The arrays of a zip archive, which is refused unpacked by what it says of its sizes. Raises: as `parse_npy`, and zipfile's."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > _MAX_ARRAYS:
            raise UnreadableError(f"holds {len(members)} arrays; at most {_MAX_ARRAYS} are read")
        total = sum(member.file_size for member in members)
        if total > max_bytes:
            raise UnreadableError(f"holds {total} bytes when unpacked; at most {max_bytes} are read")
        arrays: dict[str, Array] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays or not _is_name(name):
                raise UnreadableError(f"has a member {member.filename[:40]!r}; write it by numpy.savez")
            if member.compress_type not in _PACKINGS:
                raise UnreadableError(f"has a member packed in the way {member.compress_type}; write it by numpy.savez")
            with archive.open(member) as file:  # with its size it unpacks no more than that, whatever it holds
                arrays[name] = parse_npy(file.read(member.file_size))
    return arrays


def parse_safetensors(data: bytearray) -> dict[str, Array]:
    """The tensors of a safetensors file; bfloat16 becomes float32. Raises: as `parse_npy`."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_JSON, len(data) - 8):
        raise UnreadableError(f"says that its header has {length} bytes, which are not there or too many")
    header = json.loads(data[8 : 8 + length].decode("utf-8"))
    header.pop("__metadata__", None)
    start, end = 8 + length, 8 + length
    arrays: dict[str, Array] = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = (start + int(offset) for offset in entry["data_offsets"])
        if first != end or not first <= last <= len(data) or not _is_name(name):
            raise UnreadableError(f"has a tensor {name[:40]!r} whose bytes lie not behind those of the one before")
        tensor = _shaped(data, first, last, np.dtype(_SAFETENSORS[entry["dtype"]]), tuple(entry["shape"]))
        if entry["dtype"] == "BF16":
            tensor = (tensor.astype(np.uint32) << np.uint32(16)).view(np.float32)
        arrays[name], end = tensor, last
    if end != len(data):
        raise UnreadableError(f"has {len(data) - end} bytes behind its last tensor")
    return arrays


def _shaped(
    data: bytearray | bytes, start: int, end: int, dtype: np.dtype[np.generic], shape: tuple[int, ...], order: str = "C"
) -> Array:
    """The bytes from `start` to `end` as an array in this computer's byte order; they must be as many as it needs."""
    if len(shape) > _MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
        raise UnreadableError(f"has the shape {str(shape)[:60]}; write at most {_MAX_DIMENSIONS} dimensions")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise UnreadableError(f"holds {end - start} bytes for the shape {shape} of {dtype}, which do not fit")
    flat = np.frombuffer(memoryview(data)[start:end], dtype)
    if dtype.kind == "b" and flat.size and flat.view(np.uint8).max() > 1:
        raise UnreadableError("holds booleans that are neither true nor false")
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()


# --- what is in them --------------------------------------------------------------------------------------------------


def check(array: Array, shape: Sequence[int | None] | None = None, labels: tuple[int, ...] | None = None) -> None:
    """Check that there are numbers, all finite, in the `shape` that was declared (None: any size), or else one for the `labels`.

    That has a row a label, and is none that NumPy would stretch onto the labels: with predictions (n, n) or (n, 0, n) of n labels,
    `(predictions == labels).sum()` counts n times, and `abs(predictions - labels).sum()` nothing at all.

    Raises: UnreadableError.
    """
    if shape is not None and (
        array.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UnreadableError(f"has the shape {array.shape}; ({wanted}) is asked for")
    if array.size == 0:
        raise UnreadableError(f"has the shape {array.shape}, which holds no number")
    if shape is None and labels is not None:
        _check_rows(array.shape, labels)
    check_finite(array)


def check_finite(array: Array) -> None:
    """Check that all numbers, if there are any, are finite. Raises: UnreadableError."""
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise UnreadableError(f"has {int(bad.sum())} values that are not finite, the first at {place}")


def _check_rows(shape: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """Labels with an axis of 1, such as (n, 1) beside (n, classes), are stretched by the scorer's own will."""
    if shape[:1] != labels[:1]:
        raise UnreadableError(f"has the shape {shape}; there are {labels[0]} labels, so write {labels[0]} rows")
    try:
        np.broadcast_shapes(shape, labels)
    except ValueError:
        return
    padded = (1,) * (len(labels) - len(shape)) + shape
    is_stretched = any(mine == 1 < theirs for mine, theirs in zip(padded[::-1], labels[::-1], strict=False))
    is_row_beside_another_axis = len(shape) > len(labels) and labels[0] > 1
    if is_stretched or is_row_beside_another_axis:
        raise UnreadableError(
            f"has the shape {shape}; shape = {list(shape)} in the split allows it, else write {labels}, as the labels are: NumPy "
            "would stretch it onto them"
        )


def check_whole(array: Array, labels: Array | None = None) -> None:
    """Check that whole numbers are so small that a scorer's squares, and the sum of these, do not come round below 0.

    The sum's bound is not for numbers as large as the labels': with such labels it is the scorer that must mind.

    Raises: UnreadableError.
    """
    if array.dtype.kind not in "iu":
        return
    largest, known = _largest(array), 0 if labels is None else _largest(labels)
    if largest > _MAX_WHOLE or (largest > known and (largest + known) ** 2 * array.size > _MAX_SUM):
        raise UnreadableError(
            f"holds whole numbers as large as {largest}, with which a scorer's sums could overflow; write them as floats"
        )


def _largest(array: Array) -> int:
    """The largest magnitude, rounded up."""
    if array.size == 0:
        return 0
    ends = (array.min(), array.max())
    return max(math.ceil(abs(end.item())) if np.isfinite(end) else 0 for end in ends)


def widened(array: Array) -> Array:
    """Whole numbers as int64: in fewer bits, which a job could choose, a scorer's sums and squares come round to 0 again."""
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" and array.dtype.itemsize < 8 else array


def is_constant(array: Array) -> bool:
    """Whether there are several rows and all of them are equal."""
    return array.ndim > 0 and len(array) > 1 and array.size > 0 and bool((array == array[:1]).all())

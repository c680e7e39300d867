"""Digests by which candidates are told to do the same: of what they predict, or of the losses they report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

_BITS = 14  # of a number's mantissa that count: four digits; below are order of summation and the device
_FLOOR = 1e-6  # of the largest: what is smaller is noise around zero


def fingerprint(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """A digest of 32 digits, the same for arrays whose numbers agree to four digits, rounding apart."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\0{array.shape}\0".encode(errors="replace"))
        if array.dtype.kind == "f":
            digest.update(_rounded(array.astype(np.float64)).tobytes())
        else:
            digest.update(array.astype(np.int64, copy=False).tobytes())
    return digest.hexdigest()[:32]


def of_losses(losses: Iterable[float]) -> str:
    """The digest of a curve's losses and the final value; "" for none."""
    values = np.array([*losses], dtype=np.float64)
    return fingerprint({"losses": values}) if values.size else ""


def _rounded(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    largest = float(np.abs(array).max(initial=0.0))
    mantissa, exponent = np.frexp(array)
    with np.errstate(over="ignore"):  # the largest of all floats, rounded up
        rounded = np.ldexp(np.rint(mantissa * 2.0**_BITS), exponent - _BITS)
    rounded[np.abs(array) < _FLOOR * largest] = 0.0
    return np.asarray(rounded + 0.0)  # -0.0 is 0.0

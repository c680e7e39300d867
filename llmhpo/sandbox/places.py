"""What a job in a sandbox needs of this machine: system folders, the Python environment, devices, environment variables."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmhpo.errors import SandboxError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# Of /etc only what programs look up: as root a job could read the rest, password hashes and host keys among it.
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "passwd", "group", "nsswitch.conf",
    "hosts", "host.conf", "services", "protocols", "locale.alias", "locale.conf", "os-release", "debian_version", "mime.types",
    "fonts", "ssl/certs", "ssl/openssl.cnf", "pki/tls/openssl.cnf", "OpenCL",
)  # fmt: skip
_SYS = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup")
_GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "dri", "kfd", "dxg")
_GPU_SYSTEM = ("/sys", "/usr/lib/wsl")
_ALLOWED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_(?:PREFIX|DEFAULT_ENV)"
    r"|(?:PYTHON|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|BLIS_|NUMEXPR_|VECLIB_|NUMBA_|MALLOC_|LLMHPO_|JOBLIB_|LOKY_|SKLEARN_|TORCH|PYTORCH_"
    r"|CUDA|CUBLAS_|CUDNN_|NVIDIA_|NCCL_|HIP_|HSA_|ROCR_|TF_|XLA_|JAX_|TRITON_|TOKENIZERS_|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE)\w*"
)


_KEY = re.compile(r".*(?:KEY|TOKEN|SECRET|PASSWORD)S?", re.IGNORECASE)


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that pass into a sandbox unasked: what steers interpreters and numerical libraries, and no key."""
    return {name: value for name, value in environ.items() if _ALLOWED.fullmatch(name) and not _KEY.fullmatch(name)}


def home_in(folder: Path) -> dict[str, str]:
    """Variables that send what programs keep of their own into `folder`."""
    told = {"HOME": str(folder), "TMPDIR": str(folder), "USER": "llmhpo", "LOGNAME": "llmhpo"}
    if site.ENABLE_USER_SITE and Path(site.getuserbase()).is_dir():
        told["PYTHONUSERBASE"] = site.getuserbase()  # or the packages in it would be gone with the home
    return told


def system_paths(*, gpu: bool) -> list[Path]:
    """What a job may read of the machine besides `SYSTEM`, as far as it is there."""
    names = [f"/etc/{name}" for name in _ETC] + list(_SYS) + (list(_GPU_SYSTEM) if gpu else [])
    return [path for path in map(Path, names) if path.exists()]


def gpu_devices() -> list[Path]:
    """The device files of GPUs that this machine has."""
    return sorted(path for pattern in _GPU_DEVICES for path in Path("/dev").glob(pattern))


def environment_paths(program: str) -> list[Path]:
    """Folders and files that `program`, this interpreter and llmhpo's own modules are made of, outside the system's folders.

    A virtual environment counts with the Python that it was made from, wherever the two lie. Folders that a .pth file adds
    (editable installations) do not count: these are somebody's working trees. Never a home folder, never the root.
    """
    found = [Path(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)]
    found += [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    if site.ENABLE_USER_SITE:
        found.append(Path(site.getusersitepackages()))
    found.append(Path(__file__).parent.parent)
    for start in (program, sys.executable):
        found += _parts_of(Path(start))
    return [path for path in dict.fromkeys(found) if path.exists() and not _is_general(path) and not is_system(path)]


def importable() -> list[Path]:
    """What this process imports from besides, as far as it is no home folder: where the modules of its callables lie."""
    return [path for path in map(Path, sys.path) if path.is_absolute() and path.exists() and not _is_general(path)]


def is_system(path: Path) -> bool:
    """Whether it lies in a folder that every job sees."""
    return any(path.is_relative_to(folder) for folder in SYSTEM)


def _is_general(path: Path) -> bool:
    homes = {Path("/"), Path("/home"), Path("/root"), Path("/tmp"), Path("/var"), Path("/etc"), Path.home()}
    return path in homes or path.resolve() in homes


def _parts_of(program: Path) -> Iterable[Path]:
    """The links that lead to a program, and the environment that each of them lies in."""
    for _ in range(16):
        yield program
        prefix = program.parent.parent
        if (prefix / "pyvenv.cfg").exists() or any((prefix / "lib").glob("python3*")):
            yield prefix
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
    yield Path(os.path.realpath(program))


def check_there(paths: Iterable[Path]) -> None:
    """Raises: SandboxError for a path that is not there."""
    for path in paths:
        if not path.exists():
            raise SandboxError(f"a job in a sandbox shall see {str(path)!r}, which does not exist; correct the path")


def around(folder: Path, hidden: Iterable[Path]) -> list[Path]:
    """What together makes up `folder` without `hidden`: itself, or its entries where something in it is hidden."""
    inside = [path for path in hidden if path.is_relative_to(folder)]
    if not inside:
        return [folder]
    if folder in inside or not folder.is_dir():
        return []
    return [part for entry in sorted(folder.iterdir()) for part in around(entry, inside)]

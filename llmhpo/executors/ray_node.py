"""What runs in a worker process of a Ray node: it unpacks what was sent, once per node, and runs one attempt at a job.

Nodes need not have llmhpo installed: it is sent along. So `attempt` is pickled by value, and everything that it touches
before `sys.path` is set comes from the standard library and Ray. The job itself is `LocalExecutor`'s: the same tree
kill, time limit, bounded log and statuses as on one machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from llmhpo.executors.base import Job
    from llmhpo.executors.command import CommandTemplate
    from llmhpo.trial import Outcome

_STALE_S = 7 * 24 * 3600.0  # so long after its last use an archive is removed from a node
_REPORT_PERIOD_S = 0.5
_CHECKPOINTS = "LLMHPO_CHECKPOINT_DIR"


class Order(NamedTuple):
    """One attempt at a job. `code`, `objective` are digests; `settings` are those of `LocalExecutor`."""

    command: CommandTemplate
    job: Job
    code: str
    objective: str
    settings: Mapping[str, Any]


class Ending(NamedTuple):
    """How an attempt ended, and the files of the job that come back."""

    outcome: Outcome
    files: Mapping[str, bytes]


def attempt(library: str, parcels: Mapping[str, Sequence[Any]], packed: bytes) -> Iterator[object]:
    """Run one `Order`, which is pickled in `packed`. Yields new lines of the report file as bytes, in the end an `Ending`.

    `parcels` holds object references to the pieces of each archive, by digest; `library` is the one with llmhpo.
    """
    import pickle

    root = cache_folder()
    places = {digest: unpack(root, digest, pieces) for digest, pieces in parcels.items()}
    if (path := str(places[library])) not in sys.path:
        sys.path.insert(0, path)
    from llmhpo.executors.ray_node import run

    yield from run(pickle.loads(packed), places, library, root)


def cache_folder() -> Path:
    """This user's folder on this node. Raises: RuntimeError where somebody else made it."""
    root = Path(tempfile.gettempdir()) / f"llmhpo-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    state = root.lstat()
    if root.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise RuntimeError(
            f"{str(root)!r} on this node belongs to somebody else or can be written by others; remove it"
        )
    return root


def unpack(root: Path, digest: str, pieces: Sequence[Any]) -> Path:
    """The archive's folder on this node; the first who asks unpacks it."""
    import ray

    place = root / digest
    with (root / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            _prune(root)
            draft = Path(tempfile.mkdtemp(prefix="draft-", dir=root))
            with tempfile.TemporaryFile(dir=root) as file:
                for piece in pieces:
                    file.write(ray.get(piece))
                file.seek(0)
                with tarfile.open(fileobj=file) as archive:
                    archive.extractall(draft, filter="fully_trusted")  # made by our own controller
            draft.chmod(0o755)
            draft.rename(place)
        os.utime(place)
        os.utime(root / f"{digest}.lock")
    return place


def _prune(root: Path) -> None:
    for path in root.iterdir():
        with suppress(OSError):
            if path.lstat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- from here on llmhpo can be imported --------------------------------------------------------------------------------


def run(order: Order, places: Mapping[str, Path], library: str, root: Path) -> Iterator[object]:
    """Run an order in a fresh folder on this node. Yields what `attempt` does.

    Raises: ConfigError where the program is missing on this node, ExecutorError where the job cannot be launched.
    """
    from concurrent.futures import wait

    from llmhpo.executors.local import REPORT_FILE, LocalExecutor

    with tempfile.TemporaryDirectory(prefix="trial-", dir=root, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = _command(order, places, root)
        executor = LocalExecutor(command, **_settings(order, places[library]))
        try:
            future = executor.submit(_placed(order.job, folder))
            reports = Follower(folder / REPORT_FILE)
            while not future.done():
                wait([future], timeout=_REPORT_PERIOD_S)
                if lines := reports.read():
                    yield lines
            outcome = future.result()
            if lines := reports.read(to_the_end=True):
                yield lines
        finally:
            _end(executor)
        yield Ending(outcome, _files(folder, order.settings["log_limit"]))


def _placed(job: Job, folder: Path) -> Job:
    """The job in `folder`. Where the controller's folder of checkpoints is not seen from here, it has one there."""
    env = dict(job.env)
    if (kept := env.get(_CHECKPOINTS)) is not None and not Path(kept).is_dir():
        own = folder / "checkpoints"
        own.mkdir()
        env[_CHECKPOINTS] = str(own)
    return replace(job, directory=folder, env=env)


def _end(executor: Any) -> None:
    """Ray cancels by raising KeyboardInterrupt in this thread, and may do so again while the tree is being ended."""
    for _ in range(3):
        with suppress(KeyboardInterrupt):
            executor.shutdown(kill=True)
            break


def _settings(order: Order, library: Path) -> dict[str, Any]:
    settings = dict(order.settings)
    given = settings["env"].get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    path = os.pathsep.join(part for part in (given, str(library)) if part)  # for `from llmhpo import job`
    settings["env"] = {**settings["env"], "PYTHONPATH": path}
    return settings


def _command(order: Order, places: Mapping[str, Path], root: Path) -> CommandTemplate:
    from llmhpo.executors import child
    from llmhpo.executors.command import CommandTemplate

    cwd = places[order.code]
    if not order.objective:
        return order.command.moved(cwd)
    file = _objective(places[order.objective] / "objective.pkl", order.command.cwd, cwd, root)
    words = ["{python}", "-P", child.__file__, str(file)]
    return CommandTemplate([words[0], *(w.replace("{", "{{").replace("}", "}}") for w in words[1:])], None, cwd)


def _objective(packed: Path, old: Path, new: Path, root: Path) -> Path:
    """The pickle behind the `sys.path` of this node: the controller's as far as it exists here, then this worker's."""
    file = root / f"{packed.parent.name}-{new.name}.pkl"
    if not file.exists():
        header, _, data = packed.read_bytes().partition(b"\n")
        paths = [_moved(path, old, new) for path in json.loads(header)]
        paths = [path for path in paths if path == "" or Path(path).exists()]
        paths += [path for path in sys.path if path not in paths]
        draft = file.with_name(f"draft-{os.getpid()}-{file.name}")
        draft.write_bytes(json.dumps(paths).encode() + b"\n" + data)
        draft.replace(file)
    os.utime(file)
    return file


def _moved(path: str, old: Path, new: Path) -> str:
    here = Path(path)
    return str(new / here.relative_to(old)) if path and here.is_relative_to(old) else path


def _files(folder: Path, log_limit: int) -> dict[str, bytes]:
    from llmhpo.executors.local import LOG_FILE, RESULT_FILE
    from llmhpo.executors.log import read_bounded
    from llmhpo.executors.result import MAX_RESULT_BYTES

    limits = {RESULT_FILE: MAX_RESULT_BYTES, LOG_FILE: 2 * log_limit}
    read = {name: read_bounded(folder / name, limit) for name, limit in limits.items()}
    return {name: data for name, (data, problem) in read.items() if problem != "is missing"}


class Follower:
    """Reads a growing file of lines, whole lines only, up to a bound, and links not followed."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def read(self, *, to_the_end: bool = False) -> bytes:
        """The lines that are new since the last call; with `to_the_end` an unfinished last one too."""
        from llmhpo.executors.log import read_bounded
        from llmhpo.executors.result import MAX_REPORT_BYTES

        data, _ = read_bounded(self._path, MAX_REPORT_BYTES)
        lines = data[self._read : len(data) if to_the_end else max(data.rfind(b"\n") + 1, self._read)]
        self._read += len(lines)
        return lines

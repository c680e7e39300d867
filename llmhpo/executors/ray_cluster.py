"""Jobs on a Ray cluster: each a Ray task, which runs its command or callable in processes of its own on some node.

One thread with an event loop watches all trials, however many are in flight. Ray retries nothing by itself, and nor does this:
an attempt that was lost with its node ends as a lost outcome, which whoever runs the study counts and launches again.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import llmhpo
from llmhpo.code.listing import CODE_REMEDY, Cap, Entry, list_code, list_data
from llmhpo.disk import when_there_is_space
from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors import parcel, ray_node
from llmhpo.executors.base import Job, Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.function import pickled
from llmhpo.executors.local import REPORT_FILE, LocalExecutor, prepare
from llmhpo.executors.pool import cancel
from llmhpo.executors.ray_session import Session
from llmhpo.executors.resources import Resources
from llmhpo.executors.settings import NodeSettings, complete
from llmhpo.trial import Outcome

CODE_LIMIT = 100 * 10**6
DATA_LIMIT = 2 * 10**9
_SENT = "what is sent to a cluster"
_CODE_REMEDY = f"{CODE_REMEDY}, or raise code_limit"
_DATA_REMEDY = "put it on storage that all nodes share and give the job its absolute path, or raise data_limit"
_PATIENCE_S = 15.0  # beyond the grace: how long an attempt may take to end after it was asked to


class RayExecutor:
    """Runs a command or a callable on a Ray cluster, `workers` trials in flight; Ray places and queues them by `resources`.

    The folder of the command (of a callable: `cwd`) is archived once, here, and unpacked once on each node, where the job
    runs in it; so is llmhpo itself. Nodes need the controller's versions of Python and Ray and whatever the job imports, and
    no shared file system. `data` names files and folders inside that folder which are sent apart from the code, under a cap
    of their own; what .gitignore lists is not sent, unless it is `data`. Parameters go in, and result, output and reports
    come back into the job's directory, the reports while it runs; other files that a job writes stay behind and are removed.

    The job has the environment of the node, without API keys, and `env`; `pass_env` names keys that it may take from the
    node: none is sent. A job whose node or worker dies has an outcome that says `lost`. Ray's memory request places trials and
    limits nothing. LLMHPO_CHECKPOINT_DIR survives attempts where the nodes see the study's folder; elsewhere it is a folder of
    the attempt.

    `address` is that of a running cluster ("auto", or None: RAY_ADDRESS, else the one of this machine), or "local", which
    starts one here for the time being. A connection that the program has made already is used as it is.

    `settings` are arguments of `LocalExecutor`, and mean the same on the node. Raises: ConfigError, MissingExtraError.
    """

    def __init__(
        self,
        work: CommandTemplate | Objective,
        *,
        address: str | None = None,
        workers: int = 1,
        resources: Mapping[str, float] | None = None,
        cwd: Path | None = None,
        data: Sequence[str] = (),
        code_limit: int = CODE_LIMIT,
        data_limit: int = DATA_LIMIT,
        **settings: Unpack[NodeSettings],
    ) -> None:
        self._settings = complete(settings)
        asked = Resources.of(resources)
        objective = None if isinstance(work, CommandTemplate) else pickled(work)
        self._command = (
            work if isinstance(work, CommandTemplate) else CommandTemplate("{python}", None, cwd or Path.cwd())
        )
        LocalExecutor(self._command, workers=workers, **self._settings)  # its checks of the settings
        self.workers, self._grace_s = workers, self._settings["grace_s"]
        self._session = Session(address)
        try:
            parcels = _pack(self._command.cwd, data, code_limit, data_limit)
            if objective is not None:
                parcels["objective"] = parcel.pack_bytes("objective.pkl", objective)
            self._digests = {name: p.digest for name, p in parcels.items()}
            self._parcels = {p.digest: self._session.put(p.chunks()) for p in parcels.values()}
            self._remote = self._session.task(ray_node.attempt, asked)
        except BaseException:
            self._session.close()
            raise
        self._lock = threading.Lock()
        self._is_closed = False
        self._begun: set[Future[Outcome]] = set()
        self._waiting: set[Future[Outcome]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(workers)
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmhpo-ray", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. Its future raises ExecutorError where it cannot be launched at all.

        Raises: ExecutorError after `shutdown`.
        """
        future: Future[Outcome] = Future()
        with self._lock:
            if self._is_closed:
                raise ExecutorError(f"trial {job.number} was submitted after shutdown; make a new executor")
            self._waiting.add(future)
            self._loop.call_soon_threadsafe(self._begin, job, future)
        return future

    def shutdown(self, *, kill: bool) -> None:
        """Wait for the running jobs, or (`kill`) end their process trees; queued jobs are cancelled. May be called again.

        A cluster that was started for this executor is stopped, another one is left.
        """
        with self._lock:
            self._is_closed = True
            futures = tuple(self._waiting | self._begun if kill else self._waiting)
        for future in futures:
            future.cancel()
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()
            self._parcels.clear()
            self._session.close()

    async def _drain(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # --- in the loop's thread -----------------------------------------------------------------------------------------

    def _begin(self, job: Job, future: Future[Outcome]) -> None:
        task = self._loop.create_task(self._trial(job, future))
        self._tasks.add(task)

        def stop(ended: Future[Outcome]) -> None:
            if ended.cancelled():
                self._loop.call_soon_threadsafe(task.cancel)

        def forget(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with self._lock:
                self._waiting.discard(future)
                self._begun.discard(future)
            if not future.done() or future.cancelled():
                cancel(future)

        future.add_done_callback(stop)
        task.add_done_callback(forget)

    async def _trial(self, job: Job, future: Future[Outcome]) -> None:
        async with self._slots:
            with self._lock:
                self._waiting.discard(future)
                self._begun.add(future)
            try:
                end: Outcome | BaseException = await self._run(job)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                end = error
            with suppress(InvalidStateError):  # cancelled just now
                if isinstance(end, Outcome):
                    future.set_result(end)
                else:
                    future.set_exception(end)

    async def _run(self, job: Job) -> Outcome:
        folder = job.directory.absolute()
        await _off_loop(lambda is_over: prepare(folder, job, is_over))
        stream = self._remote.options(name=f"llmhpo-trial-{job.number}").remote(
            self._digests["library"], self._parcels, pickle.dumps(self._order(job))
        )
        outcome: Outcome | None = None
        try:
            async for reference in stream:
                item = await reference
                if isinstance(item, bytes):
                    await _off_loop(partial(_put, folder / REPORT_FILE, "ab", item))
                else:
                    for name, content in item.files.items():
                        await _off_loop(partial(_put, folder / name, "wb", content))
                    outcome = item.outcome
        except asyncio.CancelledError:
            await self._end(stream)
            raise
        except Exception as error:  # noqa: BLE001 - sorted by the session
            return self._session.judge(error, job.number)
        assert outcome is not None  # a stream that ends well ends with one
        return outcome

    def _order(self, job: Job) -> ray_node.Order:
        return ray_node.Order(
            self._command, job, self._digests["code"], self._digests.get("objective", ""), self._settings
        )

    async def _end(self, stream: Any) -> None:
        """Cancel an attempt and wait until its processes are gone, first with its own grace, then by force."""
        # Asked twice: Ray's interrupt is lost on a worker that is still being made ready.
        for force, patience_s in (
            (False, self._grace_s + 2.0),
            (False, self._grace_s + _PATIENCE_S),
            (True, _PATIENCE_S),
        ):
            self._session.cancel(stream, force=force)
            ended = asyncio.ensure_future(_over(stream.completed()))
            if (await asyncio.wait([ended], timeout=patience_s))[0]:
                return
            ended.cancel()
        logging.getLogger("llmhpo").warning("a cancelled trial on the cluster did not end; look for it there")


async def _off_loop(work: Callable[[Callable[[], bool]], object]) -> None:
    """Do `work`, which may wait for space on the disk, in a thread; it can ask whether this was cancelled meanwhile."""
    over = threading.Event()
    try:
        await asyncio.to_thread(work, over.is_set)
    finally:
        over.set()


def _put(path: Path, mode: Literal["ab", "wb"], data: bytes, is_over: Callable[[], bool]) -> None:
    def write() -> None:
        with path.open(mode) as file:
            file.write(data)

    when_there_is_space(write, f"file {str(path)!r}", is_over=is_over)


async def _over(reference: Any) -> None:
    with suppress(Exception):  # how it ended does not matter any more
        await reference


def _pack(cwd: Path, data: Sequence[str], code_limit: int, data_limit: int) -> dict[str, parcel.Parcel]:
    """The archives: "library", "code", and the data by path. The code refers to the data by links to where they lie."""
    places = [Path(cwd, name) for name in data]
    for path, name in zip(places, data, strict=True):
        if not path.is_relative_to(cwd) or ".." in path.parts or path == cwd:
            raise ConfigError(
                f"data {name!r} is not inside {str(cwd)!r}; what lies on storage that all nodes share need not be sent"
            )
    lists = [list_data(path, Cap(data_limit, _SENT, _DATA_REMEDY)) for path in places]
    code = list_code(cwd, places, Cap(code_limit, _SENT, _CODE_REMEDY))  # all checks come before the first archive
    parcels, links = {}, []
    for path, entries in zip(places, lists, strict=True):
        where = path.relative_to(cwd)
        parcels[f"data {where}"] = packed = parcel.pack_folder(path, entries)
        target = Path(*[".."] * len(where.parts), packed.digest, path.name if path.is_file() else "")
        links.append((where.as_posix(), target.as_posix()))
    parcels["code"] = parcel.pack_folder(cwd, code, links)
    home = Path(llmhpo.__file__).parent
    library = [Entry(p, f"llmhpo/{p.relative_to(home).as_posix()}") for p in sorted(home.rglob("*.py"))]
    parcels["library"] = parcel.pack_folder(home, library)
    return parcels

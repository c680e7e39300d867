"""Worker threads that take jobs off one queue. Each owns one slot, so that what belongs to a slot is never shared."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from llmhpo.errors import ConfigError, ExecutorError
from llmhpo.executors.base import Job
from llmhpo.trial import Outcome

Run = Callable[[Job, int, "Future[Outcome]"], "Outcome | None"]


class WorkerPool:
    """`workers` threads around `run(job, slot, future)`, where `slot` counts from 0.

    The threads are daemons: a program that ends without `shutdown` does not hang, and its jobs end with it. A future
    stays cancellable while its job runs; `run` watches it and returns None when it has ended the job for that reason.
    """

    def __init__(self, workers: int, run: Run) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ConfigError(f"workers={workers!r} is not a positive integer")
        self._workers = workers
        self._run = run
        self._queue: queue.SimpleQueue[tuple[Job, Future[Outcome]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._active: set[Future[Outcome]] = set()
        self._is_closed = False
        self._lock = threading.Lock()

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job. Raises: ExecutorError after `shutdown`."""
        future: Future[Outcome] = Future()
        with self._lock:
            if self._is_closed:
                raise ExecutorError(f"trial {job.number} was submitted after shutdown; make a new executor")
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._work, args=(slot,), name=f"llmhpo-worker-{slot}", daemon=True)
                    for slot in range(self._workers)
                ]
                for thread in self._threads:
                    thread.start()
            self._queue.put((job, future))
        return future

    def shutdown(self, *, kill: bool, wait: bool = True) -> None:
        """Cancel the queued jobs, with `kill` the running ones too, and wait for the threads. May be called again."""
        with self._lock:
            self._is_closed = True
            while True:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is not None:
                    cancel(item[1])
            active = tuple(self._active) if kill else ()
            for _ in self._threads:
                self._queue.put(None)
        for future in active:  # outside the lock: callbacks run here
            future.cancel()
        for thread in self._threads:
            if wait and thread is not threading.current_thread():
                thread.join()

    def _work(self, slot: int) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            job, future = item
            with self._lock:
                if self._is_closed or future.cancelled():
                    cancel(future)
                    continue
                self._active.add(future)
            try:
                outcome = self._run(job, slot, future)
            except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
                _settle(future, error)
            else:
                _settle(future, outcome)
            with self._lock:
                self._active.discard(future)


def cancel(future: Future[Outcome]) -> None:
    """Cancel a future and tell those who wait for it."""
    future.cancel()
    future.set_running_or_notify_cancel()  # without this, concurrent.futures.wait never hears of it


def _settle(future: Future[Outcome], end: Outcome | BaseException | None) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled while it ran
        if isinstance(end, Outcome):
            future.set_result(end)
            return
        if end is not None:
            future.set_exception(end)
            return
    cancel(future)

"""The thread in which a model is consulted while jobs run."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from concurrent.futures import Future

from llmhpo.agents.base import Search
from llmhpo.columns import Columns, adopt, columns
from llmhpo.trial import Batch, Context

_LEAVING_S = 1.0  # that a program's end waits for an unfinished consultation
_threads = weakref.WeakSet[threading.Thread]()


class Aside:
    """Consults `search` in a daemon thread: a model that hangs must not keep the process from ending.

    The thread is one for a whole session: glibc gives a new one another arena, and each of those keeps megabytes.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._asked: queue.SimpleQueue[tuple[Context, Columns, Future[Batch]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def consult(self, context: Context) -> Future[Batch]:
        """What will come of asking about `context`; questions are taken one after another."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="llmhpo-consult", daemon=True)
            _threads.add(self._thread)
            self._thread.start()
        future: Future[Batch] = Future()
        self._asked.put((context, columns(context).detached(), future))
        return future

    def close(self) -> None:
        """Nothing more is asked; what is being asked is not waited for."""
        self._asked.put(None)

    def _work(self) -> None:
        while (question := self._asked.get()) is not None:
            context, table, future = question
            adopt(table)
            try:
                future.set_result(self._search.consult(context))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                future.set_exception(error)


def _let_end() -> None:
    """At the program's end, when a model on this machine was told to stop: a thread that still drops tensors aborts the process."""
    for thread in tuple(_threads):
        thread.join(_LEAVING_S)


atexit.register(_let_end)  # before any model is made, so that it runs after what they register

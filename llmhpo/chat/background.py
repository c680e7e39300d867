"""What takes time is done in threads, so that the person goes on typing; each piece of it can be left."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from llmhpo.chat.base import Session
from llmhpo.errors import LLMHPOError

Work = Callable[[Session], None]
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(slots=True)
class _Job:
    what: str
    work: Work
    left: threading.Event = field(default_factory=threading.Event)


class Background:
    """Does one thing after the other. What goes wrong is said in the session."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._lock = threading.Lock()
        self._now: _Job | None = None
        self._waiting: deque[_Job] = deque()

    @property
    def what(self) -> str:
        """What is under way; "" where nothing is."""
        now = self._now
        return "" if now is None else now.what

    def put(self, what: str, work: Work) -> bool:
        """Do `work` when all before it is done; whether it begins at once."""
        job = _Job(what, work)
        with self._lock:
            if self._now is not None:
                self._waiting.append(job)
                return False
            self._now = job
        threading.Thread(target=self._go_on, args=(job,), name=f"llmhpo-{self._name}", daemon=True).start()
        return True

    def stop(self) -> str:
        """Leave what is under way, and drop what waits; what that was, "" where there was nothing.

        What was left may end in its own time, but it says, asks and begins nothing any more.
        """
        with self._lock:
            left, self._now = self._now, None
            self._waiting.clear()
            if left is None:
                return ""
            left.left.set()
        return left.what

    def _go_on(self, job: _Job | None) -> None:
        while job is not None:
            self._do(job)
            with self._lock:
                if self._now is not job:
                    return  # it was left: what came since has a thread of its own
                job = self._now = self._waiting.popleft() if self._waiting else None

    def _do(self, job: _Job) -> None:
        session = _until(job.left, self._session)
        try:
            try:
                job.work(session)
            except LLMHPOError as error:
                session.say(f"error: {error}")
            except Exception as error:  # noqa: BLE001 - a defect of one command must not end the session
                session.say(
                    f"error: {job.what}: {type(error).__name__}: {error}; this is a defect of llmhpo, please report it"
                )
        except KeyboardInterrupt:
            pass


def _until(left: threading.Event, session: Session) -> Session:
    """The session, until it is left; then all of it raises KeyboardInterrupt."""

    def stopping(do: Callable[_P, _T]) -> Callable[_P, _T]:
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if left.is_set():
                raise KeyboardInterrupt
            done = do(*args, **kwargs)
            if left.is_set():
                raise KeyboardInterrupt
            return done

        return call

    return replace(session, say=stopping(session.say), ask=stopping(session.ask), write=stopping(session.write))

"""The connection to a Ray cluster: made quietly, without keys, and closed by whom it was made."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llmhpo.errors import ConfigError, ExecutorError, MissingExtraError
from llmhpo.executors import ray_node
from llmhpo.executors.resources import Resources
from llmhpo.llm.redact import is_secret
from llmhpo.trial import Outcome

_lock = threading.Lock()
_users = 0  # sessions that use a connection made here


@contextlib.contextmanager
def without_keys() -> Iterator[None]:
    """The environment without API keys, for the time in which a daemon is started that would inherit them.

    For all threads: whoever reads a key just then does not find it.
    """
    with _lock:
        kept = {name: value for name, value in os.environ.items() if is_secret(name)}
        for name in kept:
            del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(kept)


class Session:
    """A connection to the cluster at `address`, shared by all sessions of this process.

    Raises: ConfigError where there is no cluster; MissingExtraError without Ray.
    """

    def __init__(self, address: str | None) -> None:
        global _users
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports of use to Ray's makers
        try:
            import ray
        except ImportError:
            raise MissingExtraError("executor='ray'", "ray", "ray") from None
        self._ray = ray
        if address is not None and "://" in address:
            raise ConfigError(
                f"ray_address={address!r}: the controller must run on a node of the cluster; start llmhpo there (on the head "
                "node, or by `ray job submit`) with ray_address = 'auto'"
            )
        self._is_ours = not ray.is_initialized() or _users > 0
        if not ray.is_initialized():
            _connect(ray, address)
        _users += self._is_ours
        self._is_open = True

    def put(self, pieces: Iterable[bytes]) -> list[Any]:
        """References to objects in the cluster's store."""
        return [self._ray.put(piece) for piece in pieces]

    def task(self, function: Callable[..., Iterator[object]], asked: Resources) -> Any:
        """`function` as a Ray task that streams what it yields. Warns where no node can ever run it."""
        self._ray.cloudpickle.register_pickle_by_value(ray_node)  # nodes need no llmhpo
        memory = None if asked.memory_gb is None else int(asked.memory_gb * 1e9)
        wanted = {"CPU": asked.cpus, "GPU": asked.gpus, "memory": memory or 0, **asked.others}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
            logging.getLogger("llmhpo").warning(
                "no node of the Ray cluster has %s; trials wait until one joins (or lower `resources`)",
                {name: amount for name, amount in wanted.items() if amount},
            )
        return self._ray.remote(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            memory=memory,
            resources=dict(asked.others),
            num_returns="streaming",
            max_retries=0,
        )(function)

    def cancel(self, stream: Any, *, force: bool) -> None:
        """Ask an attempt to end, or (`force`) kill its worker, with which its supervisor ends the job."""
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.cancel(stream, force=force)

    def judge(self, error: Exception, number: int) -> Outcome:
        """What an attempt's error means; one that was lost with its node or worker may be made again.

        Raises: ExecutorError for the rest.
        """
        known = self._ray.exceptions
        cause = getattr(error, "cause", None) or error
        if isinstance(error, known.OutOfMemoryError):
            return Outcome("oom", message="ended by Ray, as the node ran out of memory")
        if isinstance(error, known.TaskCancelledError):
            return Outcome("failed", message="its Ray task was cancelled from outside")
        for kind, reason in (
            (known.NodeDiedError, "its node died"),
            (known.WorkerCrashedError, "its Ray worker was killed"),
            (known.LocalRayletDiedError, "its node died"),
            (known.ObjectLostError, "the cluster lost an object with a node"),
        ):
            if isinstance(cause, kind):
                return Outcome("failed", message=reason, lost=True)
        if isinstance(cause, ExecutorError | ConfigError):
            raise ExecutorError(f"trial {number} on the cluster: {cause}") from None
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ExecutorError(f"trial {number} cannot be run by Ray: {text[-1]}") from error

    def close(self) -> None:
        """Leave the cluster, where this was the last session of a connection made here. May be called again."""
        global _users
        if not self._is_open:
            return
        self._is_open = False
        _users -= self._is_ours
        if self._is_ours and _users == 0:
            self._ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {
            "include_dashboard": False,
            "_system_config": {"worker_niceness": 0},
        }  # Ray's 15 is for shared nodes
        if sys.platform == "linux":  # anybody who reaches a port of Ray's can run code; 127.0.0.1 it would replace
            settings["_node_ip_address"] = "127.0.0.2"
    in_main = threading.current_thread() is threading.main_thread()
    on_term = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        with without_keys(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # Ray's plans for its next versions
            ray.init(address or "auto", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray_address={address!r}: no Ray cluster there ({str(error).splitlines()[0]}); start one with `ray start --head`, "
            "correct the address, or give 'local' to start one on this machine for this run"
        ) from None
    finally:
        if on_term is not None:
            signal.signal(signal.SIGTERM, on_term)  # Ray's own would leave the study without a word


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("ray")
    before, logger.level = logger.level, logging.ERROR
    try:
        yield
    finally:
        logger.level = before

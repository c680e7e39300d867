"""The trials of a context as columns: what proposers ask of them again and again, carried on from one context to the next.

A study of ten thousand trials differs by one from the moment before. `columns(context)` finds the columns of such an earlier
moment and adds what is new; where there are none it starts afresh. The answer is a function of the context alone.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from llmhpo.space import Params, SearchSpace
from llmhpo.trial import Batch, Context, Proposal, Task, Trial

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_T = TypeVar("_T")
_KEPT = 3  # contexts of one thread whose columns are remembered
_RUNNING, _OK, _PRUNED, _FAILED = range(4)


class Seen:
    """The first `count` members of a set that only grows, and that later moments share."""

    __slots__ = ("_may_grow", "_order", "count")

    def __init__(self, order: dict[object, int] | None = None, count: int = 0, *, may_grow: bool = True) -> None:
        self._order = {} if order is None else order
        self.count, self._may_grow = count, may_grow

    def __contains__(self, member: object) -> bool:
        return self._order.get(member, self.count) < self.count

    def lacks(self, members: Iterable[object]) -> list[bool]:
        """Of each of these, whether it is no member."""
        get, count = self._order.get, self.count
        return [get(member, count) >= count for member in members]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[object]:
        return islice(self._order, self.count)

    def plus(self, members: Iterable[object]) -> Seen:
        """With more members; itself where all are known."""
        in_place = self._may_grow and len(self._order) == self.count
        order = self._order if in_place else dict(islice(self._order.items(), self.count))
        for member in members:
            order.setdefault(member, len(order))
        return self if len(order) == self.count else Seen(order, len(order))

    def detached(self) -> Seen:
        """The same, which leaves what it shares with others as it is."""
        return Seen(self._order, self.count, may_grow=False)


class _Rows:
    """Rows of a matrix that only grows; an earlier moment sees the first of them."""

    __slots__ = ("_room", "_used", "values")

    def __init__(self, room: Array, n: int) -> None:
        self._room, self._used = room, [n]
        self.values = room[:n]

    def plus(self, new: Array) -> _Rows:
        n = len(self.values)
        room, used = self._room, self._used
        if used[0] != n or n + len(new) > len(room):
            room = np.empty((max(64, 2 * (n + len(new))), room.shape[1]))
            room[:n], used = self.values, [n]
        room[n : n + len(new)] = new
        used[0] = n + len(new)
        rows = object.__new__(_Rows)
        rows._room, rows._used, rows.values = room, used, room[: n + len(new)]
        return rows

    def detached(self) -> _Rows:
        rows = object.__new__(_Rows)
        rows._room, rows._used, rows.values = self._room, [-1], self.values
        return rows

    def changed(self, at: Index, new: Array) -> _Rows:
        room = self._room.copy()
        room[at] = new
        return _Rows(room, len(self.values))


class Results:
    """How the trials that have ended did: the same object in all moments between which none has.

    `ok` (m,): positions of the trials that ended well, `losses` (m,) theirs, lower is better. `ended`: positions of all that
    ended, `failed` whether each did so without a value, `pruned` whether by being pruned.
    """

    def __init__(self, state: npt.NDArray[np.int8], losses: Array) -> None:
        self.ok: Index = np.flatnonzero(state == _OK)
        self.losses: Array = losses[self.ok]
        self.ended: Index = np.flatnonzero(state != _RUNNING)
        self.failed = state[self.ended] != _OK
        self.pruned = state[self.ended] == _PRUNED
        self._known: dict[object, object] = {}

    def once(self, name: object, work: Callable[[], _T]) -> _T:
        """What `work` gives, done once under this name: it must hang on the ended trials alone."""
        if name not in self._known:
            self._known[name] = work()
        return cast("_T", self._known[name])

    @property
    def ranked(self) -> Index:
        """Which of the `losses`, from the best on; the earlier of equals."""
        return self.once("ranked", lambda: np.argsort(self.losses, kind="stable"))


class Columns:
    """The trials of one moment. Positions count the trials of the context; a trial's number may be another.

    `tried` holds the keys of all configurations that were proposed and of those that were run in their stead, `rows` their
    encodings as bytes (see `row_bytes`), `ended_rows` those of trials that have ended.
    """

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self.space, self.task = space, task
        self.trials: tuple[Trial, ...] = ()
        self.open: tuple[int, ...] = ()
        self.tried, self.rows, self.ended_rows = Seen(), Seen(), Seen()
        self._keys: list[str] = []
        self._sources: dict[str, int] = {}
        width = space.groups[-1][-1] + 1
        self._encoded, self._units = _Rows(np.empty((0, width)), 0), _Rows(np.empty((0, len(space))), 0)
        self._source = _Rows(np.empty((0, 1)), 0)
        self._state, self._losses = np.empty(0, dtype=np.int8), np.empty(0)
        self.results = Results(self._state, self._losses)

    @property
    def encoded(self) -> Array:
        """`SearchSpace.encode` of what was run, (n, d)."""
        return self._encoded.values

    @property
    def units(self) -> Array:
        """`SearchSpace.to_unit` of what was run, (n, p)."""
        return self._units.values

    @property
    def keys(self) -> list[str]:
        """`SearchSpace.key` of what was run."""
        return self._keys[: len(self.trials)]

    def of(self, *sources: str) -> npt.NDArray[np.bool_]:
        """Whether each trial came from one of these, (n,)."""
        return np.isin(self._source.values[:, 0], [self._sources.get(s, -1) for s in sources])

    @property
    def sources(self) -> tuple[str, ...]:
        """All there are, in order of appearance; perhaps some that only later trials come from."""
        return tuple(self._sources)

    def detached(self) -> Columns:
        """The same for another thread, see `adopt`."""
        other = copy.copy(self)
        other._keys, other._sources = self.keys, dict(self._sources)
        other.tried, other.rows, other.ended_rows = (s.detached() for s in (self.tried, self.rows, self.ended_rows))
        other._encoded, other._units, other._source = (
            rows.detached() for rows in (self._encoded, self._units, self._source)
        )
        return other

    def continued_by(self, trials: tuple[Trial, ...]) -> bool:
        """Whether these trials are a later moment of the same study."""
        mine = self.trials
        if len(trials) < len(mine):
            return False
        start = 0
        for k in (*self.open, len(mine)):  # slices are compared by identity first, at the speed of C
            if mine[start:k] != trials[start:k]:
                return False
            start = k + 1
        return all(trials[k] is mine[k] or trials[k].proposal == mine[k].proposal for k in self.open)

    def then(self, trials: tuple[Trial, ...]) -> Columns:
        """The columns of a later moment."""
        n, later = len(self.trials), object.__new__(Columns)
        later.space, later.task, later.trials, later._sources = self.space, self.task, trials, self._sources
        new = trials[n:]
        self._append(later, new)
        ended = [k for k in self.open if trials[k].outcome is not None]
        moved = [k for k in ended if trials[k].evaluated is not None]
        if moved:
            self._move(later, moved)
        ended += [k for k, trial in enumerate(new, n) if trial.outcome is not None]
        later.open = tuple(k for k in (*self.open, *range(n, len(trials))) if trials[k].outcome is None)
        later._state = np.concatenate([self._state, np.zeros(len(new), dtype=np.int8)])
        later._losses = np.concatenate([self._losses, np.full(len(new), np.nan)])
        for k in ended:
            later._state[k], later._losses[k] = _end(trials[k], self.task)
        asked = self.space.encode([trials[k].proposal.params for k in ended])
        later.ended_rows = self.ended_rows.plus([*row_bytes(later.encoded[ended]), *row_bytes(asked)])
        later.results = Results(later._state, later._losses) if ended else self.results
        return later

    def _append(self, later: Columns, new: tuple[Trial, ...]) -> None:
        n, space = len(self.trials), self.space
        params = [t.params for t in new]
        keys = [space.key(p) for p in params]
        X = space.encode(params)
        later._keys = self._keys if len(self._keys) == n else self._keys[:n]
        later._keys.extend(keys)
        later._encoded = self._encoded.plus(X)
        later._units = self._units.plus(_units(space, params))
        codes = [self._sources.setdefault(t.proposal.source, len(self._sources)) for t in new]
        later._source = self._source.plus(np.array(codes, dtype=float).reshape(-1, 1))
        instead = [t.proposal.params for t in new if t.evaluated is not None]
        later.tried = self.tried.plus([*keys, *map(space.key, instead)])
        later.rows = self.rows.plus([*row_bytes(X), *row_bytes(space.encode(instead))])

    @staticmethod
    def _move(later: Columns, moved: list[int]) -> None:
        """Trials that ended at another configuration than the proposed one."""
        space, at = later.space, np.array(moved)
        params = [later.trials[k].params for k in moved]
        X, keys = space.encode(params), [space.key(p) for p in params]
        later._encoded = later._encoded.changed(at, X)
        later._units = later._units.changed(at, _units(space, params))
        later._keys = list(later._keys[: len(later.trials)])
        for k, key in zip(moved, keys, strict=True):
            later._keys[k] = key
        later.tried, later.rows = later.tried.plus(keys), later.rows.plus(row_bytes(X))


def _units(space: SearchSpace, configurations: list[Params]) -> Array:
    return np.array([space.to_unit(p) for p in configurations]).reshape(-1, len(space))


def _end(trial: Trial, task: Task) -> tuple[int, float]:
    assert trial.outcome is not None
    if trial.value is not None:
        return _OK, task.loss(trial.value)
    return (_PRUNED if trial.outcome.status == "pruned" else _FAILED), np.nan


def row_bytes(X: Array) -> list[bytes]:
    """Each row of an encoding as bytes, equal for equal configurations."""
    data, width = (np.round(X, 9) + 0.0).tobytes(), 8 * X.shape[1]
    return [data[k : k + width] for k in range(0, len(data), width)]


class _Recent(threading.local):
    """Each thread has its own: what one carries on, no other reads in the midst of it."""

    def __init__(self) -> None:
        self.columns: list[Columns] = []
        self.ideas: tuple[SearchSpace | None, list[tuple[Batch, tuple[str, ...]]]] = (None, [])


_recent = _Recent()


def columns(context: Context) -> Columns:
    """The columns of a context's trials."""
    for known in _recent.columns:
        if known.trials is context.trials and _is_akin(known, context):
            return known
    best: Columns | None = None
    for known in _recent.columns:
        longer = best is None or len(known.trials) > len(best.trials)
        if longer and _is_akin(known, context) and known.continued_by(context.trials):
            best = known
    found = (best or Columns(context.space, context.task)).then(context.trials)
    _recent.columns = [found, *(k for k in _recent.columns if k is not best)][:_KEPT]
    return found


def adopt(table: Columns) -> None:
    """Let this thread go on from columns that another one has `detached`, in the place of starting afresh."""
    _recent.columns = [table]


def _is_akin(known: Columns, context: Context) -> bool:
    return known.task.direction == context.task.direction and known.space == context.space


def ideas(context: Context) -> tuple[Proposal, ...]:
    """Proposals of the model that were paid for and not tried yet, oldest first, each once."""
    if not context.batches:
        return ()
    space, known = _recent.ideas
    same = 0 if space is not context.space else sum(1 for _ in _while_same(known, context.batches))
    fresh = [(b, tuple(context.space.key(p.params) for p in b.proposals)) for b in context.batches[same:]]
    known = [*known[:same], *fresh]
    _recent.ideas = context.space, known
    tried, found = columns(context).tried, dict[str, Proposal]()
    for batch, keys in known:
        for key, proposal, new in zip(keys, batch.proposals, tried.lacks(keys), strict=True):
            if new:
                found.setdefault(key, proposal)
    return tuple(found.values())


def _while_same(known: list[tuple[Batch, tuple[str, ...]]], batches: tuple[Batch, ...]) -> Iterator[Batch]:
    for (before, _), now in zip(known, batches, strict=False):
        if before is not now:
            return
        yield now

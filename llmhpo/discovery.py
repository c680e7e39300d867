"""The space of a script that draws its hyperparameters itself (`llmhpo.draws`), found by running it.

The first run has the defaults. Further ones change one choice each, to see which draws hang on it. A run is ended as soon as
it seems to draw no more, so that nothing is trained to its end. The script is the user's own, and runs as in a trial.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from optuna.distributions import IntDistribution

from llmhpo.conditions import Seen, conditions
from llmhpo.draws import FILE_VARIABLE
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.executors.base import Executor, Job
from llmhpo.executors.log import read_bounded
from llmhpo.param import UNSET, Param, ParamValue, param_from_dict
from llmhpo.reading.draws import Drawn, holds, is_same, two_ranges
from llmhpo.scratch import Scratch
from llmhpo.space import SearchSpace
from llmhpo.trial import Outcome, Task

Given = dict[str, ParamValue]

_MAX_BYTES = 4 << 20
_TICK_S = 0.05
_ALL_VALUES = 8  # a whole number with more values is tried at both ends alone
_LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long to look. Seconds until a first draw, from then on until one that is known to follow, and for all runs together.

    `silence_s` after its last draw a run is ended; later if the draws before came further apart. `runs` is the most of them.
    """

    first_s: float = 120.0
    more_s: float = 20.0
    all_s: float = 300.0
    silence_s: float = 2.0
    runs: int = 24


class Findings(NamedTuple):
    """The space that was found, and what the user should know about how, one line each."""

    space: SearchSpace
    notes: tuple[str, ...]


def find_space(
    executor: Executor,
    *,
    partial: SearchSpace | None = None,
    written: Sequence[Drawn] = (),
    name: str = "the script",
    bounds: Bounds | None = None,
) -> Findings:
    """Run the job of `executor` with its defaults and with single choices changed; the space of all that it draws.

    `partial` holds parameters that are not drawn, or are drawn from a wider range. `written` are the draws that static
    reading knows: they tell when to wait no longer. `name` stands in messages. The executor is shut down.

    Raises: ConfigError where the script fails or draws nothing; SpaceError for a name with two ranges, or a `partial`
    range that the draw does not have.
    """
    with Scratch() as folder:
        search = _Search(executor, partial, written, name, bounds or Bounds(), folder)
        try:
            search.explore()
        finally:
            executor.shutdown(kill=True)
        return Findings(search.space(), tuple(search.notes))


@dataclass(slots=True)
class _Run:
    """A run under way: what it was given, and what it has drawn so far, in order."""

    given: Given
    file: Path
    future: Future[Outcome]
    started: float
    last: float
    drawn: list[str] = field(default_factory=list)
    lines: int = 0
    is_late: bool = False


class _Search:
    def __init__(
        self,
        executor: Executor,
        partial: SearchSpace | None,
        written: Sequence[Drawn],
        name: str,
        bounds: Bounds,
        folder: Path,
    ) -> None:
        self._executor, self._partial, self._name, self._bounds, self._folder = executor, partial, name, bounds, folder
        self._fixed = {} if partial is None else partial.default()
        self._written = {d.param.name: d for d in written if d.param is not None}
        self._params: dict[str, Param] = {}  # as they will stand in the space, less their conditions
        self._drawn: dict[str, tuple[Param, str]] = {}  # as the code has them, with the place
        self._runs: list[Seen] = []
        self._silence_s = bounds.silence_s
        self._started = 0
        self._until = time.monotonic() + bounds.all_s
        self.notes: list[str] = []

    def space(self) -> SearchSpace:
        """What is not drawn first, then the draws in their order, each with its conditions."""
        given = {} if self._partial is None else {p.name: p for p in self._partial.params}
        drawn = {
            n: p if n in given and p.when else replace(p, when=conditions(n, self._params, self._runs))
            for n, p in self._params.items()
        }
        return SearchSpace(list((given | drawn).values()))

    # --- the search -------------------------------------------------------------------------------------------------

    def explore(self) -> None:
        """The defaults first; then each choice alone; then what only a changed choice showed; then all choices at random."""
        self._run_all([{}])
        if not self._params:
            raise ConfigError(
                f"{self._name}: draws nothing with its defaults: no llmhpo.choose(...) or the like was called; add draws, or a "
                "[space] to study.toml (llmhpo init drafts one)"
            )
        line = deque(self._changes({}, self._runs[0], self._params))
        rng = random.Random(0)
        while self._started < self._bounds.runs and time.monotonic() < self._until:
            if not line:
                if not self._unseen:
                    break
                line.append(self._mixed(rng))
            known = set(self._params)
            batch = [line.popleft() for _ in range(min(len(line), self._executor.workers))]
            for given, seen in self._run_all(batch):
                if new := [n for n in seen.values if n not in known]:
                    line.extend(self._changes(given, seen, new))
                    line.extend({n: v for n, v in given.items() if n != back} for back in given if len(given) > 1)
        self._tell(len(line))

    @property
    def _unseen(self) -> list[str]:
        return [name for name in self._written if name not in self._params]

    def _changes(self, given: Given, seen: Seen, names: Iterable[str]) -> Iterator[Given]:
        """`given` with one value changed; the first other value of every name comes before any second one."""
        each = [[(n, v) for v in _others(self._params[n], seen.values[n])] for n in names if n in seen.values]
        for turn in range(max(map(len, each), default=0)):
            for changes in each:
                if turn < len(changes):
                    yield given | dict([changes[turn]])

    def _mixed(self, rng: random.Random) -> Given:
        """Any value for every discrete parameter, to find what hangs on two of them."""
        return {
            n: rng.choice([self._default(n), *others])
            for n, p in self._params.items()
            if (others := _others(p, self._default(n)))
        }

    def _tell(self, left: int) -> None:
        if left:
            self.notes.append(
                f"{left} changed choices were not tried, after {self._started} runs; draws that hang on these are not known"
            )
        for name in self._unseen:
            self.notes.append(
                f"{name!r}, drawn at {self._written[name].where}, was not come to; it is its default, unless you give it in [space]"
            )

    # --- runs -------------------------------------------------------------------------------------------------------

    def _run_all(self, batch: Sequence[Given]) -> list[tuple[Given, Seen]]:
        """Run them side by side, and note what they drew."""
        running = [self._start(given) for given in batch]
        left = list(running)
        while left:
            time.sleep(_TICK_S)
            left = [run for run in left if not self._is_over(run)]
        out = [(run.given, self._seen(run)) for run in running]
        self._runs += [seen for _, seen in out]
        return out

    def _start(self, given: Given) -> _Run:
        folder = self._folder / str(self._started)
        folder.mkdir()
        file = folder / "draws.jsonl"
        # Code changed within the second, its size the same, would be taken for what its bytecode was made of.
        env = {FILE_VARIABLE: str(file), "PYTHONDONTWRITEBYTECODE": "1"}
        job = Job(self._started, self._fixed | given, Task(), folder, env=env)
        self._started += 1
        now = time.monotonic()
        return _Run(given, file, self._executor.submit(job), started=now, last=now)

    def _is_over(self, run: _Run) -> bool:
        """Whether a run has ended, or draws no more: then it is ended here."""
        is_done = run.future.done()  # asked first: what it drew at its end is read below
        now = time.monotonic()
        was_drawing = bool(run.drawn)
        if self._read(run):
            if was_drawing:
                self._silence_s = max(self._silence_s, 2 * (now - run.last))
            run.last = now
        if is_done:
            return True
        silence = now - run.last
        if not run.drawn:
            run.is_late = silence > self._bounds.first_s
        else:
            run.is_late = self._awaits(run) and silence > self._bounds.more_s
            is_quiet = not self._awaits(run) and silence > self._silence_s
        if run.is_late or now > self._until or (run.drawn and is_quiet):
            run.is_late |= now > self._until
            return run.future.cancel()
        return False

    def _awaits(self, run: _Run) -> bool:
        """Whether the code has draws outside of branches that this run has not come to, but the first run has."""
        known = self._runs[0].values if self._runs else self._written
        return any(not d.is_branch and n in known and n not in run.drawn for n, d in self._written.items())

    def _read(self, run: _Run) -> bool:
        """Take in the lines that came since the last look; whether there were any."""
        data, _ = read_bounded(run.file, _MAX_BYTES)
        lines = data.decode("utf-8", errors="replace").split("\n")[:-1]
        fresh, run.lines = lines[run.lines :], len(lines)
        for line in fresh:
            entry = json.loads(line)
            self._note(run, param_from_dict(entry["name"], entry["table"]), entry["place"])
        return bool(fresh)

    def _note(self, run: _Run, param: Param, place: str) -> None:
        name = param.name
        first, where = self._drawn.setdefault(name, (param, place))
        if not is_same(first, param):
            raise SpaceError(two_ranges(first, where, param, place))
        if name not in self._params:
            is_given = self._partial is not None and name in self._partial
            self._params[name] = _narrowed(param, self._partial[name], place) if is_given and self._partial else param
        if name not in run.drawn:
            run.drawn.append(name)

    def _seen(self, run: _Run) -> Seen:
        """What a run that is over drew. Raises: ConfigError where the very first one failed."""
        values = {n: run.given.get(n, self._default(n)) for n in run.drawn}
        if run.future.cancelled():
            return Seen(values, is_whole=not run.is_late)
        outcome = run.future.result()
        if outcome.status in ("ok", "invalid", "pruned"):  # "invalid": without a result; only the draws are asked for
            return Seen(values)
        if self._runs or run.given:
            return Seen(values, is_whole=False)
        when = f"after {len(run.drawn)} draws" if run.drawn else "before any draw"
        last = "\n".join(outcome.log_tail.strip().split("\n")[-_LAST_LINES:])
        raise ConfigError(
            f"{self._name}: fails with its defaults, {when}: {outcome.message}; correct it, its space is found by running it. "
            f"Its last lines:\n{last}"
        )

    def _default(self, name: str) -> ParamValue:
        if name in self._fixed:
            return self._fixed[name]
        default = self._params[name].default
        assert default is not UNSET
        return default


def _others(param: Param, value: ParamValue) -> list[ParamValue]:
    """The values to try besides `value`: all other choices, all of few whole numbers, both ends of many; no floats."""
    if param.choices:
        return [c for c in param.choices if c is not value and c != value]
    if not isinstance(param.distribution, IntDistribution):
        return []
    low, high, step = param.distribution.low, param.distribution.high, param.distribution.step
    values = range(low, high + 1, step) if param.size <= _ALL_VALUES else (low, high)
    return [v for v in values if v != value]


def _narrowed(drawn: Param, given: Param, place: str) -> Param:
    """The parameter as [space] gives it, within what the code draws it from; default and doc are the code's where it has none."""
    if not holds(drawn, given):
        raise SpaceError(
            f"{place}: {drawn.name!r} is drawn as {drawn.describe_range()}, but [space] gives {given.describe_range()}; "
            "a range in [space] must lie within the one that is drawn from"
        )
    fits = given.default is UNSET and drawn.default is not UNSET and given.check(drawn.default) is None
    return replace(given, default=drawn.default if fits else given.default, doc=given.doc or drawn.doc)

"""What can be done with a study from outside the process that runs it: start and pause it, read it, ask for changes.

`llmhpo chat` and the MCP server are two faces of this.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmhpo.config import RunConfig, read_study_file
from llmhpo.errors import ConfigError
from llmhpo.prompts import as_data, as_line
from llmhpo.report.page import study_report, write_report
from llmhpo.result import Result, result_of
from llmhpo.steering import Steering
from llmhpo.store import load_study
from llmhpo.store.lease import Running, who_runs
from llmhpo.store.storage import sqlite_path
from llmhpo.store.wishes import Pause, Wish, Wishes
from llmhpo.trial import Context, Trial
from llmhpo.view import View, reworded, steered, undone

_START_S = 20.0  # a run is waited for until it says something
_LAST_WORDS_S, _END_S = 0.5, 10.0  # and then this long for its end; longer where it said that it cannot start
LOG_CHARS = 2000


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study.toml, read: what it says, and the wishes beside its record."""

    path: Path
    config: RunConfig

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """Raises: ConfigError, SpaceError."""
        return cls(path, read_study_file(path))

    @property
    def wishes(self) -> Wishes:
        """What the person has asked for."""
        return Wishes(self.config.directory)

    @property
    def exists(self) -> bool:
        """Whether the study has a record; always so where that cannot be seen without connecting."""
        path = sqlite_path(self.config.storage)
        return path is None or path.exists()

    # --- reading ------------------------------------------------------------------------------------------------------

    def context(self) -> Context:
        """The study as it stands, with what was asked for and not taken in yet. Raises: StoreError."""
        c = self.config
        known = load_study(str(c.storage), c.study_name) if self.exists else Context(c.task, c.space)
        steering = self.wishes.last or known.steering
        task = reworded(replace(known.task, text=c.task.text), steering)
        return replace(known, task=task, space=steered(c.space, steering), steering=steering)

    def result(self, context: Context) -> Result:
        """What has come of it."""
        return result_of(context, self.config.study_name, self.config.storage)

    @property
    def stamp(self) -> object:
        """Changes whenever the record or the wishes have, where that can be seen without connecting; else None."""
        path = sqlite_path(self.config.storage)
        if path is None:
            return None
        return tuple(map(_stamp, (path, path.with_name(path.name + "-wal"), self.config.directory / "wishes.jsonl")))

    def n_trials(self, context: Context) -> int:
        """How many trials there are to be in all."""
        return context.steering.budget.n_trials or self.config.n_trials

    def log_tail(self) -> str:
        """The end of what the last run in the background said."""
        with contextlib.suppress(OSError):
            return as_data(self.log.read_text(errors="replace")[-LOG_CHARS:], LOG_CHARS)
        return ""

    @property
    def log(self) -> Path:
        """Where runs in the background write to."""
        return self.config.directory / "run.log"

    def write_report(self, path: Path | None = None) -> Path:
        """Write the report page; where it is. Raises: ConfigError, StoreError."""
        context, path = self.context(), path or self.config.directory / "report.html"
        page = study_report(self.config, context, again=f"llmhpo run {shlex.quote(str(self.path))}")
        try:
            write_report(path, page)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror}; name another file") from None
        return path

    # --- running ------------------------------------------------------------------------------------------------------

    def running(self) -> Running | None:
        """Who runs the study now, on this machine or elsewhere."""
        return who_runs(str(self.config.storage), self.config.study_name) if self.exists else None

    def start(self, n_trials: int | None = None) -> subprocess.Popen[bytes]:
        """Run the study in a process of its own, which outlives this one and its terminal.

        Raises: ConfigError where it runs already, or ends at once.
        """
        if (now := self.running()) is not None:
            raise ConfigError(f"study {self.config.study_name!r} is being run already, by {now.holder}")
        self.config.directory.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "llmhpo", "run", "--plain", str(self.path)]
        words += [] if n_trials is None else ["--n-trials", str(n_trials)]
        with self.log.open("wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + _START_S
        while time.monotonic() < end and process.poll() is None and not self.log_tail():
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S if "error:" in self.log_tail() else _LAST_WORDS_S)
        if process.poll() not in (None, 0):
            raise ConfigError(f"study {self.config.study_name!r} ended at once: {self.log_tail()}")
        return process

    def pause(self, how: Pause) -> Running:
        """Ask whoever runs the study to end; what has ended is kept. Raises: ConfigError where nobody does."""
        now = self.running()
        if now is None:
            raise ConfigError(f"study {self.config.study_name!r} is not being run; there is nothing to pause")
        self.wishes.ask_to_pause(now.epoch, how)
        return now

    # --- changing -----------------------------------------------------------------------------------------------------

    def change(self, what: str, change: Callable[[Steering], Steering]) -> Steering:
        """Ask for another state, checked against the space; `what` says it in the words of a command.

        Raises: SpaceError, StoreError, and what `change` raises.
        """

        def checked(now: Steering) -> Steering:
            steering = change(now)
            View(steered(self.config.space, steering), steering.limits)
            return steering

        return self.wishes.add(what, checked, self.context().steering)

    def undo(self) -> Wish:
        """Take the last change back; which that was. Raises: ConfigError where there is none."""
        wishes = self.wishes
        found = wishes.undoable()
        if found is None:
            raise ConfigError("there is nothing to undo: nothing was changed yet, or all of it was undone")
        index, wish = found
        before = wishes.all[index - 1].steering if index else Steering()
        wishes.add(f"undo {wish.what}", lambda now: undone(self.config.space, now, before), Steering(), undoes=index)
        return wish


def trial_of(context: Context, number: int) -> Trial:
    """The trial of this number. Raises: ConfigError where the study has none."""
    for trial in context.trials:
        if trial.number == number:
            return trial
    has = f"trials 0 to {len(context.trials) - 1}" if context.trials else "no trials yet"
    raise ConfigError(f"trial {number}: the study has {has}")


def brief(trial: Trial) -> dict[str, Any]:
    """A trial in short, as JSON."""
    outcome = trial.outcome
    status = "running" if outcome is None else outcome.status
    message = "" if outcome is None else as_line(outcome.message, 300)
    return {"trial": trial.number, "status": status, "value": trial.value, "params": trial.params,
            "source": trial.proposal.source, "message": message}  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return 0, 0

"""The Python face: `optimize` runs a whole study, `Study` is asked and told, `Result` is what comes out."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from llmhpo.agents.portfolio import make_portfolio
from llmhpo.config import RunConfig, file_name
from llmhpo.errors import ConfigError, MissingExtraError
from llmhpo.events import Event, Stopped, StopReason
from llmhpo.executors.base import Executor, Objective
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.function import FunctionExecutor, InProcessExecutor
from llmhpo.executors.local import LocalExecutor
from llmhpo.llm.base import LLM
from llmhpo.loop import Loop
from llmhpo.space import Params, SearchSpace
from llmhpo.store import Store
from llmhpo.trial import Context, Direction, Outcome, Task, Trial, best_trial
from llmhpo.usage import Caps, Price, Usage

if TYPE_CHECKING:
    import pandas as pd

Space = SearchSpace | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a study. `best` and `default` are None where no such trial ended well.

    `stopped` says why the run ended: "budget", or "hopeless" where its first trials all failed for one reason that lies in
    the set-up. It is None for a study that is not being run.
    """

    task: Task
    trials: tuple[Trial, ...]
    usage: Usage
    study_name: str
    storage: str | None
    stopped: StopReason | None = None

    @property
    def best(self) -> Trial | None:
        """The trial with the best value."""
        return best_trial(self.trials, self.task)

    @property
    def best_params(self) -> Params | None:
        """The configuration of `best`."""
        return None if self.best is None else self.best.params

    @property
    def best_value(self) -> float | None:
        """The metric of `best`, in the user's units."""
        return None if self.best is None else self.best.value

    @property
    def default(self) -> Trial | None:
        """The trial of the default configuration, where it ended well."""
        return next((t for t in self.trials if t.proposal.source == "default" and t.value is not None), None)

    @property
    def sources(self) -> dict[str, int]:
        """How many trials came from which source, most first."""
        return dict(Counter(t.proposal.source for t in self.trials).most_common())

    def to_frame(self) -> pd.DataFrame:
        """One row a trial: number, value, status, source, seconds, rationale, `params_*`, `metrics_*`.

        Raises: MissingExtraError without pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("Result.to_frame()", "pandas", "pandas") from None
        return pd.DataFrame([_row(t) for t in self.trials])


def _row(trial: Trial) -> dict[str, object]:
    outcome = trial.outcome
    return {
        "number": trial.number,
        "value": trial.value,
        "status": "running" if outcome is None else outcome.status,
        "source": trial.proposal.source,
        "seconds": None if outcome is None else outcome.seconds,
        "rationale": trial.proposal.rationale,
        **{f"params_{k}": v for k, v in trial.params.items()},
        **{f"metrics_{k}": v for k, v in (outcome.metrics if outcome else {}).items()},
    }


def result_of(context: Context, study_name: str, storage: str | None) -> Result:
    """The result as far as a study has come."""
    return Result(context.task, context.trials, context.usage, study_name, storage)


# --- whole runs -------------------------------------------------------------------------------------------------------


def optimize(
    objective: Objective | str | Sequence[str],
    space: Space,
    *,
    task: str = "",
    metric: str = "value",
    direction: Direction = "minimize",
    n_trials: int = 20,
    n_workers: int = 1,
    llm: str | LLM | None = "auto",
    storage: str | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    max_usd: float | None = None,
    timeout_s: float | None = None,
    base_url: str | None = None,
    price: Price | None = None,
    deadline_s: float = 120.0,
    gpus: Sequence[str] | None = None,
    metric_pattern: str | None = None,
    cwd: str | Path = ".",
    isolated: bool | None = None,
    progress: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Tune a training job.

    `objective` is a Python callable `f(params) -> float | {metric: float, ...}` or a command with `{name}` placeholders
    (see `CommandTemplate`). `space` is a `SearchSpace`, or `{name: table or Optuna distribution}`. `task` tells the
    model in plain words what is trained on what. `llm` is a spec ("openai:MODEL", "anthropic:MODEL", "local:PATH",
    "smollm2", "none"), an `LLM`, or "auto": a hosted model whose key is set, else the embedded one, else none.

    A study with a `study_name` or a `storage` is kept, and the same call goes on where it stopped; a callable without
    either is kept in memory only. `n_trials` counts the trials of all sessions. Callables run in this process, unless
    `n_workers` > 1, `timeout_s` or `gpus` asks for processes, or `isolated` says so. `max_tokens` and `max_usd` are hard
    caps on the model's use; when they are reached, the classical optimizer goes on alone. `progress` draws a table
    (default: where stderr is a terminal); `on_event` sees everything that happens.

    Raises: ConfigError, SpaceError, StoreError. A failing trial is recorded, not raised. KeyboardInterrupt ends the
    running jobs (a callable in this process is left to end by itself), and they are run again when the study goes on.
    """
    space = _as_space(space)
    if not (callable(objective) or (isinstance(objective, str | list | tuple) and objective)):
        raise ConfigError(
            f"objective={objective!r} is neither a callable nor a command; give a function of one dict, or a string"
        )
    command = None if callable(objective) else (objective if isinstance(objective, str) else tuple(objective))
    keep = command is not None or storage is not None or study_name is not None
    about = [space.revision, metric, command]
    name = study_name or f"study-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory(prefix="llmhpo-") as scratch:
        directory = Path(cwd).resolve() / "runs" / file_name(name) if keep else Path(scratch)
        config = RunConfig(
            space=space,
            task=Task(task, metric, direction, timeout_s),
            directory=directory,
            study_name=name,
            storage=storage or (f"sqlite:///{directory / 'study.db'}" if keep else None),
            command=command,
            cwd=Path(cwd).resolve(),
            n_trials=n_trials,
            n_workers=n_workers,
            llm=llm,
            base_url=base_url,
            deadline_s=deadline_s,
            price=price,
            caps=Caps(max_tokens, max_usd),
            seed=seed,
            gpus=None if gpus is None else gpus if isinstance(gpus, str) else tuple(gpus),  # type: ignore[arg-type]
            metric_pattern=metric_pattern,
        )
        function = objective if callable(objective) else None
        if on_event is None and progress is not False:
            from llmhpo.progress import make_progress

            with make_progress(config, force=progress) as show:
                return run(config, show, function, isolated=isolated)
        return run(config, on_event or (lambda _: None), function, isolated=isolated)


def run(
    config: RunConfig,
    on_event: Callable[[Event], None],
    objective: Objective | None = None,
    *,
    isolated: bool | None = None,
) -> Result:
    """Run the study that `config` describes to its end, telling `on_event` what happens.

    Raises: as `optimize`.
    """
    executor = _executor(config, objective, isolated)
    portfolio = make_portfolio(
        config.llm, base_url=config.base_url, price=config.price, caps=config.caps, deadline_s=config.deadline_s
    )
    store = Store(config.storage, config.study_name, config.space, config.task, seed=config.seed)
    try:
        _note_another_command(store, config)
        loop = Loop(store, portfolio, executor, n_trials=config.n_trials, directory=config.directory / "trials")
        events, stopped = loop.run(), None
        try:
            for event in events:
                on_event(event)
                stopped = event.reason if isinstance(event, Stopped) else stopped
        finally:
            events.close()
        return replace(result_of(store.context(), config.study_name, config.storage), stopped=stopped)
    finally:
        store.close()


def _note_another_command(store: Store, config: RunConfig) -> None:
    now = config.command if isinstance(config.command, str) else shlex.join(config.command or ())
    was = store.remember("command", now)
    if was != now:
        logging.getLogger("llmhpo").warning(
            "study %r began with the command %r and goes on with %r; where the two give other values, give another study_name",
            config.study_name, was, now,
        )  # fmt: skip


def _executor(config: RunConfig, objective: Objective | None, isolated: bool | None) -> Executor:
    if objective is None:
        assert config.command is not None
        template = CommandTemplate(config.command, config.space, config.cwd)
        return LocalExecutor(
            template,
            workers=config.n_workers,
            gpus=config.gpus,
            metric_pattern=config.metric_pattern,
            pass_env=config.pass_env,
        )
    if config.metric_pattern is not None:
        raise ConfigError(
            f"metric_pattern={config.metric_pattern!r} reads a command's output; a callable returns its metric"
        )
    needs_process = config.n_workers > 1 or config.task.timeout_s is not None or config.gpus is not None
    if isolated is False and (config.task.timeout_s is not None or config.gpus is not None):
        raise ConfigError(
            "isolated=False runs the callable in this process, which can keep no timeout_s and no gpus; drop one"
        )
    if needs_process if isolated is None else isolated:
        return FunctionExecutor(objective, workers=config.n_workers, gpus=config.gpus, pass_env=config.pass_env)
    return InProcessExecutor(objective, workers=config.n_workers)


def _as_space(space: Space) -> SearchSpace:
    return space if isinstance(space, SearchSpace) else SearchSpace.from_dict(space)


# --- ask and tell -----------------------------------------------------------------------------------------------------


class Study:
    """A study that is asked and told: the caller runs the trials.

    Arguments as for `optimize`. Without `storage` and `study_name` it lives in memory. `n_trials` is only a hint to the
    proposers on how long the study will be. Trials that were asked for and never told stay open: `pending` lists
    them, also after a restart. Use it as a context manager, or `close` it.

    Raises: ConfigError, SpaceError, StoreError.
    """

    def __init__(
        self,
        space: Space,
        *,
        task: str = "",
        metric: str = "value",
        direction: Direction = "minimize",
        n_trials: int | None = None,
        llm: str | LLM | None = "auto",
        storage: str | None = None,
        study_name: str | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        max_usd: float | None = None,
        base_url: str | None = None,
        price: Price | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        self.space = _as_space(space)
        self.study_name = study_name or f"study-{self.space.revision}"
        if storage is None and study_name is not None:
            storage = f"sqlite:///{Path('runs').resolve() / file_name(study_name) / 'study.db'}"
        self.storage, self.n_trials = storage, n_trials
        caps = Caps(max_tokens, max_usd)
        self._portfolio = make_portfolio(llm, base_url=base_url, price=price, caps=caps, deadline_s=deadline_s)
        self._store = Store(storage, self.study_name, self.space, Task(task, metric, direction), seed=seed)

    def ask(self, n: int = 1) -> list[Trial]:
        """Begin `n` trials: committed as running before they are returned. Waits for the model where it is due."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"ask({n!r}): give a whole number of trials from 1 on")
        context = self._context()
        if self._portfolio.wants(context) and not (n == 1 and self._portfolio.is_default_next(context)):
            self._store.record(self._portfolio.consult(context))
            context = self._context()
        return [self._store.begin(proposal) for proposal in self._portfolio.suggest(context, n)]

    def tell(
        self,
        trial: Trial | int,
        value: float | None = None,
        *,
        outcome: Outcome | None = None,
        failed: str | None = None,
        seconds: float = 0.0,
    ) -> Trial:
        """End a trial with a finite `value`, or as `failed` with the reason, or with a whole `outcome`.

        Raises: ConfigError where the trial is not open, or the value is not a finite number.
        """
        number = trial.number if isinstance(trial, Trial) else trial
        if number not in {t.number for t in self.pending}:
            raise ConfigError(
                f"tell({number!r}): there is no open trial of this number; open: {[t.number for t in self.pending]}"
            )
        if sum(given is not None for given in (value, outcome, failed)) != 1:
            raise ConfigError(f"tell({number}): give exactly one of value, outcome and failed")
        if not isinstance(outcome, Outcome | None):
            raise ConfigError(
                f"tell({number}): outcome={outcome!r} is not an Outcome; for a failed trial give failed='why'"
            )
        if failed is not None:
            outcome = Outcome("failed", seconds=seconds, message=failed)
        elif value is not None:
            outcome = Outcome("ok", _finite(number, value), seconds)
        assert outcome is not None
        return self._store.finish(number, outcome)

    def _context(self) -> Context:
        done = len(self._store.trials)
        return self._store.context(None if self.n_trials is None else max(0, self.n_trials - done))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return self._store.trials

    @property
    def pending(self) -> tuple[Trial, ...]:
        """Trials that were asked for and not told."""
        return tuple(t for t in self._store.trials if t.outcome is None)

    @property
    def best(self) -> Trial | None:
        """The incumbent."""
        return best_trial(self.trials, self._store.task)

    @property
    def result(self) -> Result:
        """The result as far as the study has come."""
        return result_of(self._store.context(), self.study_name, self.storage)

    def close(self) -> None:
        """Release the storage."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finite(number: int, value: object) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise ConfigError(f"tell({number}, {value!r}): the value is not a number; use failed='...' for a failed trial")
    out = float(value)
    if not math.isfinite(out):
        raise ConfigError(f"tell({number}, {value!r}): the value is not finite; use failed='...' for a failed trial")
    return out

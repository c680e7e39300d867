"""The Python face: `optimize` runs a whole study, `Result` is what comes out, `confirm` says what it is worth."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmhpo.agents.advice import Advice
from llmhpo.agents.base import Search
from llmhpo.agents.portfolio import make_portfolio, warn_if_fatal
from llmhpo.attempts import RETRIES
from llmhpo.config import RunConfig, file_name, scoring_of, steered_config
from llmhpo.confirmation import FOLDERS, Confirmation, Held, check_rounds, open_plan, run_plan
from llmhpo.drawn import Drawing, space_of_callable
from llmhpo.editing import Editing
from llmhpo.errors import ConfigError, MissingExtraError
from llmhpo.events import Consulted, Event, Stopped, StopReason
from llmhpo.execution import make_executor
from llmhpo.executors.base import Objective
from llmhpo.executors.cluster import Placement
from llmhpo.executors.limits import Limits
from llmhpo.llm import ModelSpec
from llmhpo.llm.redact import Redactor
from llmhpo.loop import Loop
from llmhpo.revision import Revision
from llmhpo.rules import StopRules
from llmhpo.sandbox.base import Level
from llmhpo.scoring.base import Scoring
from llmhpo.space import Params, SearchSpace
from llmhpo.steering import Steering
from llmhpo.store import Store
from llmhpo.store.journal import journal_path
from llmhpo.store.others import WarmStart, check_warm_start, take_over
from llmhpo.store.wishes import Wishes, take_in
from llmhpo.surrogates.incumbent import Estimate, estimates
from llmhpo.transfer import Transfer
from llmhpo.trial import IMPORTED, Batch, Bounds, Context, Direction, Task, Trial, best_trial
from llmhpo.usage import Caps, Price, Usage

if TYPE_CHECKING:
    import pandas as pd

Space = SearchSpace | Mapping[str, object]
_log = logging.getLogger("llmhpo")


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a study. `best` and `default` are None where no such trial ended well.

    Where the task is `noisy`, the best configuration is the one with the best expected value, `estimate`, and `best` is its
    first trial. `confirmation` is what `optimize(..., confirm=k)` adds.

    `stopped` says why the run ended: "budget" (`n_trials`), "hopeless" where its first trials all failed for one reason that lies
    in the set-up, or "target", "stale", "gain", "wall" (see `StopRules`). It is None for a study that is not being run.
    """

    task: Task
    trials: tuple[Trial, ...]
    usage: Usage
    study_name: str
    storage: str | None
    space: SearchSpace
    seed: int
    stopped: StopReason | None = None
    estimate: Estimate | None = None
    confirmation: Confirmation | None = None
    batches: tuple[Batch, ...] = ()
    baseline: Revision | None = None
    transfers: tuple[Transfer, ...] = ()
    steering: Steering = field(default_factory=Steering)

    @property
    def context(self) -> Context:
        """All that the study knows, as its proposers see it."""
        known = Context(
            self.task, self.space, self.trials, None, self.seed, self.batches, self.baseline, self.transfers
        )
        return replace(known, steering=self.steering)

    @property
    def best(self) -> Trial | None:
        """The trial with the best value; where the task is noisy, the first one of the configuration of `estimate`."""
        if self.task.noisy:
            return None if self.estimate is None else self.estimate.trial
        return best_trial(self.trials, self.task)

    @property
    def best_params(self) -> Params | None:
        """The configuration of `best`."""
        return None if self.best is None else self.best.params

    @property
    def best_value(self) -> float | None:
        """The metric of `best`, in the user's units.

        Where the task is noisy it is the expected value of that configuration by the surrogate's posterior, and no single
        trial's: `estimate.mean` is the plain mean of its runs.
        """
        if self.estimate is not None:
            return self.estimate.value
        return None if self.best is None else self.best.value

    @property
    def default(self) -> Trial | None:
        """The trial of the default configuration, where it ended well; an imported one where that was run elsewhere."""
        mine = next((t for t in self.trials if t.proposal.source == "default" and t.value is not None), None)
        if mine is not None or not (self.transfers and self.space.has_default):
            return mine
        default = self.space.default()
        return next((t for t in self.trials if t.proposal.source == IMPORTED and t.params == default), None)

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
    estimate = next(iter(estimates(context)), None) if context.task.noisy else None
    return Result(
        context.task,
        context.trials,
        context.usage,
        study_name,
        storage,
        context.space,
        context.seed,
        estimate=estimate,
        batches=context.batches,
        baseline=context.baseline,
        transfers=context.transfers,
        steering=context.steering,
    )


# --- whole runs -------------------------------------------------------------------------------------------------------


def optimize(
    objective: Objective | str | Sequence[str],
    space: Space | None = None,
    *,
    task: str = "",
    metric: str = "value",
    direction: Direction = "minimize",
    n_trials: int = 20,
    n_workers: int = 1,
    noisy: bool = False,
    confirm: int | None = None,
    llm: ModelSpec = "auto",
    storage: str | None = None,
    study_name: str | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    max_usd: float | None = None,
    max_requests: int | None = None,
    stop_at: float | None = None,
    stop_stale: int | None = None,
    stop_gain: float | None = None,
    max_wall_s: float | None = None,
    timeout_s: float | None = None,
    base_url: str | None = None,
    price: Price | None = None,
    deadline_s: float = 120.0,
    advice: Advice | Mapping[str, object] | None = None,
    warm_start: WarmStart | Sequence[WarmStart] = (),
    gpus: Sequence[str] | None = None,
    gpus_per_trial: float | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    metric_pattern: str | None = None,
    metric_bounds: Bounds | None = None,
    retries: int = RETRIES,
    cwd: str | Path = ".",
    isolated: bool | None = None,
    placement: Placement | str = "local",
    sandbox: Level | None = None,
    editable: Sequence[str] = (),
    edits: Mapping[str, object] | None = None,
    scorer: str | None = None,
    splits: Mapping[str, object] | None = None,
    predictions: str = "predictions.npy",
    progress: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Tune a training job.

    `objective` is a Python callable `f(params) -> float | {metric: float, ...}` or a command with `{name}` placeholders
    (see `CommandTemplate`). `space` is a `SearchSpace`, or `{name: table or Optuna distribution}`; where the code draws its
    hyperparameters (`llmhpo.choose(...)` and the like), these are found by running it and need no `space`. `task` tells the
    model in plain words what is trained on what. `llm` is a spec ("openai:MODEL", "anthropic:MODEL", "local:PATH",
    "smollm2", "none"), an `LLM`, or "auto": a hosted model whose key is set, else the embedded one, else none. A mapping gives the spec as
    "model" with options of `make_llm` beside it; a list of models shares each batch among them, by what pays off for its tokens. `advice` says
    how it is used, such as `{"critic": True}`: see `Advice`.

    A study with a `study_name` or a `storage` is kept, and the same call goes on where it stopped; a callable without
    either is kept in memory only. `n_trials` counts the trials of all sessions. Callables run in this process, unless
    `n_workers` > 1, `timeout_s`, `gpus` or `limits` asks for processes, or `isolated` says so. `gpus` has an entry for each
    worker, or with `gpus_per_trial` (0.5: two trials share one) for each GPU; `limits` such as `{"memory_gb": 8}` end a
    trial that uses more, see `Limits`. `max_tokens`, `max_usd` and `max_requests`
    are hard caps on the model's use; when they are reached, the classical optimizer goes on alone. `stop_at`, `stop_stale`,
    `stop_gain` and `max_wall_s` end the study before its last trial: see `StopRules`. `metric_bounds`, the least and the largest
    that the metric can be, such as (0, 1) or (0, None), make a trial invalid that reports more. `progress` draws a table
    (default: where stderr is a terminal); `on_event` sees everything that happens. `retries` says how often a trial is run
    again that was cut off by the death of this process or of the machine; its files in LLMHPO_CHECKPOINT_DIR are kept.

    `warm_start` names earlier Optuna studies of the same metric, llmhpo's or others': "sqlite:///old.db#name", "old.db#name", an
    Optuna journal, or an `optuna.Study`. Their trials that fit the space are history from the start, matched by parameter names;
    they count in no budget and are not run again. See `llmhpo.transfer`.

    `noisy` says that a configuration gives another value with another seed (`llmhpo.job.seed()`, `{seed}`): every trial then
    has a seed of its own, some run a leading configuration again, and the best is the one expected to be best. `confirm`
    runs the best and the default that many times more, as the function `confirm` does.

    `sandbox` keeps jobs on this machine from all but their own folder: "bwrap", "landlock", or "auto" for the stronger one of the
    two that holds here (`llmhpo doctor` tells). It sees the folder `cwd` and the placement's `data`, and has no network.

    `editable` names what the model may edit of a command's code below `cwd`: "model.py", "train.py#build_model"; edited code runs
    in a sandbox unless that is "none". `edits` are settings of that search: share, candidates, max_lines, descriptors, confirm
    (see `EditOptions` and `Editing`). `scorer`, "score.py#score", is your function of (predictions, labels) that measures the metric
    from the file `predictions` that a job writes, and `splits` its data: search, promotion and test, each a table of
    inputs and labels (see `Scoring`).

    `placement` says where the jobs run: "local", "ray" (a cluster that runs already), or a `Placement` with all there is to say.

    Raises: ConfigError, SpaceError, StoreError. A failing trial is recorded, not raised. KeyboardInterrupt ends the
    running jobs (a callable in this process is left to end by itself), and they are run again when the study goes on.
    """
    given = None if space is None else as_space(space)
    if confirm is not None:
        check_rounds(confirm)
    command = _command(objective)
    keep = command is not None or storage is not None or study_name is not None
    drawing = None if command is None else Drawing.of(command, Path(cwd), given)
    if callable(objective) and given is None:
        given = space_of_callable(objective, _log.info)
    about = [drawing.digest if drawing and drawing.is_open else given.revision if given else "", metric, command]
    name = study_name or f"study-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory(prefix="llmhpo-") as scratch:
        directory = Path(cwd).resolve() / "runs" / file_name(name) if keep else Path(scratch)
        if drawing is not None:
            given = drawing.space(directory, _log.info, workers=n_workers, gpus=gpus)
        assert given is not None
        place = placement if isinstance(placement, Placement) else Placement(placement)
        scoring = scoring_of(scorer, splits, predictions, Path(cwd).resolve())
        config = RunConfig(
            space=given,
            task=Task(task, metric, direction, timeout_s, noisy, metric_bounds),
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
            advice=Advice.of(advice),
            price=price,
            caps=Caps(max_tokens, max_usd, max_requests),
            warm_start=tuple([warm_start] if isinstance(warm_start, WarmStart) else warm_start),
            rules=StopRules(stop_at, stop_stale, stop_gain, max_wall_s),
            seed=seed,
            gpus_per_trial=gpus_per_trial,
            limits=Limits.of(limits),
            gpus=None if gpus is None else gpus if isinstance(gpus, str) else tuple(gpus),  # type: ignore[arg-type]
            metric_pattern=metric_pattern,
            placement=place,
            retries=retries,
            sandbox=sandbox,
            editing=Editing.of(
                editable,
                edits or {},
                root=Path(cwd).resolve(),
                data=[Path(cwd).resolve() / name for name in place.data],
                scoring=scoring,
                directory=directory,
            ),
            scoring=scoring,
        )
        function = objective if callable(objective) else None
        if on_event is None and progress is not False:
            from llmhpo.progress import make_progress

            with make_progress(config, force=progress) as show:
                return run(config, show, function, isolated=isolated, confirm=confirm)
        return run(config, on_event or _show_nothing, function, isolated=isolated, confirm=confirm)


def _command(objective: Objective | str | Sequence[str]) -> str | tuple[str, ...] | None:
    """The command that an objective is; None for a callable."""
    if callable(objective):
        return None
    if not (isinstance(objective, str | list | tuple) and objective):
        raise ConfigError(
            f"objective={objective!r} is neither a callable nor a command; give a function of one dict, or a string"
        )
    return objective if isinstance(objective, str) else tuple(objective)


def _show_nothing(event: Event) -> None:
    if isinstance(event, Consulted):
        warn_if_fatal(event.batch)


def run(
    config: RunConfig,
    on_event: Callable[[Event], None],
    objective: Objective | None = None,
    *,
    isolated: bool | None = None,
    confirm: int | None = None,
) -> Result:
    """Run the study that `config` describes to its end, and `confirm` its best, telling `on_event` what happens.

    Raises: as `optimize`.
    """
    wishes = Wishes(config.directory)
    while (result := _session(config, on_event, objective, wishes, isolated=isolated)).stopped == "steered":
        pass
    if confirm is None and config.editing is not None and result.best is not None and result.best.proposal.code:
        confirm = config.editing.confirm or None
    if confirm is None or result.best is None or result.stopped in ("hopeless", "paused"):
        return result
    return replace(
        result, confirmation=run_confirmation(config, result, confirm, on_event, objective, isolated=isolated)
    )


def _session(
    config: RunConfig,
    on_event: Callable[[Event], None],
    objective: Objective | None,
    wishes: Wishes,
    *,
    isolated: bool | None,
) -> Result:
    """One session: to the end of the study, or to a change that takes a new executor."""
    check_warm_start(config.warm_start, edits_code=config.editing is not None)
    executor = None if config.editing is not None else make_executor(config, objective, isolated)
    portfolio = make_portfolio(
        config.llm,
        base_url=config.base_url,
        price=config.price,
        caps=config.caps,
        deadline_s=config.deadline_s,
        advice=config.advice,
    )
    log = journal_path(config.storage, config.study_name, config.directory)
    store = Store(config.storage, config.study_name, config.space, config.task, seed=config.seed, log=log)
    try:
        take_over(store, config.warm_start)
        command = _note_another_command(store, config)
        if config.scoring is not None:
            _note_another_scorer(store, config.scoring)
        wishes.listen(store.epoch)
        take_in(store, wishes)
        if store.space.names != config.space.names:
            config, executor = steered_config(config, store.steering), None
            command = _command_text(config)
        search: Search = portfolio
        if config.editing is not None:
            workshop = config.editing.begin(store, config.directory)
            search = config.editing.search(portfolio, workshop)
            executor = make_executor(config, objective, isolated, workshop=workshop, known=store.context)
        executor = executor or make_executor(config, objective, isolated)
        search.log_requests(store.log)
        loop = Loop(
            store,
            search,
            executor,
            n_trials=config.n_trials,
            directory=config.directory / "trials",
            retries=config.retries,
            command=command,
            rules=config.rules,
            wishes=wishes,
        )
        events, stopped = loop.run(), None
        try:
            for event in events:
                on_event(event)
                stopped = event.reason if isinstance(event, Stopped) else stopped
        finally:
            events.close()
        result = replace(result_of(store.context(), config.study_name, config.storage), stopped=stopped)
    finally:
        store.close()
    return result


# --- confirming -------------------------------------------------------------------------------------------------------


def confirm(
    objective: Objective | str | Sequence[str],
    result: Result,
    k: int = 5,
    *,
    n_workers: int = 1,
    gpus: Sequence[str] | None = None,
    gpus_per_trial: float | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    metric_pattern: str | None = None,
    cwd: str | Path = ".",
    isolated: bool | None = None,
    placement: Placement | str = "local",
    sandbox: Level | None = None,
    editable: Sequence[str] = (),
    scorer: str | None = None,
    splits: Mapping[str, object] | None = None,
    predictions: str = "predictions.npy",
    split: Held = "promotion",
    on_event: Callable[[Event], None] | None = None,
) -> Confirmation:
    """Run the best configuration of `result` and the space's default again, `k` times each, on seeds the search never used.

    Both are run on the same seeds and compared in pairs, so the objective must use its seed (`llmhpo.job.seed()`, `{seed}`,
    LLMHPO_SEED): where it ignores it, repeated runs show the noise alone that is left. The runs are kept beside the
    study, as `NAME:confirm`, and the same call goes on where it stopped. Arguments as for `optimize`. A best trial whose code was
    edited is compared with the code as it stood, in its best configuration, on the promotion split where there is one. `split`
    "test" opens the sealed test split instead, on seeds of its own, and keeps the runs as `NAME:test`: once, when all is decided.

    Raises: ConfigError where no trial of `result` ended well, StoreError. A failing run is counted, not raised.
    """
    check_rounds(k)
    with tempfile.TemporaryDirectory(prefix="llmhpo-") as scratch:
        keep = result.storage is not None
        config = RunConfig(
            space=result.space,
            task=result.task,
            directory=Path(cwd).resolve() / "runs" / file_name(result.study_name) if keep else Path(scratch),
            study_name=result.study_name,
            storage=result.storage,
            command=_command(objective),
            cwd=Path(cwd).resolve(),
            n_workers=n_workers,
            gpus_per_trial=gpus_per_trial,
            limits=Limits.of(limits),
            gpus=None if gpus is None else gpus if isinstance(gpus, str) else tuple(gpus),  # type: ignore[arg-type]
            metric_pattern=metric_pattern,
            placement=placement if isinstance(placement, Placement) else Placement(placement),
            sandbox=sandbox,
            editing=_edited(result, editable, Path(cwd).resolve()),
            scoring=scoring_of(scorer, splits, predictions, Path(cwd).resolve()),
        )
        function = objective if callable(objective) else None
        tell = on_event or (lambda _: None)
        return run_confirmation(config, result, k, tell, function, isolated=isolated, held=split)


def _edited(result: Result, editable: Sequence[str], root: Path) -> Editing | None:
    """What is needed to run the revisions of a study."""
    if result.baseline is None:
        return None
    if not editable:
        raise ConfigError(
            "this study has edited code; give confirm() its `editable`, and its `scorer` and `splits` if any"
        )
    return Editing(root, tuple(editable))


def run_confirmation(
    config: RunConfig,
    result: Result,
    k: int,
    on_event: Callable[[Event], None],
    objective: Objective | None = None,
    *,
    isolated: bool | None = None,
    held: Held = "promotion",
) -> Confirmation:
    """Confirm the best of `result` with the executor that `config` describes, telling `on_event` of every run.

    Raises: as `confirm`; ConfigError for a split `held` "test" that is not declared.
    """
    config = steered_config(config, result.steering)
    splits = {} if config.scoring is None else config.scoring.splits
    if held == "test" and held not in splits:
        raise ConfigError(
            "there is no split 'test' to score on; add [splits.test] with inputs and labels, and a scorer"
        )
    split = held if held in splits else "search"
    folder = config.directory / FOLDERS[held]
    plan = open_plan(config.storage, config.study_name, result.context, k, folder, held)
    if held == "test" and plan.earlier:
        _log.warning(
            "the test split of study %r was opened before, for another winner: what is chosen after a look at it is not tested by it",
            config.study_name,
        )
    try:
        workshop = None
        if config.editing is not None and result.baseline is not None:
            workshop = config.editing.workshop(config.directory, result.baseline.id)
        executor = make_executor(config, objective, isolated, workshop=workshop)
        command = _command_text(config)
        events = run_plan(plan, executor, folder, retries=config.retries, command=command, split=split)
        try:
            for event in events:
                on_event(event)
        finally:
            events.close()
        return plan.confirmation(split)
    finally:
        plan.store.close()


def _command_text(config: RunConfig) -> str:
    text = config.command if isinstance(config.command, str) else shlex.join(config.command or ())
    return Redactor.from_environment()(text)


def _note_another_command(store: Store, config: RunConfig) -> str:
    now = _command_text(config)
    was = store.remember("command", now)
    if was != now:
        _log.warning(
            "study %r began with the command %r and goes on with %r; where the two give other values, give another study_name",
            config.study_name, was, now,
        )  # fmt: skip
    return now


def _note_another_scorer(store: Store, scoring: Scoring) -> None:
    now = hashlib.sha256(scoring.script.read_bytes()).hexdigest()
    if store.remember("scorer", now) != now:
        _log.warning(
            "study %r began with another scorer than %r is now; where the two give other values, give another study_name",
            store.study_name, scoring.script.name,
        )  # fmt: skip


def as_space(space: Space) -> SearchSpace:
    """A search space from all that can be given for one."""
    return space if isinstance(space, SearchSpace) else SearchSpace.from_dict(space)

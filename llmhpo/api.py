"""The Python face: `optimize` runs a whole study, `confirm` says what its best is worth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmhpo.agents.advice import Advice
from llmhpo.agents.portfolio import warn_if_fatal
from llmhpo.attempts import RETRIES
from llmhpo.comparison import Confirmation
from llmhpo.config import RunConfig, file_name, scoring_of
from llmhpo.confirmation import Held, check_rounds
from llmhpo.drawn import Drawing, space_of_callable
from llmhpo.editing import Editing
from llmhpo.errors import ConfigError
from llmhpo.events import Consulted, Event
from llmhpo.executors.base import Objective
from llmhpo.executors.cluster import Placement
from llmhpo.executors.limits import Limits
from llmhpo.llm import ModelSpec
from llmhpo.prompts import as_line
from llmhpo.result import Result
from llmhpo.rules import StopRules
from llmhpo.sandbox.base import Level
from llmhpo.scratch import Scratch
from llmhpo.session import run, run_confirmation
from llmhpo.space import SearchSpace
from llmhpo.store.others import WarmStart
from llmhpo.trial import Bounds, Direction, Task
from llmhpo.usage import Caps, Price

Space = SearchSpace | Mapping[str, object]
_log = logging.getLogger("llmhpo")


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
    with _folder(Path(cwd), name, keep=keep) as directory:
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
                return _warned(run(config, show, function, isolated=isolated, confirm=confirm))
        return _warned(run(config, on_event or _show_nothing, function, isolated=isolated, confirm=confirm))


def _warned(result: Result) -> Result:
    """The result; where no trial has ended well, that is told, as a `best_params` of None says little."""
    ended = next((t for t in result.trials if t.outcome is not None), None)
    if result.best is None and ended is not None and ended.outcome is not None:
        outcome = ended.outcome
        _log.warning("no trial has ended well; trial %d: %s: %s", ended.number, outcome.status, as_line(outcome.message, 500))  # fmt: skip
    return result


def _folder(cwd: Path, name: str, *, keep: bool) -> contextlib.AbstractContextManager[Path]:
    """The folder of a study; one that is removed in the end where nothing is to be kept."""
    return contextlib.nullcontext(cwd.resolve() / "runs" / file_name(name)) if keep else Scratch()


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
    with _folder(Path(cwd), result.study_name, keep=result.storage is not None) as directory:
        config = RunConfig(
            space=result.space,
            task=result.task,
            directory=directory,
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


def as_space(space: Space) -> SearchSpace:
    """A search space from all that can be given for one."""
    return space if isinstance(space, SearchSpace) else SearchSpace.from_dict(space)

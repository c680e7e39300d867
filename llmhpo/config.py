"""Everything that one run needs, in one frozen `RunConfig`; and the reader of `study.toml`."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from llmhpo.agents.advice import Advice
from llmhpo.attempts import RETRIES
from llmhpo.code.listing import plain_path
from llmhpo.drawn import Drawing, Tell
from llmhpo.editing import Editing
from llmhpo.errors import ConfigError, LLMHPOError, did_you_mean
from llmhpo.executors.base import check_retries
from llmhpo.executors.cluster import Placement
from llmhpo.executors.limits import Limits
from llmhpo.llm import ModelSpec
from llmhpo.rules import StopRules
from llmhpo.sandbox.base import Level
from llmhpo.sandbox.choose import check_level
from llmhpo.scoring.base import Scoring
from llmhpo.space import SearchSpace
from llmhpo.steering import Steering
from llmhpo.store.others import WarmStart
from llmhpo.trial import Direction, Task
from llmhpo.usage import Caps, Price
from llmhpo.view import steered


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run, complete and checked.

    `directory` holds what belongs to the study besides its storage: a folder for each trial, the event log, and the SQLite
    file where `storage` is None. `retries`: see `Attempts`. `command` is None where the objective is a Python callable.
    `sandbox` None is "none" for the user's own code, and "auto" for edited code. `editing` says what of the code may change,
    `scoring` how trusted code measures the metric; `writable` are folders that a job in a sandbox may write to.
    """

    space: SearchSpace
    task: Task
    directory: Path
    study_name: str
    storage: str | None
    command: str | tuple[str, ...] | None = None
    cwd: Path = Path()
    n_trials: int = 20
    n_workers: int = 1
    llm: ModelSpec = "auto"
    base_url: str | None = None
    deadline_s: float = 120.0
    advice: Advice = field(default_factory=Advice)
    price: Price | None = None
    caps: Caps = field(default_factory=Caps)
    warm_start: tuple[WarmStart, ...] = ()
    rules: StopRules = field(default_factory=StopRules)
    seed: int | None = None
    gpus: tuple[str, ...] | None = None
    gpus_per_trial: float | None = None
    limits: Limits = field(default_factory=Limits)
    metric_pattern: str | None = None
    pass_env: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    retries: int = RETRIES
    sandbox: Level | None = None
    editing: Editing | None = None
    scoring: Scoring | None = None
    writable: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("n_trials", self.n_trials), ("n_workers", self.n_workers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError.of_option(name, value, "is not a whole number from 1 on")
        check_retries(self.retries)
        if self.sandbox is not None:
            check_level(self.sandbox)
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < 2**31):
            raise ConfigError.of_option("seed", self.seed, "is not a whole number from 0 to 2147483647")
        if not isinstance(self.deadline_s, int | float) or not 0 < self.deadline_s < math.inf:
            raise ConfigError.of_option("deadline_s", self.deadline_s, "is not a positive, finite number of seconds")
        if isinstance(self.gpus, str):
            raise ConfigError(
                f"gpus={self.gpus!r} is a string; give a list with one entry for each worker, such as ['0', '1']"
            )


# Words up to a placeholder, which goes on to the next blank; at the end, what follows the last one.
_ARGUMENT = re.compile(r"(?=\S).*?(?<!\{)\{([^{}]+)\}\S*|\S.*", re.DOTALL)


def steered_config(config: RunConfig, steering: Steering) -> RunConfig:
    """The configuration with what the person has added since: to the space, and to the command for it. Raises: SpaceError."""
    if not steering.params:
        return config
    command = config.command
    text = command if isinstance(command, str) else " ".join(command or ())
    # The person may have written into their file what they had said in a chat.
    words = _ARGUMENT.finditer(steering.arguments)
    missing = [found[0] for found in words if found[1] is None or f"{{{found[1]}}}" not in text]
    if missing and isinstance(command, str):
        command = " ".join((command, *missing))
    elif missing and command is not None:
        command = (*command, *shlex.split(" ".join(missing)))
    return replace(config, space=steered(config.space, steering), command=command)


class _PriceTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class _StudyFile(BaseModel):
    """The keys of study.toml, as they stand there."""

    model_config = ConfigDict(extra="forbid", strict=True)
    command: str | list[str]
    metric: str
    direction: Direction
    space: dict[str, JsonValue] | None = None
    space_file: str | None = None
    task: str = ""
    name: str | None = None
    cwd: str = "."
    n_trials: int = 20
    n_workers: int = 1
    timeout_s: float | None = None
    noisy: bool = False
    gpus: list[str] | None = None
    gpus_per_trial: float | None = None
    limits: dict[str, float] = {}
    metric_pattern: str | None = None
    metric_bounds: list[float] | None = None
    pass_env: list[str] = []
    executor: str = "local"
    ray_address: str | None = None
    resources: dict[str, float] = {}
    data: list[str] = []
    sandbox: str | None = None
    editable: list[str] = []
    edits: dict[str, JsonValue] = {}
    scorer: str | None = None
    splits: dict[str, JsonValue] = {}
    predictions: str = "predictions.npy"
    writable: list[str] = []
    slurm: dict[str, JsonValue] = {}
    retries: int = RETRIES
    llm: JsonValue = "auto"
    base_url: str | None = None
    deadline_s: float = 120.0
    advice: dict[str, JsonValue] = {}
    price: _PriceTable | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_requests: int | None = None
    warm_start: str | list[str] = []
    stop_at: float | None = None
    stop_stale: int | None = None
    stop_gain: float | None = None
    max_wall_s: float | None = None
    storage: str | None = None
    study_name: str | None = None
    seed: int | None = None


def read_study_file(
    path: str | Path, overrides: Mapping[str, object] | None = None, *, tell: Tell | None = None
) -> RunConfig:
    """Read `study.toml`; `overrides` replace its keys (None leaves the file's). Relative paths start at the file's folder.

    Where the script draws its hyperparameters, those that the study was run with are taken; with `tell`, which hears what goes
    on, the script is run to find them, unless its code is still the same.

    Raises: ConfigError, SpaceError: each names the file, the key, the value and the remedy.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        draft = (
            "" if path.exists() else ', or draft one from your script: llmhpo init "what is trained" --script train.py'
        )
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a study.toml{draft}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    raw |= given
    try:
        parsed = _StudyFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_problem(path, dict(e)) for e in error.errors())) from None
    try:
        return _to_config(path, parsed, tell)
    except LLMHPOError as error:
        option = error.option if isinstance(error, ConfigError) else ""
        place = f"--{option.replace('_', '-')}" if option in given else path
        raise type(error)(f"{place}: {error}") from None


def _to_config(path: Path, parsed: _StudyFile, tell: Tell | None) -> RunConfig:
    folder = path.resolve().parent
    name = parsed.study_name or parsed.name or (folder.name if path.stem == "study" else path.stem)
    directory, cwd = folder / "runs" / file_name(name), (folder / parsed.cwd).resolve()
    command = parsed.command if isinstance(parsed.command, str) else tuple(parsed.command)
    space = Drawing.of(command, cwd, _given_space(folder, parsed)).space(
        directory, tell, workers=parsed.n_workers, gpus=parsed.gpus, pass_env=parsed.pass_env
    )
    scoring = scoring_of(parsed.scorer, parsed.splits, parsed.predictions, folder)
    return RunConfig(
        space=space,
        task=Task(
            parsed.task.strip(),
            parsed.metric,
            parsed.direction,
            parsed.timeout_s,
            parsed.noisy,
            parsed.metric_bounds,  # type: ignore[arg-type]  # it checks them itself
        ),
        directory=directory,
        study_name=name,
        storage=_absolute(parsed.storage, "sqlite:///", folder) or f"sqlite:///{directory / 'study.db'}",
        command=command,
        cwd=cwd,
        n_trials=parsed.n_trials,
        n_workers=parsed.n_workers,
        llm=_models(parsed.llm, folder),
        base_url=parsed.base_url,
        deadline_s=parsed.deadline_s,
        advice=Advice.of(parsed.advice),
        price=None if parsed.price is None else Price(parsed.price.input, parsed.price.output, parsed.price.cached),
        caps=Caps(parsed.max_tokens, parsed.max_usd, parsed.max_requests),
        warm_start=_others(parsed.warm_start, folder),
        rules=StopRules(parsed.stop_at, parsed.stop_stale, parsed.stop_gain, parsed.max_wall_s),
        seed=parsed.seed,
        gpus=None if parsed.gpus is None else tuple(parsed.gpus),
        gpus_per_trial=parsed.gpus_per_trial,
        limits=Limits.of(parsed.limits),
        metric_pattern=parsed.metric_pattern,
        pass_env=tuple(parsed.pass_env),
        placement=Placement(parsed.executor, parsed.ray_address, parsed.resources, tuple(parsed.data), parsed.slurm),
        retries=parsed.retries,
        sandbox=None if parsed.sandbox is None else check_level(parsed.sandbox),
        editing=Editing.of(
            parsed.editable,
            parsed.edits,
            root=cwd,
            data=[cwd / name for name in parsed.data],
            scoring=scoring,
            directory=directory,
        ),
        scoring=scoring,
        writable=tuple(plain_path(folder / name) for name in parsed.writable),
    )


def _others(named: str | list[str], folder: Path) -> tuple[str, ...]:
    """The studies to start from, files taken from `folder`."""
    studies = [named] if isinstance(named, str) else named
    return tuple(str(_absolute(s, "sqlite:///", folder)) if "://" in s else str(folder / s) for s in studies)


def _given_space(folder: Path, parsed: _StudyFile) -> SearchSpace | None:
    if parsed.space is not None and parsed.space_file is not None:
        raise ConfigError("give the search space either in tables [space.NAME] or as space_file, and not both")
    if parsed.space_file is not None:
        return SearchSpace.from_file(folder / parsed.space_file)
    return SearchSpace.from_dict(parsed.space) if parsed.space else None


def scoring_of(
    scorer: str | None, splits: Mapping[str, object] | None, predictions: str, folder: Path
) -> Scoring | None:
    """How the metric is measured, from the keys of a study; None where the job reports it itself. Raises: ConfigError."""
    if scorer is not None:
        return Scoring.of(scorer, splits, folder=folder, file=predictions)
    if splits:
        raise ConfigError('splits are scored by the file that `scorer` names; write scorer = "score.py"')
    return None


def _models(llm: JsonValue, folder: Path) -> Any:
    """The models that study.toml names, with the files of their specs and records taken from its folder."""
    if isinstance(llm, list):
        return tuple(_models(one, folder) for one in llm)
    if isinstance(llm, dict):
        places = {name: str(folder / str(value)) for name, value in llm.items() if name == "record"}
        named = {"model": _models(llm["model"], folder)} if "model" in llm else {}
        return {**llm, **places, **named}
    if not isinstance(llm, str):
        raise ConfigError(
            f"llm = {llm!r} names no model; give a string such as 'openai:gpt-5-mini', a table with model = '...', or a list of these"
        )
    for prefix in ("scripted:", "replay:", "local:"):
        llm = _absolute(llm, prefix, folder) or llm
    return llm


def _absolute(spec: str | None, prefix: str, folder: Path) -> str | None:
    """`spec` with the relative path behind `prefix` taken from `folder`; a hub id, which is no file there, is left alone."""
    if spec is None or not spec.startswith(prefix) or spec == "sqlite:///:memory:":
        return spec
    path = folder / spec.removeprefix(prefix)
    return f"{prefix}{path}" if prefix != "local:" or path.exists() else spec


def file_name(name: str) -> str:
    """`name` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "study"


def _problem(path: Path, error: Mapping[str, object]) -> str:
    """One line for one of pydantic's complaints."""
    loc = error.get("loc")
    place = (
        ".".join(str(part) for part in loc if not str(part).startswith(("str", "list[")))
        if isinstance(loc, tuple)
        else ""
    )
    if error.get("type") == "extra_forbidden":
        keys = _StudyFile.model_fields
        hint = did_you_mean(place, keys, f"the keys are: {', '.join(keys)}")
        return f"{path}: {place!r} is not a key of a study; {hint}"
    if error.get("type") == "missing":
        return f"{path}: {place!r} is missing; {_NEEDED.get(place, 'add it')}"
    remedy = f"; {_WRITTEN[key]}" if (key := place.partition(".")[0]) in _WRITTEN else ""
    return f"{path}: {place} = {error.get('input')!r}: {error.get('msg')}{remedy}"


_WRITTEN = {
    "gpus": 'write their ids as texts, one for each worker, such as gpus = ["0", "1"] with n_workers = 2',
    "n_trials": "write a whole number, such as n_trials = 40",
    "timeout_s": "write a number of seconds, such as timeout_s = 3600",
}
_NEEDED = {
    "command": 'add the command that trains once, such as command = "python train.py --lr {lr}"',
    "metric": 'add the key under which a run reports its result, such as metric = "val_loss"',
    "direction": 'add direction = "minimize" or "maximize"',
}

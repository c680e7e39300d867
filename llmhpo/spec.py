"""A study as it is being drafted: every entry with where it comes from. What the person alone can say stays open until it is said."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

from llmhpo.errors import ConfigError
from llmhpo.executors.command import RESERVED
from llmhpo.param import UNSET, Param
from llmhpo.reading.base import Found, Place
from llmhpo.reading.configs import SUFFIXES as CONFIG_SUFFIXES
from llmhpo.reading.draws import Drawn, read_draws
from llmhpo.reading.imports import sources_of
from llmhpo.reading.metrics import Shown, read_metrics
from llmhpo.reading.names import Verdict, judge
from llmhpo.reading.passing import command_of
from llmhpo.reading.ranges import Suggestion, suggest
from llmhpo.reading.script import Reading, merged, read
from llmhpo.reading.shell import flags_of
from llmhpo.reading.source import read_source
from llmhpo.reading.wording import read_words
from llmhpo.space import SearchSpace
from llmhpo.trial import Direction

By = Literal["script", "config", "help", "words", "model", "card", "person", "rule", "run"]
"""Who says so: a file that was read, the person's words or answers, the model, a knowledge card, a rule of ours, a first run."""
_PLACEHOLDER = re.compile(r"\{([^{}?]+)(?:\?[^{}]*)?\}")
_SPLITS = re.compile(r"split|fold|holdout|hold_out|(train|test|val|valid|validation)_(size|frac\w*|ratio|part|share)")
_TOOLS = {
    "pyproject",
    "package",
    "package-lock",
    "tsconfig",
    "study",
    "environment",
    "docker-compose",
    "mkdocs",
}  # configs of no training
_MOST_NAMED = 3
_TRIALS_EACH: Final = 4  # a few trials for each parameter, within these bounds
_FEWEST_TRIALS, _MOST_TRIALS = 20, 60
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry comes from: by whom, at which place (a file's line, a card's or a model's name), and why."""

    by: By
    where: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = {"person": "you", "words": "your words", "rule": "llmhpo's rule", "run": "seen in a first run"}.get(
            self.by, self.by
        )
        place = self.where if self.by in ("script", "config", "help") and self.where else f"{who} {self.where}".strip()
        return f"{place}: {self.reason}" if self.reason else place


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """An entry of a study, and where it comes from."""

    value: T
    origin: Origin


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that may be tuned. `param` is None where it has no range, or was left out: `origin` then says why.

    `found` says where name, type and default come from, `origin` where the range does.
    """

    found: Found
    verdict: Verdict
    param: Param | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A study in the making. It is changed by `dataclasses.replace`; nothing in it was guessed about metric and direction.

    `command` holds {placeholders}, and words in angle brackets where the person must fill something in (`blanks`). `fixed` are the settings
    left alone, each with the reason; `drawn` what the code draws itself. `shown` are the metrics that the script is seen to print. `start` is
    the command as the person gave it.
    """

    task: Item[str]
    command: Item[str]
    cwd: Path
    settings: tuple[Setting, ...]
    n_trials: Item[int]
    fixed: tuple[tuple[Found, str], ...] = ()
    drawn: tuple[Drawn, ...] = ()
    shown: tuple[Shown, ...] = ()
    metric: Item[str] | None = None
    direction: Item[Direction] | None = None
    metric_pattern: Item[str] | None = None
    timeout_s: Item[float] | None = None
    max_usd: Item[float] | None = None
    blanks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    reading: Reading | None = None
    start: str | None = None

    @property
    def space(self) -> SearchSpace | None:
        """The parameters that have a range; None where there are none."""
        params = [s.param for s in self.settings if s.param is not None]
        return SearchSpace(params) if params else None

    @property
    def splits(self) -> tuple[Found, ...]:
        """The settings that say how data is split and the result is measured: never tuned."""
        measures = (f for f, _ in self.fixed if judge(f).role == "evaluation" or _SPLITS.search(f.name.lower()))
        return tuple(f for f in measures if f.kind not in ("str", "path"))

    @property
    def open(self) -> tuple[str, ...]:
        """What only the person can say, and has not yet."""
        return tuple(n for n, v in (("metric", self.metric), ("direction", self.direction)) if v is None)


def draft_spec(
    words: str = "",
    *,
    script: Path | None = None,
    config: Path | None = None,
    help_text: Path | None = None,
    command: str | None = None,
) -> StudySpec:
    """Draft a study by reading alone: nothing is run, no model is asked.

    `script` is the training script (.py, .ipynb, .sh), `config` the file it reads, `help_text` what a program prints on --help. `command`
    is how the person starts the job: the tuned settings are added to it, unless it holds {placeholders} of its own.

    Raises: ConfigError where nothing is given, a file cannot be read, or holds nothing to tune.
    """
    reading = _read(script, config, help_text)
    files = tuple(p for p in (script, config, help_text) if p is not None)
    names = _placeholders(command or "")
    found = [] if reading is None else list(reading.tunable)
    if command is not None:
        found = _as_started(found, command, names)
    if reading is None and not names:
        raise ConfigError(
            "there is nothing to read: give --script train.py, --config, --help-text, or a --command with {placeholders} "
            "such as 'python train.py --lr={lr}'"
        )
    settings = tuple(_setting(f) for f in found)
    said = read_words(words)
    spec = StudySpec(
        task=Item(words, Origin("words")),
        command=Item(
            command or "", Origin("person") if reading is None or command else Origin(*_source_of(reading.path))
        ),
        cwd=(files[0].resolve().parent if files and files[0] != help_text else Path.cwd()),
        settings=settings,
        n_trials=_said(said.n_trials) or _n_trials(settings),
        fixed=() if reading is None else reading.fixed,
        drawn=_drawn(script),
        shown=() if script is None or script.suffix not in (".py", ".ipynb") else read_metrics(read_source(script)),
        files=files,
        reading=reading,
        start=command,
        metric=_said(said.metric),
        direction=_said(said.direction),
        timeout_s=_said(said.timeout_s),
        max_usd=_said(said.max_usd),
    )
    if not spec.drawn and spec.space is None and not names:
        raise ConfigError(_nothing(files, reading, command))
    return with_settings(spec, settings)


def with_settings(spec: StudySpec, settings: Sequence[Setting]) -> StudySpec:
    """The spec with other settings, and a command that passes these; a command with {placeholders} of the person's own stays.

    Raises: ConfigError where a placeholder of the person's command has no range.
    """
    names = _placeholders(spec.start or "")
    if names:
        old = {s.found.name: s for s in spec.settings}
        kept = tuple(
            old[s.found.name] if s.param is None and s.found.name in old else s
            for s in settings
            if s.found.name in names
        )
        return _with_ranges(replace(spec, settings=kept))
    assert spec.reading is not None
    passed = [Suggestion(s.found, s.verdict, s.param, s.origin.reason) for s in settings]
    given = command_of(spec.reading, passed, _split(spec.start) if spec.start else None)
    return replace(spec, settings=tuple(settings), command=Item(given.text, spec.command.origin), blanks=given.blanks)


def _placeholders(command: str) -> tuple[str, ...]:
    names = (m[1] for m in _PLACEHOLDER.finditer(command.replace("{{", "").replace("}}", "")))
    return tuple(dict.fromkeys(n for n in names if n not in RESERVED))


def _setting(found: Found) -> Setting:
    verdict = judge(found)
    if not verdict.is_tunable:  # a placeholder of the person's own: its name alone gives no range
        return Setting(found, verdict, None, Origin("rule", reason="its name is not that of a known hyperparameter"))
    suggested = suggest(found)
    return Setting(found, verdict, suggested.param, Origin("rule", reason=suggested.reason))


def _read(script: Path | None, config: Path | None, help_text: Path | None) -> Reading | None:
    read_files = []
    if script is not None:
        read_files.append(read(script, config=config))
    elif config is not None:
        read_files.append(read(config))
    if help_text is not None:
        read_files.append(read(help_text))
    return merged(read_files) if read_files else None


def _source_of(path: Path) -> tuple[By, str]:
    return ("script" if path.suffix in (".py", ".ipynb", ".sh", ".bash") else "help"), path.name


def _as_started(found: Sequence[Found], command: str, names: Sequence[str]) -> list[Found]:
    """The settings as the person starts the job: the values in the command are the defaults, its placeholders are settings."""
    place = Place("your command", 1)
    given = {f.name: f for f in flags_of(_split(command), place)}
    out = [
        replace(f, default=given[f.name].default, where=place) if f.name in given and f.name not in names else f
        for f in found
    ]
    known = {f.name for f in out}
    asked = [Found(n, "unknown", place, "flag", f"{{{n}}}") for n in names if n not in known]
    return [f for f in [*out, *asked] if not names or f.name in names]


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--command {command!r} cannot be split: {error}; balance its quotes") from None


def _with_ranges(spec: StudySpec) -> StudySpec:
    for setting in spec.settings:
        if setting.param is None:
            raise ConfigError(
                f"--command: {{{setting.found.name}}} has no range: {setting.origin.reason}; give --script too, so that its "
                "default can be read, or write the study by hand with a table [space.NAME]"
            )
    return spec


def _drawn(script: Path | None) -> tuple[Drawn, ...]:
    """What the script and its imports draw themselves."""
    if script is None or script.suffix != ".py":
        return ()
    return tuple(d for source in sources_of([script.name], script.resolve().parent) for d in read_draws(source))


def _said(said: tuple[T, str] | None) -> Item[T] | None:
    return None if said is None else Item(said[0], Origin("words", reason=repr(said[1])))


def _n_trials(settings: Sequence[Setting]) -> Item[int]:
    count = sum(s.param is not None for s in settings)
    n = min(max(_TRIALS_EACH * count, _FEWEST_TRIALS), _MOST_TRIALS)
    return Item(
        n,
        Origin(
            "rule",
            reason=f"{_TRIALS_EACH} trials for each of {count} parameter{'s' * (count != 1)}, from {_FEWEST_TRIALS} to {_MOST_TRIALS}",
        ),
    )


def _nothing(files: Sequence[Path], reading: Reading | None, command: str | None) -> str:
    where = ", ".join(str(f) for f in files) or f"--command {command!r}"
    count = 0 if reading is None else len(reading.items)
    beside = _configs_beside(files[0]) if len(files) == 1 and reading is not None and reading.config is None else ()
    return (
        f"{where}: holds nothing to tune that static reading can see: {count} setting{'s' * (count != 1)} found; give its config file "
        f"({' or '.join(f'--config {path}' for path in beside) or '--config FILE'}) or its saved --help text (--help-text FILE) too, draw "
        "them in the code (llmhpo.choose and the like), or write [space.NAME] tables by hand"
    )


def _configs_beside(script: Path) -> tuple[Path, ...]:
    """The first few config files in the folder of a script, and in its folders named like one."""
    folders = [script.parent, *(script.parent / name for name in ("config", "configs", "conf"))]
    files = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    named = [p for p in files if p.suffix in CONFIG_SUFFIXES and p != script and p.stem not in _TOOLS]
    return tuple(named[:_MOST_NAMED])


def default_of(found: Found) -> str:
    """The default as it is shown: "0.1", "computed", "none"."""
    return "computed" if found.is_computed else "not given" if found.default is UNSET else repr(found.default)

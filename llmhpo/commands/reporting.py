"""`llmhpo report`: the study as one HTML page; `learned`: what its trials show; `suggest`: what a formula of the literature gives."""

from __future__ import annotations

import shlex
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from llmhpo.agents.reflect import reflect
from llmhpo.cards import cards, formulas
from llmhpo.commands.base import StudyFile, console, errors, study_file
from llmhpo.config import read_study_file
from llmhpo.errors import ConfigError
from llmhpo.history import show_number
from llmhpo.llm import make_llm
from llmhpo.progress import usage_text
from llmhpo.report.page import study_report, write_report
from llmhpo.store import load_study
from llmhpo.store.purse import Purse
from llmhpo.store.wishes import Wishes
from llmhpo.usage import Usage

SUGGEST_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def report(
    study: StudyFile = Path("study.toml"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; default: report.html in the study's folder")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write a report of the study: one HTML page with everything in it. Works while the study runs."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    again = f"llmhpo run {shlex.quote(str(study_file(study)))}"
    page = study_report(config, context, again=again)
    path = config.directory / "report.html" if output is None else output
    try:
        write_report(path, page)
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written: {error.strerror}; name another file with --output"
        ) from None
    console.print(Text(f"wrote {path} ({len(page.encode()) / 1e3:.0f} kB)"), soft_wrap=True)
    if open_ and not webbrowser.open(path.absolute().as_uri()):
        console.print(Text("no browser was found to open it with"), soft_wrap=True)


def learned(
    study: StudyFile = Path("study.toml"),
    llm: Annotated[
        str,
        typer.Option(help="model that words it, checked against the findings: openai:MODEL, ...; none: plain words"),
    ] = "none",
    study_name: Annotated[str | None, typer.Option()] = None,
    storage: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Say what the trials show, each claim with its statistic and its trials. Works while the study runs."""
    config = read_study_file(study_file(study), {"study_name": study_name, "storage": storage})
    context = load_study(str(config.storage), config.study_name)
    model = make_llm(llm, base_url=config.base_url, price=config.price)
    try:
        caps = context.steering.budget.over(config.caps)
        found = reflect(context, model, caps, deadline_s=config.deadline_s, purse=Purse(config.directory))
        if found.usage != Usage():
            Wishes(config.directory).add("", lambda now: replace(now, talk=now.talk + found.usage), context.steering)
    finally:
        if model is not None:
            model.close()
    if not found.insights:
        console.print(Text(f"{len(context.finished)} trials ended well: too few, or too alike, for any claim"))
    for insight in found.insights:
        trials = ", ".join(map(str, insight.claim.trials[:5]))
        console.print(Text(insight.text), soft_wrap=True)
        console.print(Text(f"    {insight.claim.statistic}; best trials of it: {trials}", style="dim"), soft_wrap=True)
        if insight.dropped:
            console.print(
                Text(f"    (the model's wording was dropped: {insight.dropped})", style="dim"), soft_wrap=True
            )
    if model is not None:
        trouble = f"; {found.error}" if found.error else ""
        errors.print(Text(f"model: {usage_text(found.usage)}{trouble}"), soft_wrap=True)


def suggest(
    context: typer.Context,
    formula: Annotated[str, typer.Argument(help="a formula; without one, all are listed")] = "",
) -> None:
    """Evaluate a formula of the literature, such as: llmhpo suggest step-law --params 1.2e9 --tokens 2e10."""
    if not formula:
        _list_formulas()
        return
    card = cards().get(formula)
    if card is None or not card.outputs:
        raise ConfigError(f"{formula!r} is not a formula; known: {', '.join(formulas())}")
    for name, value in card.evaluate(_numbers(context.args)).items():
        console.print(Text(f"{name.replace('_', ' ')}: {show_number(value, 3)}"), soft_wrap=True)
    console.print(Text(f"{card.title}. Source: {card.source}. Holds for: {card.holds}", style="dim"), soft_wrap=True)


def _list_formulas() -> None:
    listing = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("formula", "inputs", "gives"):
        listing.add_column(head)
    for name in formulas():
        card = cards()[name]
        inputs = " ".join(f"--{i.replace('_', '-')}" for i in card.inputs)
        listing.add_row(name, inputs, ", ".join(o.replace("_", " ") for o in card.outputs))
    console.print(listing)


def _numbers(words: list[str]) -> dict[str, float]:
    """`--name value` and `--name=value` as numbers by name. Raises: ConfigError."""
    flat = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    values: dict[str, float] = {}
    for flag, text in zip(flat[::2], [*flat[1::2], ""], strict=False):
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or not text:
            raise ConfigError(f"{flag!r} is not an option with a value; write --name value")
        try:
            values[name] = float(text)
        except ValueError:
            raise ConfigError(f"{flag} {text!r} is not a number; write one such as 1.2e9") from None
    return values

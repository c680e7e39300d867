"""A trial in words, and a configuration as what people keep."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from llmhpo.config import RunConfig, steered_config
from llmhpo.errors import ConfigError
from llmhpo.executors.command import CommandTemplate
from llmhpo.history import show_number
from llmhpo.operations import trial_of
from llmhpo.prompts import as_data
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Provenance, Trial

FORMS = ("json", "toml", "command")
_MOST_CHARS = 3000


def trial_text(context: Context, number: int, config: RunConfig) -> str:
    """All that is known of a trial; what it said itself with every character visible. Raises: ConfigError for none."""
    trial = trial_of(context, number)
    provenance, outcome = trial.proposal.provenance, trial.outcome
    lines: list[tuple[str, Any]] = [
        ("trial", number),
        ("source", trial.proposal.source),
        ("rationale", trial.proposal.rationale),
        ("model", provenance and _provenance_text(provenance)),
        ("code", _code_text(context, trial.proposal.code)),
        ("status", "running" if outcome is None else outcome.status),
        (context.task.metric, outcome and outcome.value),
        ("metrics", outcome and " ".join(f"{k}={show_number(v)}" for k, v in outcome.metrics.items())),
        ("seconds", outcome and f"{outcome.seconds:.1f}"),
        ("message", outcome and outcome.message),
        ("tripwires", outcome and ", ".join(outcome.flags)),
        ("sandbox", outcome and outcome.sandbox),
        ("note", "the job measured this itself: no scorer checks it" if outcome and outcome.self_reported else ""),
        ("files", max((config.directory / "trials").glob(f"{number:05d}*"), default=None)),
        ("log", outcome and outcome.log_tail),
    ]
    said = [as_data(f"{name}: {value}", _MOST_CHARS) for name, value in lines if value not in (None, "")]
    said += [f"  {as_data(f'{name} = {value!r}', _MOST_CHARS)}" for name, value in trial.params.items()]
    return "\n".join(said)


def _code_text(context: Context, code: str) -> str:
    """Which revision a trial ran, and how it came about; "" for the code as the user wrote it."""
    revision = next((r for r in context.revisions if r.id == code), None)
    return code if revision is None else f"{code[:12]}, {revision.source} of {revision.parent[:12]}: {revision.note}"


def _provenance_text(p: Provenance) -> str:
    money = "price unknown" if p.usd is None else f"${p.usd:.4f}"
    return f"{p.model}, {p.prompt} ({p.prompt_hash}), request {p.request}, {p.tokens:.0f} tokens, {money}"


def chosen_trial(context: Context, config: RunConfig, number: int | None = None) -> Trial:
    """The trial of this number, else the best. Raises: ConfigError."""
    chosen = incumbent(context) if number is None else trial_of(context, number)
    if chosen is None:
        raise ConfigError(
            f"study {config.study_name!r} has no trial that ended well yet; run it, or name one with --trial"
        )
    return chosen


def export_text(trial: Trial, form: str, config: RunConfig, context: Context) -> str:
    """The configuration of a trial as "json", "toml" or the "command" that runs it."""
    if form == "json":
        return json.dumps(trial.params, indent=2, ensure_ascii=False)
    if form == "toml":
        given = {k: v for k, v in trial.params.items() if v is not None}  # TOML has no null
        return "\n".join(f"{json.dumps(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in given.items())
    words = template_of(config, context).render(
        trial.params,
        trial=trial.number,
        seed=context.seed,
        params_file=Path("params.json"),
        result_file=Path("result.json"),
        report_file=Path("report.jsonl"),
    )
    return shlex.join(words)


def template_of(config: RunConfig, context: Context) -> CommandTemplate:
    """The command with what was added to it since the study began."""
    steered = steered_config(config, context.steering)
    assert steered.command is not None
    return CommandTemplate(steered.command, steered.space, steered.cwd)

"""Commands that show something: /task, /space, /status, /trial, /why, /best, /diff, /report, /export."""

from __future__ import annotations

import shutil
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

from llmhpo.chat.base import Session, whole_number, wrong_use
from llmhpo.code.lineage import Lineage
from llmhpo.editing import REPOSITORY
from llmhpo.errors import ConfigError, StoreError
from llmhpo.history import one_line, show_number, show_value
from llmhpo.operations import StudyFile, trial_of
from llmhpo.progress import source_text, usage_text, value_text
from llmhpo.prompts import as_data, as_line
from llmhpo.steering import MOST_TASK_CHARS
from llmhpo.store.lease import Running
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.surrogates.screen import fit_screen
from llmhpo.telling import FORMS, chosen_trial, export_text, trial_text
from llmhpo.trial import Context, Direction, Trial
from llmhpo.view import View

_LATEST = 8
_LINE, _REASON = 200, 100
_FRESH_S = 60.0  # an older log is of an earlier run


def task(session: Session, words: list[str]) -> str:
    """What is tuned; with arguments, draft a study file from a script, or say in other words what the study is about."""
    if words:
        is_script = len(words) > 2 and words[2] in ("minimize", "maximize")
        return _draft(session, words) if is_script or not session.path.exists() else _reword(session, words)
    study = session.study()
    c, context = study.config, study.context()
    command = c.command if isinstance(c.command, str) else " ".join(c.command or ())
    rows = [
        ("task", context.task.text or "not described; /task WORDS describes it"),
        ("goal", f"{c.task.direction} {c.task.metric}"),
        ("command", command + (f" {context.steering.arguments}" if context.steering.arguments else "")),
        ("trials", f"{study.n_trials(context)}, {c.n_workers} at a time"),
        ("model", c.llm if isinstance(c.llm, str) else "none"),
        ("file", str(session.path)),
        ("kept in", str(c.directory)),
    ]
    return "\n".join(f"{name:>8}  {as_data(value, 1500)}" for name, value in rows)


def _reword(session: Session, words: list[str]) -> str:
    text = " ".join(words)
    if len(text) > MOST_TASK_CHARS:
        raise ConfigError(f"the words have {len(text)} characters, and may have {MOST_TASK_CHARS}; say it in fewer")
    session.study().change(f"task {text}", lambda now: replace(now, task=text))
    return f"the next prompt says it so; {session.path} stays as it is, /undo goes back to its words"


def _draft(session: Session, words: list[str]) -> str:
    from llmhpo.draft import draft  # it reads scripts in all their forms: half of what there is to import

    if len(words) < 3 or words[2] not in ("minimize", "maximize"):
        raise wrong_use("task", words)
    if session.path.exists():
        raise ConfigError(f"{session.path} exists already; edit it, move it away, or start the chat with another path")
    script = Path(words[0]).expanduser()
    sense: Direction = "minimize" if words[2] == "minimize" else "maximize"
    text = draft(script, " ".join(words[3:]), words[1], sense, session.path.parent)
    try:
        session.path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{session.path} cannot be written: {error.strerror}; start the chat elsewhere") from None
    return f"wrote {session.path}: read it, change it; /space shows what is tuned, /run begins"


def space(session: Session, words: list[str]) -> str:
    """What is tuned."""
    if words:
        raise wrong_use("space", words)
    context = session.study().context()
    view = View(context.space, context.steering.limits)
    kept = {p.name: p for p in view.space.params}
    lines = []
    for param in context.space.params:
        left = kept.get(param.name)
        line = f"{as_line(param.name, 40)}: {param.describe_range()}"
        line += f", default {show_value(param.default)}" if param.has_default else ""  # type: ignore[arg-type]
        line += f", when {' and '.join(map(str, param.when))}" if param.when else ""
        if left is None:
            line += " | cannot occur within your limits"
        elif param.name in context.steering.limits:
            line += f" | searched: {left.describe_range()}"
        line += " | added by you" if param.name in context.steering.added else ""
        lines.append(as_line(line, 400) + (f"\n    {as_line(param.doc, _LINE)}" if param.doc else ""))
    return "\n".join(lines)


def status(session: Session, words: list[str]) -> str:
    """How far the study is."""
    if words:
        raise wrong_use("status", words)
    study = session.study()
    context = study.context()
    lines = [headline(study, context, study.running())]
    for t in context.trials[-_LATEST:]:
        seconds = "" if t.outcome is None else f"{t.outcome.seconds:.1f} s"
        cells = (as_line(source_text(t), 26), _shortened(as_line(one_line(t.params), 500)))
        lines.append(f"{t.number:>5} {value_text(t):>10} {seconds:>9}  {cells[0]:<9} {cells[1]}")
    lines.append(f"model: {usage_text(context.usage)}")
    if context.batches and context.batches[-1].error:
        lines.append(f"the model gave nothing last time: {as_line(context.batches[-1].error, _LINE)}")
    lines += [f"note: {as_line(n.text, _LINE)}" for n in context.steering.notes[-3:]]
    return "\n".join(lines)


def _shortened(text: str) -> str:
    """What of a line the terminal has room for, behind the other columns."""
    room = max(20, shutil.get_terminal_size((_LINE, 30)).columns - 40)
    return text if len(text) <= room else text[: room - 3] + "..."


def headline(study: StudyFile, context: Context, now: Running | None) -> str:
    """The study in one line: how far it is, the best value, and that it is run `now`."""
    ended = sum(t.outcome is not None for t in context.own)
    parts = [f"{as_line(study.config.study_name, 40)}: {ended}/{study.n_trials(context)} trials"]
    if context.failed:
        parts.append(f"{len(context.failed)} failed")
    best = incumbent(context) if context.task.noisy else context.best
    if best is not None and best.value is not None:
        parts.append(f"best {as_line(context.task.metric, 30)} {show_number(best.value)} (trial {best.number})")
    if now is None:
        parts.append("not running" if ended < study.n_trials(context) else "done")
    else:
        parts.append(f"{len(context.pending)} running ({now.holder})")
    return ", ".join(parts)


def ended(trial: Trial) -> str:
    """How a trial has ended, in one line."""
    message = "" if trial.outcome is None or trial.value is not None else as_line(trial.outcome.message, _REASON)
    return f"trial {trial.number}: {value_text(trial)}" + (f", {message}" if message else "")


def last_words(study: StudyFile) -> str:
    """Why a run in the background has just ended; "" where it was not one in the background."""
    if not study.log.exists() or time.time() - study.log.stat().st_mtime > _FRESH_S:
        return ""
    found = [line for line in study.log_tail().splitlines() if line.startswith(("stopped: ", "error: "))]
    return as_line(found[-1].removeprefix("stopped: "), _LINE) if found else "it was cut off; /resume goes on"


def trial(session: Session, words: list[str]) -> str:
    """All of a trial."""
    number, study = whole_number("trial", words), session.study()
    return trial_text(_begun(study), number, study.config)


def why(session: Session, words: list[str]) -> str:
    """Why a trial was tried."""
    number, study = whole_number("why", words), session.study()
    context = _begun(study)
    found = trial_of(context, number)
    p = found.proposal
    lines = [f"trial {number} came from {source_text(found)}: {_SOURCES.get(p.source, 'that proposer')}"]
    if p.rationale:
        lines.append(f"reason given: {as_data(p.rationale, 1000)}")
    lines.append(_beside_best(context, found))
    shares = sorted(fit_screen(context.within(p.code)).sensitivities().items(), key=lambda item: -item[1])[:5]
    if shares:
        lines.append("what matters so far: " + ", ".join(f"{as_line(n, 40)} {share:.0%}" for n, share in shares))
    return "\n".join(lines)


_SOURCES = {
    "default": "the configuration that the space declares, to compare with",
    "llm": "the language model proposed it",
    "edit": "the language model edited the code",
    "random": "a point that fills the space, before much is known",
    "gp": "the surrogate expects the most from it",
    "tpe": "Optuna's estimator drew it",
    "cmaes": "drawn around the best trials",
    "neighbour": "a step away from one of the best",
    "sobol": "a point far from the others that the surrogate likes",
    "prior": "drawn from what the model believes",
    "repeat": "a leading configuration once more, for its value is noisy",
}


def _beside_best(context: Context, trial: Trial) -> str:
    best = incumbent(context)
    if best is None or best.number == trial.number or best.value is None:
        return "it is the best so far" if best is not None else "no trial has ended well yet"
    differs = [
        f"{as_line(n, 30)} {show_value(trial.params[n])} (best: {show_value(best.params[n])})"
        for n in trial.params
        if n in best.params and trial.params[n] != best.params[n]
    ]
    value = value_text(trial)
    return f"{value}, where the best, trial {best.number}, has {show_number(best.value)}; it differs in {'; '.join(differs) or 'nothing'}"


def best(session: Session, words: list[str]) -> str:
    """The best beside the default."""
    if words:
        raise wrong_use("best", words)
    study = session.study()
    result = study.result(_begun(study))
    if result.best is None or result.best_value is None:
        raise ConfigError(f"no trial of {study.config.study_name!r} has ended well yet; /status shows what happened")
    metric = as_line(result.task.metric, 30)
    lines = [f"trial {result.best.number}, from {source_text(result.best)}: {metric} {show_number(result.best_value)}"]
    if result.default is not None and result.default.value is not None:
        lines[0] += f" (default: {show_number(result.default.value)})"
    changed = {} if result.default is None else result.default.params
    for name, value in result.best.params.items():
        was = f"   default {show_value(changed[name])}" if name in changed and changed[name] != value else ""
        lines.append(f"  {as_line(name, 40)} = {show_value(value, 6)}{was}")
    return "\n".join(lines)


def diff(session: Session, words: list[str]) -> str:
    """What a trial's code changed."""
    number, study = whole_number("diff", words), session.study()
    context = _begun(study)
    found = trial_of(context, number)
    if context.baseline is None:
        raise ConfigError(
            f"study {study.config.study_name!r} edits no code; name what may change with `editable` in {session.path}"
        )
    code = found.proposal.code
    if not code:
        return f"trial {number} ran the code as it stood when the study began"
    text = Lineage(study.config.directory / REPOSITORY).diff(context.baseline.id, code)
    return "".join(c if c in "\t\n " or unicodedata.category(c)[0] not in "CZ" else "\ufffd" for c in text)


def report(session: Session, words: list[str]) -> str:
    """Write the report."""
    if len(words) > 1:
        raise wrong_use("report", words)
    study = session.study()
    _begun(study)
    return f"wrote {study.write_report(Path(words[0]).expanduser() if words else None)}"


def export(session: Session, words: list[str]) -> str:
    """The best configuration."""
    if len(words) > 2 or (words and words[0] not in FORMS):
        raise wrong_use("export", words)
    study = session.study()
    context = _begun(study)
    text = export_text(chosen_trial(context, study.config), words[0] if words else "json", study.config, context)
    if len(words) < 2:
        return as_data(text, 20_000)
    try:
        Path(words[1]).expanduser().write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{words[1]!r} cannot be written: {error.strerror}; name another file") from None
    return f"wrote {words[1]}"


def _begun(study: StudyFile) -> Context:
    """The study, where it has a record. Raises: StoreError."""
    if not study.exists:
        raise StoreError(f"study {study.config.study_name!r} has no trials yet; /run begins")
    return study.context()

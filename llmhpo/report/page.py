"""The page: sections in the order in which a reader asks. It holds no script and asks the network for nothing."""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path

from llmhpo.agents.quality import qualities
from llmhpo.agents.reflect import reflect
from llmhpo.code.lineage import Lineage
from llmhpo.comparison import LEVEL, SEEDLESS, Confirmation, Interval, Reruns
from llmhpo.config import RunConfig
from llmhpo.confirmation import Held, kept_confirmation
from llmhpo.editing import REPOSITORY
from llmhpo.history import show_number, show_value
from llmhpo.llm.redact import Redactor
from llmhpo.progress import usage_text
from llmhpo.report.charts import curve_chart, history_chart, importance_chart, parallel_chart, slice_charts, sources
from llmhpo.report.edits import Diff, code_section
from llmhpo.report.markup import Markup, block, el, join, line, table
from llmhpo.result import Result, result_of
from llmhpo.surrogates.incumbent import settled
from llmhpo.surrogates.screen import fit_screen
from llmhpo.trial import Context, Trial

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MOST_ROWS, _MOST_REASONS, _MOST_FAILURES = 500, 12, 20
_PACKAGES = ("llmhpo", "optuna", "numpy", "torch")


def study_report(config: RunConfig, context: Context, *, again: str = "") -> str:
    """The report of the study of a study.toml, as it stands in `context`. Raises: ConfigError."""
    words = config.command if isinstance(config.command, str) else shlex.join(config.command or ())
    diff = None if context.baseline is None else Lineage(config.directory / REPOSITORY).diff
    result = replace(
        result_of(context, config.study_name, config.storage), confirmation=_kept(config, context, "promotion")
    )
    return report_html(result, context, command=words, again=again, diff=diff, tested=_kept(config, context, "test"))


def _kept(config: RunConfig, context: Context, held: Held) -> Confirmation | None:
    """What `llmhpo confirm` has found for what leads now."""
    split = held if config.scoring is not None and held in config.scoring.splits else "search"
    return kept_confirmation(str(config.storage), config.study_name, context, held, split)


def report_html(
    result: Result,
    context: Context,
    *,
    command: str = "",
    again: str = "",
    diff: Diff | None = None,
    tested: Confirmation | None = None,
) -> str:
    """The report of a study as one HTML page.

    `command` is what a trial runs, `again` how the study is run on; both are quoted in the last section. `diff`: see `code_section`.
    `tested` is what the sealed test split says, where it was opened.
    """
    parts = [_head(result), *_sections(result, context, command, again, diff, tested)]
    style = Markup(resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("title", f"{line(result.study_name, 80)} - llmhpo"),
        el("style", style),
    )
    page = "<!doctype html>\n" + el("html", head, el("body", el("main", *parts)), lang="en") + "\n"
    return Redactor.from_environment()(
        page
    )  # what study.toml says does not come from the store, which holds no secrets


def write_report(path: Path, page: str) -> None:
    """Write the page where another may be read from meanwhile. Raises: OSError."""
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8", errors="replace")
    part.replace(path)


def _head(result: Result) -> Markup:
    best, default, task = result.best, result.default, result.task
    own = len(result.context.own)
    cards = [_card(str(own), ", ".join(["trials", *_unfinished(result)])), _bill(result)]
    if best is not None and result.best_value is not None:
        if default is not None and default.value is not None:
            gain = task.loss(default.value) - task.loss(result.best_value)
            words = f"{'better' if gain > 0 else 'no better'} than the default ({show_number(default.value, 5)})"
            cards.insert(0, _card(show_number(abs(gain), 3), words, "better" if gain > 0 else "worse"))
        cards.insert(0, _card(show_number(result.best_value, 5), f"best {line(task.metric, 40)}, trial {best.number}"))
    text = (el("p", line(part, 2000)) for part in task.text.split("\n\n"))
    goal = el("p", f"{task.direction} {line(task.metric, 60)}", class_="quiet")
    return join([el("h1", line(result.study_name, 120)), goal, *text, el("div", *cards, class_="cards")])


def _unfinished(result: Result) -> Iterator[str]:
    failed = sum(t.outcome is not None and t.value is None for t in result.trials)
    running = sum(t.outcome is None for t in result.trials)
    if failed:
        yield f"{failed} without a value"
    if running:
        yield f"{running} running"
    if imported := len(result.trials) - len(result.context.own):
        yield f"{imported} imported"


def _bill(result: Result) -> Markup:
    usd, tokens = result.usage.usd, result.usage.input_tokens + result.usage.output_tokens
    return _card(f"{tokens:,} tokens" if not usd else f"${usd:.4f}", f"the model: {usage_text(result.usage)}")


def _card(figure: str, words: str, class_: str | None = None) -> Markup:
    return el("div", el("b", figure, class_=class_), el("span", words), class_="card")


def _sections(
    result: Result, context: Context, command: str, again: str, diff: Diff | None, tested: Confirmation | None
) -> Iterator[Markup]:
    best = result.best
    sensitivities = fit_screen(settled(context)).sensitivities()
    order = sorted(context.space.names, key=lambda name: -sensitivities.get(name, 0.0))
    if best is not None:
        confirmed = [_confirmed(c) for c in (result.confirmation, tested)]
        yield from _section("Best against default", _comparison(result, best), _ends(result), *confirmed)
    note = el("p", "Values far worse than the better half lie at the edge.", class_="quiet")
    yield from _section("What was learned", *_insights(context))
    yield from _section("History", history_chart(context), note, when=bool(context.finished))
    if best is not None:
        yield from _section(
            "What matters",
            importance_chart(sensitivities),
            el(
                "p",
                "Share of each parameter in the variance that the surrogate sees, over the whole space.",
                class_="quiet",
            ),
            when=bool(sensitivities),
        )
        yield from _section(
            "Slices",
            slice_charts(context, best, order),
            el(
                "p",
                "Points are trials. The line is the surrogate's prediction with all other parameters as in the best "
                "configuration (the dark point), the band its standard deviation.",
                class_="quiet",
            ),
        )
        yield from _section("Parallel coordinates", parallel_chart(context, best, order))
        yield from _section("Learning curves", curve_chart(context, best))
    yield from _section("Where the trials came from", _by_source(context), *_worth(context), *_imported(context))
    yield from _section("The code", *code_section(context, diff))
    yield from _section("What the person said", *_steered(context))
    yield from _section("What the model said", *_rationales(context))
    yield from _section("Failures", *_failures(context))
    yield from _section("All trials", _all_trials(result))
    yield from _section("How to reproduce it", *_reproduce(result, command, again))


def _section(title: str, *parts: Markup, when: bool = True) -> Iterator[Markup]:
    """A section, unless there is nothing in it."""
    if when and any(parts):
        yield el("section", el("h2", title), *parts)


def _comparison(result: Result, best: Trial) -> Markup:
    default = None if result.default is None else result.default.params
    rows = []
    for name in result.space.names:
        value = show_value(best.params[name], 5) if name in best.params else "-"
        before = "" if default is None else show_value(default[name], 5) if name in default else "-"
        changed = "changed" if default is not None and value != before else None
        shown = [el("span", line(text, 60), class_=changed) for text in (value, before)]
        rows.append([el("span", line(name, 60), class_=changed), *shown, line(result.space[name].doc, 120)])
    return table(["parameter", f"trial {best.number}", "default" if default else "", ""], rows)


def _ends(result: Result) -> Markup:
    names = ", ".join(line(name, 60) for name in result.at_ends)
    told = f"Where its range ends: {names}. A wider range may hold better."
    return el("p", told, class_="quiet") if names else Markup("")


def _confirmed(c: Confirmation | None) -> Markup:
    if c is None:
        return Markup("")
    rows = [[name, _interval(arm.interval)] for name, arm in _arms(c)]
    if c.default is not None:
        rows.append(["difference", _interval(c.difference)])
    verdict = c.verdict or line(c.note, 200)
    if c.code:
        verdict = f"not confirmed, {c.objection}" if c.objection else "confirmed"
    remarks = [
        f"{arm.failed} run{'s' * (arm.failed != 1)} of the {name} failed" for name, arm in _arms(c) if arm.failed
    ]
    remarks += [SEEDLESS] if c.is_seedless else []
    told = "; ".join([f"On {line(c.where, 60)}: {verdict}", *remarks])
    return join([el("p", f"{told}."), table(["", f"mean, with its {LEVEL:.0%} interval"], rows)])


def _arms(c: Confirmation) -> list[tuple[str, Reruns]]:
    other = "code as it stood" if c.code else "default"
    return [("winner", c.best), *([] if c.default is None else [(other, c.default)])]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return show_number(interval.mean, 5)
    return f"{show_number(interval.mean, 5)} ({show_number(interval.low, 5)} to {show_number(interval.high, 5)})"


def _insights(context: Context) -> Iterator[Markup]:
    """What `agents.reflect` says, each with what it rests on."""
    found = reflect(context).insights
    if found:
        rows = [
            [el("span", line(i.text, 300)), line(i.claim.statistic, 200), ", ".join(map(str, i.claim.trials[:5]))]
            for i in found
        ]
        yield table(["", "it rests on", "best trials of it"], rows)
        yield el("p", "These hold where the search looked, which is not everywhere.", class_="quiet")


def _by_source(context: Context) -> Markup:
    rows = []
    for source in sources(context):
        trials = [t for t in context.trials if t.proposal.source == source]
        valued = [t for t in trials if t.value is not None]
        best = min(valued, key=lambda t: context.task.loss(t.value or 0.0), default=None)
        seconds = sum(t.outcome.seconds for t in trials if t.outcome is not None)
        figures = ["-" if best is None else show_number(best.value or 0.0, 5), f"{seconds:.0f} s"]
        rows.append([line(source, 40), str(len(trials)), str(len(valued)), *figures])
    return table(["source", "trials", "ended well", "best", "time"], rows)


def _worth(context: Context) -> Iterator[Markup]:
    """What the proposals of each model were worth."""
    asked = [q for q in qualities(context) if q.counted]
    if asked:
        head = ["model", "prompt", "asked for", *asked[0].shares, f"{line(context.task.metric, 30)} gained"]
        rows = [
            [line(q.origin.model, 60), line(q.origin.prompt, 30), str(q.asked), *map(_percent, q.shares.values()),
             show_number(q.improvement, 3)]
            for q in asked
        ]  # fmt: skip
        yield el("details", el("summary", "what the model's proposals were worth"), table(head, rows))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _imported(context: Context) -> Iterator[Markup]:
    for transfer in context.transfers:
        yield el("p", f"Imported: {line(str(transfer), 600)}.")


def _steered(context: Context) -> Iterator[Markup]:
    """Notes to the model, and what was changed while the study ran."""
    said = context.steering
    for note in said.notes:
        yield el("p", line(note.text, 500))
    for name, limit in said.limits.items():
        values = " or ".join(repr(v) if isinstance(v, float) else show_value(v) for v in limit.values or ())
        ends = [("from", limit.low), ("to", limit.high)]
        told = values or " ".join(f"{word} {show_number(end, 15)}" for word, end in ends if math.isfinite(end))
        yield el("p", f"searched of {line(name, 60)}: {line(told, 300)}", class_="quiet")
    rest = {k: v for k, v in said.to_dict().items() if k in ("added", "budget")}
    for name, value in rest.items():
        yield el("p", f"{name}: {line(json.dumps(value), 400)}", class_="quiet")


def _rationales(context: Context) -> Iterator[Markup]:
    said = [t for t in context.trials if t.proposal.rationale and t.proposal.provenance is not None]
    ranked = sorted((t for t in said if t.value is not None), key=lambda t: context.task.loss(t.value or 0.0))
    rows = [
        [str(t.number), show_number(t.value or 0.0, 5), line(t.proposal.rationale, 400)] for t in ranked[:_MOST_REASONS]
    ]
    if rows:
        yield table(["trial", line(context.task.metric, 40), "its reason"], rows)
    if context.batches:
        asked = [
            [
                str(b.at),
                line(b.kind, 30),
                f"{len(b.proposals)} of {b.asked}",
                f"{b.usage.input_tokens + b.usage.output_tokens}",
                "not known" if b.usage.usd is None else f"${b.usage.usd:.4f}",
                line(b.error or "; ".join(b.problems), 200),
            ]
            for b in context.batches[:_MOST_ROWS]
        ]
        head = ["at trial", "asked for", "usable", "tokens", "money", "trouble"]
        yield el("details", el("summary", f"what was asked, and when ({len(context.batches)})"), table(head, asked))


def _failures(context: Context) -> Iterator[Markup]:
    for t in context.failed[-_MOST_FAILURES:]:
        assert t.outcome is not None
        head = f"trial {t.number}: {t.outcome.status}: {line(t.outcome.message, 200)}"
        inside = [el("pre", block(t.outcome.log_tail))] if t.outcome.log_tail else []
        yield el("details", el("summary", head), *inside) if inside else el("p", head)
    if (more := len(context.failed) - _MOST_FAILURES) > 0:
        yield el("p", f"and {more} earlier ones", class_="quiet")


def _all_trials(result: Result) -> Markup:
    names = result.space.names
    shown = result.trials[-_MOST_ROWS:]
    rows = [_row(t, names) for t in shown]
    left_out = len(result.trials) - len(shown)
    title = f"{len(shown)} trials" + (f" ({left_out} earlier ones are left out)" if left_out else "")
    head = ["trial", line(result.task.metric, 40), "source", "time", *(line(n, 40) for n in names)]
    return el("details", el("summary", title), table(head, rows))


def _row(t: Trial, names: Iterable[str]) -> list[str]:
    outcome = t.outcome
    state = "running" if outcome is None else outcome.status if outcome.value is None else show_number(outcome.value, 6)
    seconds = "-" if outcome is None else f"{outcome.seconds:.1f} s"
    values = (line(show_value(t.params[n], 5), 60) if n in t.params else "-" for n in names)
    return [str(t.number), state, line(t.proposal.source, 30), seconds, *values]


def _reproduce(result: Result, command: str, again: str) -> Iterator[Markup]:
    facts = [["seed", str(result.seed)], ["space", result.space.revision]]
    facts += [[name, version] for name in _PACKAGES if (version := _version(name))]
    facts.append(["Python", platform.python_version()])
    yield table(["", ""], facts)
    if result.best is not None:
        lines = [
            f"# what a trial runs\n{command}\n" if command else "",
            f"# its best parameters, as a file or as arguments\nllmhpo export --trial {result.best.number} --format json\n",
            f"# to go on\n{again}" if again else "",
        ]
        yield el("pre", block("\n".join(text for text in lines if text), 4000))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""

"""Every figure of README's benchmark section by one command: python -m evals benchmark.

The runs that the section was written from lie packed in evals/results. What the plans below ask for beyond them is run, and
the section between README's two marks is written anew, with all bars and tables in evals/results/report.md. `--fresh` runs
everything again.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evals.archive import pack, unpack
from evals.bars import Bar, bar_table, bars
from evals.record import Run, Start, read_runs
from evals.run import RUNS, Plan, half_b, run
from evals.score import Comparison, Table, all_tables, compare_arms, provenance, to_markdown

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"
_HEADLINE = ("hpob", "fcnet", "hpobench_mlp", "lcbench_pool", "taskset", "imagenet", "mnli")
_NO_TRAINING = "[!r]*"  # the tasks of the family `real` train models, minutes a run
_CHEAP = ("none", "garbage", "recorded", "recorded_tpe", "tpe", "random", "cmaes")
_ALL = ("none", "garbage", "gp", "tpe", "random", "cmaes")
_OTHERS = ("smollm2", "zhang:chat@smollm2", "zhang:compressed@smollm2", "llambo:gen@smollm2", "llambo:disc@smollm2")
_STARTS: tuple[Start, ...] = ("unseeded", "seeded")
_WORDS = {
    "none": "llmhpo without a model",
    "recorded": "llmhpo with recorded proposals of a strong model",
    "recorded_tpe": "the same proposals, all ten, then Optuna's TPE",
    "garbage": "llmhpo with a model that answers garbage",
    "smollm2": "llmhpo with SmolLM2-135M",
    "gp": "Optuna's GP",
    "tpe": "Optuna's TPE",
    "cmaes": "CMA-ES",
    "random": "random search",
    "smac": "SMAC3",
}


def plans(data: Path) -> list[Plan]:
    """What the section is made of, cheapest first."""
    headline = Plan(data, "headline", ("gp",), seeds=8, budget=50, pattern=_NO_TRAINING)
    quick = replace(headline, arms=("none", "tpe", "random", "cmaes"), starts=("unseeded",))
    return [
        replace(headline, suite="core", arms=_CHEAP),
        replace(quick, batches=(4,)),
        replace(quick, seeds=2, budget=100),
        headline,
        replace(headline, arms=("smac",), seeds=1, pattern="[!rt]*"),  # on taskset it asks for ever: evals/README.md
        replace(headline, arms=("smollm2",), seeds=2, half="b", starts=("unseeded",)),
        replace(headline, arms=_OTHERS, seeds=1, budget=25, starts=("unseeded",), pattern="hpob/5859_9977"),
    ]


def benchmark(data: Path, out: Path, *, fresh: bool = False, jobs: int = 1, show: bool = True) -> list[str]:
    """Run what is missing, write README's section and report.md, pack the runs. Returns what went wrong."""
    runs = {r.key: r for path in sorted(RESULTS.glob("*.jsonl.gz")) for r in unpack(path)} if not fresh else {}
    problems = []
    for plan in plans(data):
        problems += run(plan, out, known=runs.keys(), jobs=jobs, show=show)
    own = half_b(data, "core")
    for r in read_runs(out / RUNS):
        runs[r.key] = replace(r, half="b" if r.key.task in own else "a")
    everything = list(runs.values())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    if read_runs(out / RUNS):
        for path in RESULTS.glob("*.jsonl.gz"):
            path.unlink()
        pack(everything, RESULTS / f"{today}.jsonl.gz")
    (RESULTS / "report.md").write_text(report(everything), encoding="utf-8")
    write_section(README, section(everything))
    return problems


# --- README's section ---------------------------------------------------------------------------------------------------


def write_section(readme: Path, text: str) -> None:
    """Replace what stands between the marks of a file.

    Raises: ValueError where a mark is missing.
    """
    whole = readme.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{readme}: the lines {_BEGIN.strip()!r} and {_END.strip()!r} are missing; put them back")
    readme.write_text(f"{before}{_BEGIN}{text}{_END}{after}", encoding="utf-8")


def section(runs: Sequence[Run]) -> str:
    """The benchmark section of README, without its heading."""
    main = [r for r in runs if r.key.budget == 50 and r.key.batch == 1 and not r.key.anonymous]
    headline = [r for r in main if r.family in _HEADLINE]
    parts = [_intro(runs)]
    for start in _STARTS:
        of_start = [r for r in headline if r.key.start == start]
        parts.append(_small_table(compare_arms(of_start, _present(of_start, _ALL)), start))
    for start in _STARTS:
        of_start = [r for r in main if r.key.start == start]
        arms = _present(of_start, ("recorded", "recorded_tpe", "none", "tpe", "random", "cmaes"))
        if "recorded" in arms:
            parts.append(_small_table(compare_arms(of_start, arms), f"{start}, where proposals are recorded"))
    parts.append(_not_better(bars(main)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro(runs: Sequence[Run]) -> str:
    return (
        "Mean normalised regret of the incumbent (0: best known, 1: median), every arm from the same first configuration: a\n"
        "random one (*unseeded*), or the task's default, else the first recorded proposal (*seeded*).\n"
        f"{_provenance(runs)}. `python -m evals benchmark` writes this section from the runs in `evals/results`, where\n"
        "`report.md` has every bar, family, interval and cost; `--fresh` runs them again."
    )


def _provenance(runs: Sequence[Run]) -> str:
    pythons = sorted({r.versions.get("python", "?") for r in runs})
    optunas = sorted({r.versions.get("optuna", "?") for r in runs})
    codes = sorted({r.revision for r in runs if r.key.arm in ("none", "recorded", "garbage")})
    return (
        f"2 shared cores (AMD EPYC), Python {', '.join(pythons)}, Optuna {', '.join(optunas)}, llmhpo at {', '.join(codes)},\n"
        f"{_date(runs)}"
    )


def _date(runs: Sequence[Run]) -> str:
    archives = sorted(path.name.removesuffix(".jsonl.gz") for path in RESULTS.glob("*.jsonl.gz"))
    return f"{len(runs)} runs, {archives[-1] if archives else 'today'}"


def _present(runs: Sequence[Run], arms: Sequence[str]) -> list[str]:
    seen = {r.key.arm for r in runs}
    return [arm for arm in arms if arm in seen]


def _small_table(c: Comparison | None, title: str) -> str:
    if c is None:
        return ""
    shown = [k for k in (5, 10, 25, 50) if k <= c.budget]
    rows: Table = [[f"{title}: {len(c.tasks)} tasks, {c.seeds} seeds", *(f"@{k}" for k in shown), f"rank @{c.budget}"]]
    for arm in sorted(c.arms, key=lambda a: float(c.regrets[a][:, -1].mean())):
        means = c.regrets[arm].mean(axis=0)
        rank = f"{c.ranks[arm][:, -1].mean():.2f}"
        rows.append([_WORDS.get(arm, arm), *(f"{means[k - 1]:.3f}"[1:] for k in shown), rank])
    return to_markdown(rows)


def _not_better(found: Sequence[Bar]) -> str:
    missed = [b for b in found if not b.held]
    lines = [f"- {b.claim}, {b.start}, after {b.trial} trials: {b.measured:.2f}, asked {b.bound:.2f}" for b in missed]
    return "\n".join([f"**What was not better** ({len(missed)} of {len(found)} bars are missed):\n", *lines])


# --- the whole report ---------------------------------------------------------------------------------------------------


def report(runs: Sequence[Run]) -> str:
    """All bars and all tables as Markdown."""
    main = [r for r in runs if r.key.budget == 50 and r.key.batch == 1 and not r.key.anonymous]
    half = [r for r in main if r.half == "b"]
    parts = ["# Benchmark report", f"Written by `python -m evals benchmark`. {_date(runs)}."]
    parts += ["## Bars, all tasks", to_markdown(bar_table(bars(main)))]
    parts += ["## Bars, half b alone: tasks that nothing was tuned on", to_markdown(bar_table(bars(half)))]
    for title, c in _comparisons(runs):
        parts.append(f"## {title}")
        parts.append(provenance([c]))
        parts += [to_markdown(table) for table in all_tables(c, per_task=True)]
    return "\n\n".join(parts) + "\n"


def _comparisons(runs: Sequence[Run]) -> list[tuple[str, Comparison]]:
    found = []
    groups = sorted({(r.key.budget, r.key.batch, r.key.anonymous, r.key.start) for r in runs})
    for budget, batch, anonymous, start in groups:
        of_group = [
            r
            for r in runs
            if (r.key.budget, r.key.batch, r.key.anonymous, r.key.start) == (budget, batch, anonymous, start)
        ]
        head = [r for r in of_group if r.family in _HEADLINE]
        where = f"{start}, batch {batch}, {budget} trials" + (", anonymous" if anonymous else "")
        wanted = {
            "headline": (head, _ALL),
            "headline with SMAC3": (head, (*_ALL, "smac")),
            "core": (of_group, [a for a in _ALL if a != "gp"]),
            "where proposals are recorded": (
                of_group,
                ("recorded", "recorded_tpe", "none", "garbage", "tpe", "random", "cmaes"),
            ),
            "SmolLM2": (of_group, ("smollm2", "none", "tpe", "random")),
            "other authors' methods on the same model": (of_group, _OTHERS),
        }
        for name, (some, arms) in wanted.items():
            present = _present(some, arms)
            if not _complete(name, present, arms):
                continue
            c = compare_arms(some, present)
            if c is not None:
                found.append((f"{name}: {where}, {len(c.tasks)} tasks, {c.seeds} seeds", c))
    return found


def _complete(name: str, present: Sequence[str], arms: Sequence[str]) -> bool:
    """Whether a comparison says something that another one does not."""
    return len(present) > 1 and (name in ("headline", "core") or (present[0] == arms[0] and arms[-1] in present))

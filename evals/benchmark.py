"""Every figure of README's benchmark section by one command: python -m evals benchmark.

The runs that the section was written from lie packed in evals/results. What the plans below ask for beyond them is run, and
the section between README's two marks is written anew, with all bars and tables in evals/results/report.md. `--again` leaves
arms out of what is packed, so that the present code runs them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from evals.archive import pack, unpack
from evals.bars import bar_table, bars
from evals.record import Run, Start, read_runs
from evals.run import RUNS, Plan, code_revision, half_b, run
from evals.score import Comparison, Table, against, all_tables, compare_arms, provenance, to_markdown

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"
_HEADLINE = ("hpob", "fcnet", "hpobench_mlp", "lcbench_pool", "taskset", "imagenet", "mnli")
_NO_POOLS = ("fcnet", "hpobench_mlp")
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


def benchmark(data: Path, out: Path, *, again: Sequence[str] = (), jobs: int = 1, show: bool = True) -> list[str]:
    """Run what is missing, and the arms `again`; write README's section and report.md, pack the runs. Returns what went wrong.

    Raises: ValueError for an arm of `again` that is not packed, and for an `out` with its runs by other code.
    """
    packed = [r for path in sorted(RESULTS.glob("*.jsonl.gz")) for r in unpack(path)]
    if unknown := set(again) - {r.key.arm for r in packed}:
        raise ValueError(f"--again: no runs of {', '.join(sorted(unknown))} are packed; arms: {_arms(packed)}")
    runs = {r.key: r for r in packed if r.key.arm not in again}
    if any(r.key.arm in again and r.revision != code_revision() for r in read_runs(out / RUNS)):
        raise ValueError(
            f"{out / RUNS} holds runs of other code, which --again would use; give another --out, or remove it"
        )
    problems = []
    for plan in plans(data):
        problems += run(plan, out, known=runs.keys(), jobs=jobs, show=show)
    own = half_b(data, "core")
    for r in read_runs(out / RUNS):
        runs[r.key] = replace(r, half="b" if r.key.task in own else "a")
    write(list(runs.values()))
    return problems


def _arms(runs: Iterable[Run]) -> str:
    return ", ".join(sorted({r.key.arm for r in runs}))


def write(runs: Sequence[Run]) -> None:
    """Pack runs, and write report and section from what was packed."""
    packed = {path: path.read_bytes() for path in RESULTS.glob("*.jsonl.gz")}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    archive = RESULTS / f"{today}.jsonl.gz"
    pack(runs, archive)
    if archive.read_bytes() in packed.values():  # nothing new: it keeps its date
        archive = next(path for path, content in packed.items() if content == archive.read_bytes())
    for path in RESULTS.glob("*.jsonl.gz"):
        if path != archive:
            path.unlink()
    kept = unpack(archive)
    (RESULTS / "report.md").write_text(report(kept), encoding="utf-8")
    write_section(README, section(kept))


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
    main = _main(runs)
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
    parts += [_snapping(headline), _not_better(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _main(runs: Sequence[Run]) -> list[Run]:
    return [r for r in runs if r.key.budget == 50 and r.key.batch == 1 and not r.key.anonymous]


def _intro(runs: Sequence[Run]) -> str:
    return (
        "Mean normalised regret of the incumbent (0: best known, 1: median), every arm from the same first configuration: a\n"
        "random one (*unseeded*), or the task's default, else the first recorded proposal (*seeded*). All tasks, those that\n"
        "constants were chosen on (half a) included; the bars below are half b's. No tasks that train real models.\n"
        f"{_provenance(runs)}\n"
        "`python -m evals benchmark` writes this section from the runs in `evals/results`; `report.md` there has every bar,\n"
        "half, family, interval and cost, batches of 4, 100 trials, and arms with fewer seeds (SMAC3, SmolLM2, LLAMBO, Zhang)."
    )


def _provenance(runs: Sequence[Run]) -> str:
    def seen(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values)))

    code = "; ".join(
        f"{arm} {seen(r.revision for r in runs if r.key.arm == arm)}"
        for arm in _present(runs, ("none", "recorded", "garbage", "smollm2"))
    )
    python, optuna = (seen(r.versions.get(name, "?") for r in runs) for name in ("python", "optuna"))
    return f"{seen(r.machine for r in runs)}; Python {python}, Optuna {optuna}; code: {code}; {_date(runs)}."


def _date(runs: Sequence[Run]) -> str:
    archives = sorted(path.name.removesuffix(".jsonl.gz") for path in RESULTS.glob("*.jsonl.gz"))
    return f"{len(runs)} runs, packed {archives[-1] if archives else 'never'}"


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


def _snapping(runs: Sequence[Run]) -> str:
    """How much of a lead is the pools', which answer with the nearest row."""
    lines = []
    for start in _STARTS:
        of_start = [r for r in runs if r.key.start == start]
        tables = [r for r in of_start if r.family in _NO_POOLS]
        shares = []
        for where, some in (("pools", [r for r in of_start if r.family not in _NO_POOLS]), ("full tables", tables)):
            rivals = _present(some, ("gp", "tpe", "random", "cmaes"))
            c = compare_arms(some, ["none", *rivals]) if rivals and _present(some, ["none"]) else None
            if c is not None:
                best = c.best_classical(25)
                assert best is not None
                a = against(c, "none", best, 25)
                shares.append(f"{a.ratio:.2f} [{a.low:.2f}, {a.high:.2f}] on {len(c.tasks)} {where} ({best})")
        if shares:
            lines.append(f"{start}: none / best classical arm after 25 trials is {' and '.join(shares)}.")
    if not lines:
        return ""
    known = (
        "Pools answer with their nearest row, so arms that stay near the incumbent lose trials to rows already seen; the screen\n"
        "notices and keeps its distance, the other arms do not. That is part of the lead:"
    )
    return "\n".join([known, *lines])


def _not_better(runs: Sequence[Run]) -> str:
    found = [b for b in bars(r for r in runs if r.half == "b") if b.primary]
    pooled = [b for b in bars(runs) if b.primary]
    missed = [b for b in found if not b.held]
    lines = [
        f"- {b.claim}, {b.start}, after {b.trial} trials: {b.measured:.3f}{b.interval}, asked {b.bound:.2f} ({b.tasks} x {b.seeds})"
        for b in missed
    ]
    head = (
        f"**What was not better.** Of {len(found)} bars {len(missed)} are missed on half b (tasks x seeds); on all tasks"
        f" {sum(not b.held for b in pooled)} of {len(pooled)}:\n"
    )
    return "\n".join([head, *lines])


# --- the whole report ---------------------------------------------------------------------------------------------------


def report(runs: Sequence[Run]) -> str:
    """All bars and all tables as Markdown."""
    half = [r for r in runs if r.half == "b"]
    parts = ["# Benchmark report", f"Written by `python -m evals benchmark`. {_date(runs)}."]
    parts += ["## Bars, all tasks, the tuned half included", to_markdown(bar_table(bars(runs)))]
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

"""From runs to figures: normalised regret, ranks, shares, cost, and what is left of a difference after its noise.

Arms are compared on the (task, seed) pairs that all of a comparison's arms have run; an arm that exists on some tasks only
(`recorded`) is compared a second time on its own tasks, with every arm that ran on all of those.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon

from evals.arms import CLASSICAL
from evals.record import Run

Array = npt.NDArray[np.float64]
Pair = tuple[str, int]  # task, seed

CHECKPOINTS = (5, 10, 25, 50, 100)
_BOOTSTRAPS = 2000
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Comparison:
    """Arms on the same tasks, seeds, start, batch size and budget. `runs`: arm -> (task, seed) -> run."""

    title: str
    budget: int
    runs: Mapping[str, Mapping[Pair, Run]]

    @property
    def arms(self) -> list[str]:
        """The arms, as the runs came."""
        return list(self.runs)

    @cached_property
    def pairs(self) -> list[Pair]:
        """(task, seed) of every run of an arm, the same for all arms."""
        return sorted(next(iter(self.runs.values())))

    @cached_property
    def tasks(self) -> list[str]:
        """Task ids, sorted."""
        return sorted({task for task, _ in self.pairs})

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """Family -> task ids."""
        found: dict[str, list[str]] = defaultdict(list)
        first = next(iter(self.runs.values()))
        family = {task: first[task, seed].family for task, seed in self.pairs}
        for task in self.tasks:
            found[family[task]].append(task)
        return dict(sorted(found.items()))

    @cached_property
    def seeds(self) -> int:
        """Seeds of the task that has fewest."""
        return min(Counter(task for task, _ in self.pairs).values())

    @property
    def checkpoints(self) -> list[int]:
        """The budgets at which regret is shown."""
        return [k for k in CHECKPOINTS if k < self.budget] + [self.budget]

    @cached_property
    def regrets(self) -> dict[str, Array]:
        """Arm -> incumbent's regret, (tasks, budget), mean over seeds."""
        by_arm: dict[str, Array] = {}
        for arm, runs in self.runs.items():
            rows: dict[str, list[list[float]]] = defaultdict(list)
            for (task, _), run in runs.items():
                rows[task].append(run.regrets)
            by_arm[arm] = np.array([np.mean(rows[task], axis=0) for task in self.tasks])
        return by_arm

    @cached_property
    def ranks(self) -> dict[str, Array]:
        """Arm -> mean rank after each trial, (tasks, budget): ranked within each seed, 1 is best, ties share."""
        cube = np.array([[self.runs[arm][pair].regrets for pair in self.pairs] for arm in self.arms])
        ranked = rankdata(cube, axis=0)
        place = [self.tasks.index(task) for task, _ in self.pairs]
        rows = [
            np.array([ranked[a][np.equal(place, t)].mean(axis=0) for t in range(len(self.tasks))])
            for a in range(len(self.arms))
        ]
        return dict(zip(self.arms, rows, strict=True))

    def best_classical(self, trial: int, tasks: Sequence[str] | None = None) -> str | None:
        """The classical arm of least mean regret after `trial` trials; None without any."""
        rows = slice(None) if tasks is None else [self.tasks.index(task) for task in tasks]
        classical = [arm for arm in self.arms if arm in CLASSICAL]
        return min(classical, key=lambda arm: float(self.regrets[arm][rows, trial - 1].mean()), default=None)


def compare(runs: Iterable[Run]) -> list[Comparison]:
    """One comparison for each budget, batch size, start and way of naming; two where arms lack tasks."""
    groups: dict[tuple[int, bool, int, str], dict[str, dict[Pair, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        key = run.key
        groups[key.budget, key.anonymous, key.batch, key.start][key.arm][key.task, key.seed] = run
    found: list[Comparison] = []
    for (budget, anonymous, batch, start), arms in sorted(groups.items(), key=lambda item: (item[0][:3], item[0][3])):
        title = f"{start}, batch {batch}, {budget} trials" + (", anonymous" if anonymous else "")
        everywhere = {pair for of_arm in arms.values() for pair in of_arm}
        partial = {arm for arm, of_arm in arms.items() if _tasks(of_arm) != _tasks(dict.fromkeys(everywhere))}
        full = [arm for arm in arms if arm not in partial] or list(arms)
        found += _comparison(title, budget, arms, full)
        if set(full) != set(arms):
            found += _comparison(f"{title}, tasks of {', '.join(sorted(partial))}", budget, arms, list(arms))
    return found


def compare_arms(runs: Iterable[Run], arms: Sequence[str], title: str = "") -> Comparison | None:
    """The comparison of just these arms, on the (task, seed) pairs that all have run; None where there are none.

    `runs` are of one start, batch size, budget and way of naming.
    """
    by_arm: dict[str, dict[Pair, Run]] = {arm: {} for arm in arms}
    budget = 0
    for run in runs:
        if run.key.arm in by_arm:
            by_arm[run.key.arm][run.key.task, run.key.seed] = run
            budget = run.key.budget
    if not arms:
        return None
    return next(iter(_comparison(title, budget, by_arm, arms)), None)


def _tasks(pairs: Iterable[Pair]) -> set[str]:
    return {task for task, _ in pairs}


def _comparison(
    title: str, budget: int, runs: Mapping[str, Mapping[Pair, Run]], arms: Sequence[str]
) -> list[Comparison]:
    shared = set.intersection(*(set(runs[arm]) for arm in arms))
    if not shared:
        return []
    seeds = Counter(task for task, _ in shared)
    title += f" ({len(seeds)} tasks, {len(shared)} runs an arm)"
    return [Comparison(title, budget, {arm: {pair: runs[arm][pair] for pair in sorted(shared)} for arm in arms})]


# --- statistics -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Against:
    """An arm against another one, paired by task: ratio of mean regrets with its 95 % interval, and Wilcoxon's p."""

    other: str
    ratio: float
    low: float
    high: float
    p: float


def against(comparison: Comparison, arm: str, other: str, trial: int) -> Against:
    """Bootstrap over tasks (percentile, seeded); two-sided Wilcoxon signed-rank test over tasks; nan where undefined."""
    a, b = comparison.regrets[arm][:, trial - 1], comparison.regrets[other][:, trial - 1]
    rows = np.random.default_rng(_BOOTSTRAP_SEED).integers(0, len(a), (_BOOTSTRAPS, len(a)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = a[rows].mean(axis=1) / b[rows].mean(axis=1)
        ratio = float(np.float64(a.mean()) / b.mean())
    finite = ratios[np.isfinite(ratios)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    differs = len(a) > 1 and bool(np.any(a != b))
    p = float(wilcoxon(a, b, zero_method="zsplit", method="asymptotic").pvalue) if differs else float("nan")
    return Against(other, ratio, float(low), float(high), p)


def interval(values: Array) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over tasks, (n,)."""
    rows = np.random.default_rng(_BOOTSTRAP_SEED).integers(0, len(values), (_BOOTSTRAPS, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


# --- tables -----------------------------------------------------------------------------------------------------------

Table = list[list[str]]  # the first row is the head


def regret_table(c: Comparison) -> Table:
    """Mean regret with its interval at the end, area under the curve, and mean rank."""
    head = ["arm", *(f"@{k}" for k in c.checkpoints), f"95 % @{c.budget}", "area", f"rank@{c.budget}"]
    rows = []
    for arm in sorted(c.arms, key=lambda a: float(c.regrets[a][:, -1].mean())):
        means = c.regrets[arm].mean(axis=0)
        low, high = interval(c.regrets[arm][:, -1])
        cells = [f"{means[k - 1]:.3f}" for k in c.checkpoints]
        rank = float(c.ranks[arm][:, -1].mean())
        rows.append([arm, *cells, f"{low:.3f}-{high:.3f}", f"{means.mean():.3f}", f"{rank:.2f}"])
    return [head, *rows]


def ratio_table(c: Comparison) -> Table:
    """Every arm against the best single classical one at each checkpoint."""
    best = {k: c.best_classical(k) for k in c.checkpoints}
    head = ["regret / best classical", *(f"@{k} ({best[k]})" for k in c.checkpoints)]
    rows: Table = []
    for arm in c.arms:
        cells = []
        for k in c.checkpoints:
            other = best[k]
            if other is None or other == arm:
                cells.append("1" if other else "")
                continue
            a = against(c, arm, other, k)
            cells.append(f"{a.ratio:.2f} [{a.low:.2f}, {a.high:.2f}] p={a.p:.2g}")
        rows.append([arm, *cells])
    return [head, *rows] if any(best.values()) else []


def family_table(c: Comparison) -> Table:
    """Mean regret of each family at the middle and at the end, and the best classical arm there."""
    shown = [k for k in c.checkpoints if k >= 25] or c.checkpoints[-1:]
    head = ["family", "tasks", "@", *c.arms, "best classical"]
    rows: Table = []
    for family, tasks in c.families.items():
        places = [c.tasks.index(task) for task in tasks]
        for k in shown:
            cells = [f"{c.regrets[arm][places, k - 1].mean():.3f}" for arm in c.arms]
            rows.append([family, str(len(tasks)), str(k), *cells, c.best_classical(k, tasks) or ""])
    return [head, *rows]


def cost_table(c: Comparison) -> Table:
    """Repeats, failures, what came from where, and what it cost."""
    head = [
        "arm",
        "repeats",
        "seen rows",
        "failed",
        "tokens/trial",
        "requests/run",
        "completions/run",
        "ask s/trial",
        "sources",
    ]
    rows: Table = []
    for arm in c.arms:
        runs = list(c.runs[arm].values())
        trials = sum(len(r.values) - 1 for r in runs) or 1  # the first one was given
        sources = Counter(source for r in runs for source in r.sources[1:])
        share = ", ".join(f"{name} {100 * count / trials:.0f} %" for name, count in sources.most_common())
        rows.append(
            [
                arm,
                f"{100 * sum(sum(r.repeat) for r in runs) / trials:.1f} %",
                f"{100 * sum(sum(r.seen) for r in runs) / trials:.1f} %",
                f"{100 * sum(sum(r.failed[1:]) for r in runs) / trials:.1f} %",
                f"{sum(r.input_tokens + r.output_tokens for r in runs) / trials:.0f}",
                f"{sum(r.requests for r in runs) / len(runs):.1f}",
                f"{sum(r.completions for r in runs) / len(runs):.1f}",
                f"{sum(sum(r.seconds) for r in runs) / trials:.4f}",
                share,
            ]
        )
    return [head, *rows]


def task_table(c: Comparison) -> Table:
    """Mean regret of each task at the end."""
    rows = [[task, *(f"{c.regrets[arm][i, -1]:.3f}" for arm in c.arms)] for i, task in enumerate(c.tasks)]
    return [[f"task, regret @{c.budget}", *c.arms], *rows]


def all_tables(c: Comparison, *, per_task: bool = False) -> list[Table]:
    """The tables of a comparison, without empty ones."""
    made = [regret_table(c), ratio_table(c), family_table(c), cost_table(c), *([task_table(c)] if per_task else [])]
    return [table for table in made if len(table) > 1]


def tables(comparisons: Sequence[Comparison], *, markdown: bool = False, per_task: bool = False) -> str:
    """Everything as text."""
    parts = [provenance(comparisons)]
    for c in comparisons:
        parts.append(("## " if markdown else "\n=== ") + c.title)
        parts += [(to_markdown if markdown else to_text)(table) for table in all_tables(c, per_task=per_task)]
    return "\n\n".join(parts)


def provenance(comparisons: Sequence[Comparison]) -> str:
    """Which code on which machine with how many seeds; a mixture is said."""
    runs = [run for c in comparisons for arm in c.runs.values() for run in arm.values()]
    seen = {"code": {r.revision for r in runs}, "machine": {r.machine for r in runs}}
    seen |= {"seeds": {str(r.key.seed) for r in runs}}
    mixed = " (runs of several revisions are mixed)" if len(seen["code"]) > 1 else ""
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in seen.items()) + mixed


def to_text(table: Table) -> str:
    """A table in columns, numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def to_markdown(table: Table) -> str:
    """A table as Markdown, numbers to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *lines[1:]])

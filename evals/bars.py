"""The bars that the project set itself (issue 3), each beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evals.arms import CLASSICAL
from evals.record import Run, Start
from evals.score import Comparison, Table, against, compare_arms

_RIVALS = tuple(arm for arm in CLASSICAL if arm != "tpe_default")
_OURS = ("none", "recorded", "garbage", "smollm2")
_FAMILY_BOUND = 1.10
_LEAST = 0.01  # a hundredth of the way from best to median: less counts as that much in a family's ratio


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `measured` must not exceed `bound`. `low` and `high` are a 95 % bootstrap interval over tasks, or nan."""

    claim: str
    start: Start
    trial: int
    measured: float
    bound: float
    low: float
    high: float
    tasks: int
    seeds: int
    primary: bool = True  # False for the same bar against another set of rivals, on more or fewer seeds

    @property
    def held(self) -> bool:
        """Whether the bar is reached, without regard to noise."""
        return self.measured <= self.bound

    @property
    def interval(self) -> str:
        """[low, high], or nothing."""
        return "" if np.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"


def bars(runs: Iterable[Run]) -> list[Bar]:
    """All bars that `runs` have the arms for, in the order of the issue; batch size 1, names shown.

    50 trials a run, and 25 for LLAMBO, whose trials cost hundreds of replies.
    """
    named = [r for r in runs if r.key.batch == 1 and not r.key.anonymous]
    plain = [r for r in named if r.key.budget == 50]
    by_start: dict[Start, list[Run]] = {"unseeded": [], "seeded": []}
    for run in plain:
        by_start[run.key.start].append(run)
    found: list[Bar] = []
    for start, of_start in by_start.items():
        found += _none_bars(of_start, start)
        found += _pair_bars(of_start, start, "garbage", "none", {25: 1.02, 50: 1.02})
        found += _recorded_bars(of_start, start)
        found += _pair_bars(of_start, start, "recorded", "recorded_tpe", {10: 1.0, 25: 1.0, 50: 1.0})
        found += _pair_bars(of_start, start, "smollm2", "none", {10: 1.0, 25: 1.0, 50: 1.0})
        found += _repeat_bars(of_start, start)
    found += _llambo_bars([r for r in named if r.key.budget == 25 and r.key.start == "unseeded"])
    return found


def _none_bars(runs: Sequence[Run], start: Start) -> Iterator[Bar]:
    for rivals, primary in _rival_sets(runs):
        c = compare_arms(runs, ["none", *rivals])
        if c is not None:
            yield from (replace(bar, primary=primary) for bar in _none_against(c, start, rivals))


def _none_against(c: Comparison, start: Start, rivals: Sequence[str]) -> Iterator[Bar]:
    for trial in (25, 50):
        best = c.best_classical(trial)
        assert best is not None
        yield _ratio(c, "none", best, trial, 0.90, start, f"none / best of {', '.join(rivals)} ({best})")
    ranks = {arm: float(c.ranks[arm][:, 49].mean()) for arm in c.arms}
    next_best = min(rank for arm, rank in ranks.items() if arm != "none")
    yield _bar(
        c, f"mean rank of none, against the best rank of {', '.join(rivals)}", start, 50, ranks["none"], next_best
    )
    yield from _family_bars(c, start, rivals)


def _rival_sets(runs: Sequence[Run]) -> list[tuple[list[str], bool]]:
    """The classical arms; where some have fewer runs than the rest, the others once more without them.

    SMAC3, of which one seed is all that could be afforded, is not in the set of the primary bars.
    """
    count = {arm: sum(r.key.arm == arm for r in runs) for arm in _RIVALS}
    present = [arm for arm in _RIVALS if count[arm]]
    if not present:
        return []
    fewer = sorted({count[arm] for arm in present})[:-1]
    sets = [present, *([arm for arm in present if count[arm] > size] for size in fewer)]
    first = next((rivals for rivals in sets if "smac" not in rivals), sets[0])
    return [(rivals, rivals is first) for rivals in sets if rivals]


def _family_bars(c: Comparison, start: Start, rivals: Sequence[str]) -> Iterator[Bar]:
    for trial in (25, 50):
        worst: dict[str, float] = {}
        for family, tasks in c.families.items():
            rows = [c.tasks.index(task) for task in tasks]
            own = float(c.regrets["none"][rows, trial - 1].mean())
            best = min(float(c.regrets[arm][rows, trial - 1].mean()) for arm in rivals)
            worst[family] = max(own, _LEAST) / max(best, _LEAST)
        above = sorted((f for f in worst if worst[f] > _FAMILY_BOUND), key=lambda f: -worst[f])
        listed = ", ".join(f"{f} {worst[f]:.2f}" for f in above) or "none above"
        claim = f"worst family, none / best of {', '.join(rivals)} there; above {_FAMILY_BOUND}: {listed}"
        yield _bar(c, claim, start, trial, max(worst.values()), _FAMILY_BOUND)


def _recorded_bars(runs: Sequence[Run], start: Start) -> Iterator[Bar]:
    bounds = {10: 0.45, 25: 0.50, 50: 0.55} if start == "unseeded" else {10: 0.75, 25: 0.80, 50: 0.80}
    for rivals, primary in _rival_sets(runs):
        c = compare_arms(runs, ["recorded", *rivals])
        if c is None:
            continue
        for trial, bound in bounds.items():
            best = c.best_classical(trial)
            assert best is not None
            claim = f"recorded / best of {', '.join(rivals)} ({best})"
            yield replace(_ratio(c, "recorded", best, trial, bound, start, claim), primary=primary)


def _pair_bars(runs: Sequence[Run], start: Start, arm: str, other: str, bounds: Mapping[int, float]) -> Iterator[Bar]:
    c = compare_arms(runs, [arm, other])
    if c is not None:
        for trial, bound in bounds.items():
            yield _ratio(c, arm, other, trial, bound, start, f"{arm} / {other}")


def _repeat_bars(runs: Sequence[Run], start: Start) -> Iterator[Bar]:
    for arm in _OURS:
        of_arm = [r for r in runs if r.key.arm == arm]
        c = compare_arms(of_arm, [arm])
        if c is not None:
            share = float(np.mean([flag for r in of_arm for flag in r.repeat]))
            yield _bar(c, f"share of repeats, {arm}", start, 50, share, 0.0)


def _llambo_bars(runs: Sequence[Run]) -> Iterator[Bar]:
    for rival in sorted({r.key.arm for r in runs if r.key.arm.startswith("llambo:")}):
        own = rival.partition("@")[2]
        c = compare_arms(runs, [own, rival])
        if c is None:
            continue
        yield _ratio(c, own, rival, 25, 1.0, "unseeded", f"regret, {own} in llmhpo / {rival}")
        spent = {arm: sum(run.completions for run in c.runs[arm].values()) for arm in c.arms}
        share = spent[own] / max(1, spent[rival])
        yield _bar(c, f"completions, {own} in llmhpo / {rival}", "unseeded", 25, share, 1 / 50)


def _ratio(c: Comparison, arm: str, other: str, trial: int, bound: float, start: Start, claim: str) -> Bar:
    a = against(c, arm, other, trial)
    return Bar(claim, start, trial, a.ratio, bound, a.low, a.high, len(c.tasks), c.seeds)


def _bar(c: Comparison, claim: str, start: Start, trial: int, measured: float, bound: float) -> Bar:
    return Bar(claim, start, trial, measured, bound, float("nan"), float("nan"), len(c.tasks), c.seeds)


def bar_table(found: Sequence[Bar]) -> Table:
    """One row a bar."""
    rows = []
    for b in found:
        verdict = "yes" if b.held else "**no**"
        size = f"{b.tasks} x {b.seeds}"
        rows.append([b.claim, b.start, str(b.trial), f"{b.measured:.3f}{b.interval}", f"{b.bound:.2f}", size, verdict])
    return [["bar", "start", "@", "measured", "asked", "tasks x seeds", "held"], *rows]

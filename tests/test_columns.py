from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from llmhpo.columns import Columns, adopt, columns, ideas
from llmhpo.space import SearchSpace
from llmhpo.trial import REPEAT, Batch, Context, Outcome, Proposal, Task, Trial
from llmhpo.trust import gains, plateaued, trust

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
        "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
        "n": {"type": "int", "low": 1, "high": 9, "when": {"kind": "a"}},
    }
)


def moments(seed: int, steps: int = 120) -> list[Context]:
    """A study as it goes: trials begin, end in any order and in any way, some elsewhere than they were asked to."""
    rng = np.random.default_rng(seed)
    trials: list[Trial] = []
    found = []
    for _ in range(steps):
        running = [t for t in trials if t.outcome is None]
        if (len(running) < 4 and rng.random() < 0.6) or not running:
            source = str(rng.choice(["llm", "gp", "tpe", REPEAT]))
            trials.append(Trial(len(trials), Proposal(SPACE.sample(rng, 1)[0], source)))
        else:
            trial = running[rng.integers(len(running))]
            status = str(rng.choice(["ok", "ok", "failed", "pruned"]))
            outcome = Outcome(status, float(rng.integers(9)) if status == "ok" else None)  # type: ignore[arg-type]
            trials[trial.number] = replace(
                trial, outcome=outcome, evaluated=SPACE.sample(rng, 1)[0] if rng.random() < 0.3 else None
            )
        found.append(Context(Task(direction="maximize"), SPACE, tuple(trials), seed=seed))
    return found


def content(table: Columns) -> list[object]:
    results = table.results
    parts = [table.encoded, table.units, results.ok, results.losses, results.ended, results.failed, results.pruned]
    sets = [set(table.tried), set(table.rows), set(table.ended_rows)]
    return [*(np.asarray(p).tolist() for p in parts), *sets, table.keys, table.open, table.of("llm").tolist()]


def afresh(context: Context) -> Columns:
    return Columns(context.space, context.task).then(context.trials)


@pytest.mark.parametrize("seed", range(4))
def test_columns_that_were_carried_on_are_those_that_are_made_afresh(seed: int) -> None:
    for context in moments(seed):
        assert content(columns(context)) == content(afresh(context))


def test_an_earlier_moment_stays_what_it_was() -> None:
    early, *_, late = moments(7)[40:]
    table = columns(early)
    before = content(table)
    columns(late)
    assert content(table) == before
    assert content(columns(early)) == before


def test_two_ways_on_from_one_moment_do_not_mix() -> None:
    start = moments(3)[60]
    columns(start)
    ways = [
        replace(start, trials=(*start.trials, Trial(len(start.trials), Proposal({"x": x, "kind": "b"}, "gp"))))
        for x in (0.0, 1.0)
    ]
    tables = [columns(way) for way in ways]
    assert [content(t) for t in tables] == [content(afresh(way)) for way in ways]


def test_results_are_one_object_until_a_trial_ends() -> None:
    context = moments(5)[50]
    begun = replace(
        context, trials=(*context.trials, Trial(len(context.trials), Proposal({"x": 0.5, "kind": "b"}, "gp")))
    )
    ended = replace(begun, trials=(*context.trials, replace(begun.trials[-1], outcome=Outcome("ok", 1.0))))
    results = columns(context).results
    assert columns(begun).results is results
    assert columns(ended).results is not results


def test_threads_do_not_share_columns() -> None:
    context = moments(2)[30]
    other: list[Columns] = []
    thread = threading.Thread(target=lambda: other.append(columns(context)))
    thread.start()
    thread.join()
    assert columns(context) is not other[0]
    assert content(columns(context)) == content(other[0])


def test_ideas_are_proposals_of_the_model_that_were_not_tried_each_once() -> None:
    a, b, c = (Proposal({"x": x, "kind": "b"}, "llm") for x in (0.0, 0.25, 0.5))
    batches = (Batch("warmstart", 0, 3, (a, b, a)), Batch("propose", 1, 2, (b, c)))
    context = Context(Task(), SPACE, (Trial(0, replace(a, source="gp")),), batches=batches[:1])
    assert ideas(context) == (b,)
    assert ideas(replace(context, batches=batches)) == (b, c)
    assert ideas(replace(context, batches=())) == ()


def test_what_is_learned_of_sources_is_what_their_trials_one_by_one_say() -> None:
    context = moments(11, 300)[-1]
    others = [-t.value for t in context.finished if t.proposal.source not in ("llm", REPEAT) and t.value is not None]
    odds = np.log(4.0)
    share: dict[str, tuple[float, float]] = {}
    best = np.inf
    for trial in context.trials:
        if trial.outcome is None:
            continue
        loss = np.inf if trial.value is None else -trial.value
        if trial.proposal.source == "llm":
            won = sum((loss < o) + 0.5 * (loss == o) for o in others) if np.isfinite(loss) else 0.0
            odds += np.log(3.0) + 2.0 * np.log((won + 0.5) / (len(others) + 1))
        if trial.proposal.source != REPEAT:
            gain = float(loss < best) if np.isfinite(best) or trial.value is None else 0.5
            best = min(best, loss)
            a, b = share.get(trial.proposal.source, (0.0, 0.0))
            share[trial.proposal.source] = (0.9 * a + gain, 0.9 * b + 1.0 - gain)
    assert trust(context) == pytest.approx(1.0 / (1.0 + np.exp(-np.clip(odds, -30, 30))))
    assert gains(context) == pytest.approx({s: (1.0 + a) / (5.0 + a + b) for s, (a, b) in share.items()})
    losses = [-t.value for t in context.finished if t.value is not None]
    quiet = max(8, len(losses) // 3)
    assert plateaued(context) == (min(losses[-quiet:]) >= min(losses[:-quiet]))


def test_a_thread_that_adopts_columns_goes_on_from_them_and_leaves_the_others_alone() -> None:
    early, *_, late = moments(9)[50:]
    mine = columns(early)
    before, theirs, found = content(mine), mine.detached(), list[bool]()

    def work() -> None:
        adopt(theirs)
        found.append(columns(early) is theirs)
        found.append(content(columns(late)) == content(afresh(late)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, True]
    assert content(mine) == content(theirs) == before
    assert content(columns(late)) == content(afresh(late))

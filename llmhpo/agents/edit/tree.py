"""The revisions of a study as a tree: how each has done, which are the same, which is worth an edit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from llmhpo.revision import Origin, Revision
from llmhpo.surrogates.incumbent import incumbent
from llmhpo.trial import Context, Trial

State = Literal["fresh", "running", "broken", "closed", "alive"]
MOST_DEBUGGING = 2  # attempts in a row to mend what an edit broke
_DRAFTS = 2  # edits of the baseline that are asked for before anything is improved on
_HUGE = 1e100  # losses of a training that diverged count as this: what is larger may have no square
_PRIOR_EDITS = 2.0  # edits without effect that are taken to have been seen before the first


@dataclass(frozen=True, slots=True)
class Node:
    """A revision and its trials, by number. `code` is "" for the baseline, as in proposals.

    fresh: no trial yet. running: its first trials have not ended. broken: they failed. closed: not worth another trial, for
    the reason in `why`. alive: a trial ended well, and `best` stands for its best configuration.
    """

    revision: Revision
    code: str
    trials: tuple[Trial, ...]
    state: State
    best: Trial | None = None
    why: str = ""


class Commission(NamedTuple):
    """What the model is asked to do next: to edit `parent`, and to what end."""

    parent: Node
    intent: Origin


def tree(context: Context) -> tuple[Node, ...]:
    """All revisions, the baseline first, then by age. The context must have a baseline."""
    assert context.baseline is not None
    edits = (_node(context, revision, revision.id) for revision in context.revisions)
    return _node(context, context.baseline, ""), *edits


def _node(context: Context, revision: Revision, code: str) -> Node:
    trials = tuple(t for t in context.trials if t.proposal.code == code)
    if not trials:
        return Node(revision, code, trials, "fresh" if code else "running")
    ended = [t for t in trials if t.outcome is not None]
    best = incumbent(context.within(code))
    if best is None:
        first = ended[0].outcome if ended else None
        if first is None:
            return Node(revision, code, trials, "running")
        if first.flags:  # it touched a tripwire of the scoring: nothing there is worth mending
            return Node(revision, code, trials, "closed", why=first.message)
        return Node(revision, code, trials, "broken", why=first.message)
    twin = _same_as(context, trials[0]) if code else None
    if twin is not None:
        return Node(revision, code, trials, "closed", best, f"it predicts the same as trial {twin.number}")
    return Node(revision, code, trials, "alive", best)


def _same_as(context: Context, trial: Trial) -> Trial | None:
    """An earlier trial of other code that did the same with the same configuration and seed.

    A revision with a parameter that the other lacks may differ elsewhere, and is not the same.
    """
    if trial.outcome is None or not trial.outcome.fingerprint:
        return None
    for other in context.trials:
        if other.number >= trial.number:
            return None
        if (
            other.proposal.code != trial.proposal.code
            and other.outcome is not None
            and other.outcome.fingerprint == trial.outcome.fingerprint
            and _seed(context, other) == _seed(context, trial)
            and trial.params.items() <= other.params.items()
        ):
            return other
    return None


def _seed(context: Context, trial: Trial) -> int:
    return context.task.job_seed(context.seed, seed_number(trial))


def seed_number(trial: Trial) -> int:
    """The number of the trial that `trial` has its seed from: its own, but for the twin of another."""
    return trial.number if trial.proposal.twin is None else trial.proposal.twin


def parent_code(context: Context, revision: Revision) -> str:
    """The revision that one was made from, as proposals name it."""
    assert context.baseline is not None
    return "" if revision.parent == context.baseline.id else revision.parent


# --- which to edit ----------------------------------------------------------------------------------------------------


def commission(context: Context, nodes: Sequence[Node], descriptors: Sequence[str]) -> Commission | None:
    """What to ask the model for; None while no revision has a trial that ended well.

    First drafts from the baseline; then what is broken is mended, as long as mending it has not failed; then the most
    promising elite is improved on.
    """
    baseline = nodes[0]
    if baseline.state != "alive":
        return None
    asked = [b.code for b in context.batches if b.kind == "edit" and not b.error]
    if asked.count(baseline.revision.id) < _DRAFTS:
        return Commission(baseline, "draft")
    for node in reversed(nodes):
        if node.state == "broken" and node.revision.id not in asked and debugging_depth(context, node) < MOST_DEBUGGING:
            return Commission(node, "debug")
    scores = edit_values(context, nodes, descriptors)
    parent = max(scores, key=lambda item: item[1])[0]
    return Commission(parent, "improve" if parent.code else "draft")


def debugging_depth(context: Context, node: Node) -> int:
    """How many revisions in a row, up to this one, were made to mend the one before."""
    depth = 0
    for revision in reversed(context.lineage(node.code)):
        if revision.source != "debug":
            break
        depth += 1
    return depth


def edit_values(context: Context, nodes: Sequence[Node], descriptors: Sequence[str]) -> list[tuple[Node, float]]:
    """For each revision that is alive, what an edit of it is worth: expected improvement times novelty.

    A child's loss is taken for normal around its parent's, moved and spread as those of the edits so far; novelty is lower
    the more edits a revision has had, and where another one is the elite of its cell.
    """
    alive = [n for n in nodes if n.state == "alive"]
    losses = {n.code: _loss(context, n) for n in alive}
    best = min(losses.values())
    shift, spread = _edit_effects(context, nodes)
    elites = {n.code for n in archive(context, nodes, descriptors).values()}
    children = [b.code for b in context.batches if b.kind == "edit"]

    def value(node: Node) -> float:
        gain = expected_improvement(best - losses[node.code] - shift, spread)
        novelty = 1.0 / math.sqrt(1.0 + children.count(node.revision.id))
        return gain * novelty * (1.0 if node.code in elites else 0.5)

    return [(node, value(node)) for node in alive]


def expected_improvement(goal: float, spread: float) -> float:
    """Of a normal loss with mean 0 and standard deviation `spread` on `goal`, in units of `spread`."""
    z = goal / spread
    return z * 0.5 * math.erfc(-z / math.sqrt(2.0)) + math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _edit_effects(context: Context, nodes: Sequence[Node]) -> tuple[float, float]:
    """Mean and spread of what edits did to the loss, taken towards none while few are known."""
    effects = [e for n in nodes[1:] if (e := edit_effect(context, n)) is not None]
    losses = [_bounded(context.task.loss(t.value)) for t in context.finished if t.value is not None]
    usual = float(np.std(losses)) or max(abs(losses[0]), 1e-12) * 0.05
    n = len(effects) + _PRIOR_EDITS
    mean = sum(effects) / n
    variance = (sum((e - mean) ** 2 for e in effects) + _PRIOR_EDITS * usual**2) / n
    return mean, max(math.sqrt(variance), 1e-12)


def edit_effect(context: Context, node: Node) -> float | None:
    """What an edit did to the loss at the configuration that it inherited; None where that is not known."""
    first = node.trials[0] if node.trials else None
    if first is None or first.value is None or not node.code:
        return None
    before = paired_value(context, parent_code(context, node.revision), first)
    return None if before is None else _bounded(context.task.loss(first.value) - context.task.loss(before))


def paired_value(context: Context, code: str, trial: Trial) -> float | None:
    """The value of the revision `code` at the configuration of a trial of its child, on the same seed where it can be."""
    names = set(context.space_of(code).names)
    shared = {name: value for name, value in trial.params.items() if name in names}
    pairs = [t for t in context.finished if t.proposal.code == code and t.params == shared]
    same = [t for t in pairs if _seed(context, t) == _seed(context, trial)]
    return next((t.value for t in [*same, *pairs]), None)


# --- elites -----------------------------------------------------------------------------------------------------------

Cell = tuple[int | None, ...]


def archive(context: Context, nodes: Sequence[Node], descriptors: Sequence[str]) -> dict[Cell, Node]:
    """The best revision of each cell, best first: alike in every descriptor within a factor of two.

    Without descriptors there is one cell. Source: MAP-Elites, Mouret and Clune 2015, arXiv 1504.04909.
    """
    alive = sorted((n for n in nodes if n.state == "alive"), key=lambda n: _loss(context, n))
    elites: dict[Cell, Node] = {}
    for node in alive:
        elites.setdefault(_cell(node, descriptors), node)
    return elites


def describe(node: Node, descriptor: str) -> float | None:
    """The value of a descriptor at the best trial of a revision; None where it did not report one."""
    outcome = None if node.best is None else node.best.outcome
    if outcome is None:
        return None
    return outcome.seconds if descriptor == "seconds" else outcome.metrics.get(descriptor)


def _cell(node: Node, descriptors: Sequence[str]) -> Cell:
    values = [describe(node, d) for d in descriptors]
    return tuple(None if v is None or not math.isfinite(v) else _octave(v) for v in values)


def _octave(value: float) -> int:
    """0 for 0; else the power of two below its size, with a sign, and away from 0."""
    size = math.floor(math.log2(abs(value))) + 1100 if value else 0
    return int(math.copysign(size, value))


def _loss(context: Context, node: Node) -> float:
    assert node.best is not None
    assert node.best.value is not None
    return _bounded(context.task.loss(node.best.value))


def _bounded(loss: float) -> float:
    return max(-_HUGE, min(_HUGE, loss))

"""Which revision is worth another configuration: successive halving between revisions, a few configurations first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmhpo.agents.edit.tree import Node
from llmhpo.trial import Context

_ETA = 3  # of the revisions that have had so many configurations one in three goes on; the others' budget triples


def next_to_tune(context: Context, nodes: Sequence[Node]) -> Node | None:
    """The revision to try one more configuration of; None where none has earned it, or all are the user's own code.

    A rung is reached with 1, 3, 9, ... trials. The best third of those that reached a rung, the user's own code among
    them, may go on to the next; of those that may, the one on the highest rung goes first. Source: ASHA, Li et al., MLSys
    2020, algorithm 2, with configurations of a revision in the place of epochs of a configuration.
    """
    alive = [n for n in nodes if n.state == "alive"]
    losses = {n.code: _loss(context, n) for n in alive}
    most = max((_ended(n) for n in alive), default=0)
    rung = _ETA ** int(math.log(max(most, 1), _ETA) + 1e-9)
    while rung >= 1:
        reached = sorted((n for n in alive if _ended(n) >= rung), key=lambda n: losses[n.code])
        for node in reached[: -(-len(reached) // _ETA)]:
            if node.code and len(node.trials) < rung * _ETA:
                return node
        rung //= _ETA
    return None


def _ended(node: Node) -> int:
    return sum(t.outcome is not None for t in node.trials)


def _loss(context: Context, node: Node) -> float:
    assert node.best is not None
    assert node.best.value is not None
    return context.task.loss(node.best.value)

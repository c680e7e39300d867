from __future__ import annotations

import json
import threading

from llmhpo.agents.portfolio import make_portfolio
from llmhpo.aside import Aside
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Task
from llmhpo.usage import Caps

CONTEXT = Context(Task(), SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}}), budget_left=9)


class Asked(ScriptedModel):
    """Keeps the threads that it is asked in."""

    def __init__(self, replies: list[str]) -> None:
        super().__init__(replies)
        self.threads: list[threading.Thread] = []

    def complete(self, request: Request) -> Completion:
        self.threads.append(threading.current_thread())
        return super().complete(request)


def test_all_questions_of_a_session_are_asked_in_one_thread_that_ends_with_it() -> None:
    model = Asked([json.dumps({"configurations": [{"why": "w", "x": 0.1}]})] * 3)
    aside = Aside(make_portfolio(model, base_url=None, price=None, caps=Caps(), deadline_s=5.0))
    batches = [aside.consult(CONTEXT).result(timeout=30) for _ in range(3)]
    assert [p.params for b in batches for p in b.proposals] == [{"x": 0.1}] * 3
    assert len(model.threads) == 3
    assert len(set(model.threads)) == 1
    assert model.threads[0] is not threading.current_thread()
    aside.close()
    model.threads[0].join(30)
    assert not model.threads[0].is_alive()

"""No reply of any model, however wrong, brings anything but configurations of the space."""

from __future__ import annotations

from contextlib import ExitStack

import loopback
import pytest
from consulting import SPACE, WIRES, consult
from faults import says

from llmhpo.llm import make_llm
from llmhpo.llm.base import LLM
from llmhpo.llm.scripted import ScriptedModel
from llmhpo.space import InvalidParams

pytestmark = pytest.mark.usefixtures("keys")
GOOD = '{"why": "", "lr": 0.1, "maximum": 3}'
REPLIES: dict[str, str] = {
    "NaN": '{"configurations": [{"lr": NaN, "maximum": 3}]}',
    "infinity": '{"configurations": [{"lr": Infinity, "maximum": 3}]}',
    "twice the same key": '{"configurations": [{"lr": 0.1, "lr": 99, "maximum": 3}]}',
    "numeric string": '{"configurations": [{"lr": "0.1", "maximum": "3"}]}',
    "underscored": '{"configurations": [{"lr": 0.1, "maximum": "1_0"}]}',
    "other digits": '{"configurations": [{"lr": 0.1, "maximum": "\u0663"}]}',
    "out of range": '{"configurations": [{"lr": 7.0, "maximum": 99}]}',
    "true for an int": '{"configurations": [{"lr": 0.1, "maximum": true}]}',
    "huge int": '{"configurations": [{"lr": 0.1, "maximum": ' + "9" * 5000 + "}]}",
    "nested": "[" * 100_000,
    "huge": '{"configurations": [' + ", ".join([GOOD] * 20_000) + "]}",
    "look-alike key": '{"configurations": [{"lr\u200b": 0.1, "m\u0430ximum": 3}]}',
    "lone surrogate": '{"configurations": [{"why": "\\ud800", "lr": 0.1, "maximum": 3}]}',
    "unknown and missing": '{"configurations": [{"rate": 0.1}]}',
    "twice the same": f'{{"configurations": [{GOOD}, {GOOD}]}}',
    "prose and fences": f'Sure!\n```json\n{{"configurations": [{GOOD}]}}\n```\nGood luck.',
    "two objects": f'Sure!\n```json\n{{"configurations": [{GOOD}]}}\n```\nand\n```json\n{{"configurations": []}}\n```',
    "refusal": "I cannot help with that.",
    "empty": "",
    "cut": '{"configurations": [{"why": "be',
}


@pytest.mark.parametrize("kind", ["scripted", *WIRES])
@pytest.mark.parametrize("reply", REPLIES)
def test_no_reply_brings_anything_but_configurations_of_the_space(reply: str, kind: str) -> None:
    with ExitStack() as closing:
        if kind == "scripted":
            model: LLM | None = ScriptedModel([REPLIES[reply]] * 4)
        else:
            server = closing.enter_context(loopback.serving(WIRES[kind]))
            server.has_responses = kind == "responses"
            proxy = closing.enter_context(loopback.proxying(WIRES[kind], server.url))
            proxy.faults = [says(REPLIES[reply])] * 4
            model = make_llm(f"{WIRES[kind]}:m", base_url=proxy.url)
        assert model is not None
        batch = consult(model)
        model.close()
    assert all(not isinstance(SPACE.coerce(p.params), InvalidParams) for p in batch.proposals)
    assert batch.proposals or batch.problems or batch.error
    assert not batch.fatal


def test_the_harmless_of_these_replies_are_of_use() -> None:
    kept = {name for name, reply in REPLIES.items() if consult(ScriptedModel([reply] * 4)).proposals}
    assert {"prose and fences", "twice the same", "lone surrogate"} <= kept
    assert not kept & {"NaN", "infinity", "refusal", "empty", "cut", "nested", "unknown and missing", "look-alike key"}

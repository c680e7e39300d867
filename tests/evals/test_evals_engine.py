"""The figures of the local engine, at a small size."""

from __future__ import annotations

import pytest

from evals.__main__ import main
from evals.engine_batches import SPACES, contexts, holds
from evals.engine_prompts import prompt
from llmhpo.param import param_from_dict
from llmhpo.space import SearchSpace


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_prints_every_figure_and_what_does_not_depend_on_speed_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["engine", "--small", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for words in (
        "on cpu",
        "transformers",
        "second request",
        "questions of a study",
        "generate",
        "memory bandwidth",
        "side by side",
        "one by one",
    ):
        assert words in said
    assert said.count(": holds") == 5
    assert "MISSED" not in said


def test_a_later_prompt_adds_rows_before_its_request() -> None:
    first, later = (prompt(n)[0].content for n in (3, 5))
    begun, request = first.rsplit("\n", 1)
    assert later.startswith(f"{begun}\n3,")
    assert later.endswith(f"\n{request}")


def test_the_ten_spaces_are_spaces_and_some_are_conditional() -> None:
    spaces = [SearchSpace.from_dict(raw) for raw in SPACES.values()]
    assert len(spaces) == 10
    assert sum(any(p.when for p in space.params) for space in spaces) >= 3


def test_a_value_is_judged_by_its_type_and_range() -> None:
    share = param_from_dict("share", {"type": "float", "low": 0.0, "high": 1.0})
    units = param_from_dict("units", {"type": "int", "low": 1, "high": 9})
    flag = param_from_dict("flag", {"type": "categorical", "choices": [True, False]})
    assert holds(share, 0.5)
    assert holds(share, 1)
    assert not holds(share, 1.01)
    assert not holds(share, None)
    assert not holds(share, "0.5")
    assert not holds(units, 2.0)
    assert not holds(units, True)
    assert holds(flag, True)
    assert not holds(flag, 1)


def test_contexts_grow_and_are_the_same_each_time() -> None:
    first, again = (list(contexts("nested", 3)) for _ in range(2))
    assert [len(context.trials) for context in first] == [0, 4, 8]
    assert [c.trials for c in first] == [c.trials for c in again]

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmhpo.agents.edit.halving import next_to_tune
from llmhpo.agents.edit.inherit import inherited, with_inheritance
from llmhpo.agents.edit.tree import archive, commission, edit_values, expected_improvement, tree
from llmhpo.param import Param, param_from_dict
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.trial import CARRIED, Batch, Context, Outcome, Proposal, Task, Trial

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}})
BASE = Revision("b" * 40)
DROPOUT = param_from_dict("dropout", {"type": "float", "low": 0.0, "high": 0.5, "default": 0.1})


class Study:
    """A context that is built step by step: revisions by one letter, "" for the baseline."""

    def __init__(self, *, noisy: bool = False) -> None:
        self.task = Task("t", "loss", noisy=noisy)
        self.trials: list[Trial] = []
        self.batches: list[Batch] = []

    def edit(self, name: str, parent: str = "", *declared: Param, source: str = "draft") -> str:
        of = parent or BASE.id
        revision = Revision(name * 40, of, declared, name, name, source)  # type: ignore[arg-type]
        self.batches.append(Batch("edit", len(self.trials), 1, revisions=(revision,), code=of))
        return revision.id

    def run(self, code: str, values: Sequence[float | None], x: float = 0.5, **outcome: object) -> None:
        for value in values:
            params = {"x": x, **{p.name: 0.1 for r in self.context.lineage(code) for p in r.hyperparameters}}
            status = "failed" if value is None else "ok"
            ended = Outcome(status, value, **{"seconds": 1.0, **outcome})  # type: ignore[arg-type]
            self.trials.append(Trial(len(self.trials), Proposal(params, "gp", code=code), ended))
            x += 0.01

    @property
    def context(self) -> Context:
        return Context(self.task, SPACE, tuple(self.trials), 50, 0, tuple(self.batches), BASE)


def test_an_elite_is_the_best_of_its_cell_and_cells_differ_by_a_factor_of_two() -> None:
    study = Study()
    study.run("", [1.0], metrics={"parameters": 1000.0})
    small, large, worse = study.edit("c"), study.edit("d"), study.edit("e")
    study.run(small, [0.9], metrics={"parameters": 1010.0})
    study.run(large, [0.8], metrics={"parameters": 9000.0})
    study.run(worse, [0.95], metrics={"parameters": 1020.0})
    context = study.context
    elites = archive(context, tree(context), ["parameters"])
    assert [n.code for n in elites.values()] == [large, small]
    assert [n.code for n in archive(context, tree(context), []).values()] == [large]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-9, 1e300])
def test_any_reported_number_has_a_cell(value: float) -> None:
    study = Study()
    study.run("", [1.0], metrics={"size": value})
    (cell,) = archive(study.context, tree(study.context), ["size", "absent"])
    assert cell[1] is None


def test_the_parent_is_the_one_with_the_best_prospect_until_others_are_fresher() -> None:
    study = Study()
    study.run("", [1.0])
    good = study.edit("c")
    study.run(good, [0.5])
    values = {n.code: v for n, v in edit_values(study.context, tree(study.context), [])}
    assert values[good] > values[""]
    for name in "defghijklmn":
        study.run(study.edit(name, good, source="improve"), [0.51])
    after = {n.code: v for n, v in edit_values(study.context, tree(study.context), [])}
    assert max(after, key=lambda code: after[code]) != good


def test_expected_improvement_grows_with_what_is_left_and_with_spread() -> None:
    assert expected_improvement(1.0, 1.0) > expected_improvement(0.0, 1.0) > expected_improvement(-1.0, 1.0) > 0.0


def test_drafts_come_first_then_mending_then_improving() -> None:
    study = Study()
    study.run("", [1.0])
    intents = []
    for name, values in (("c", [None]), ("d", [0.9]), ("e", [None]), ("f", [0.8]), ("a", [0.7])):
        task = commission(study.context, tree(study.context), [])
        assert task is not None
        intents.append((task.intent, task.parent.revision.note))
        code = study.edit(name, task.parent.code, source=task.intent)
        study.run(code, values)
    assert [intent for intent, _ in intents] == ["draft", "draft", "debug", "debug", "improve"]
    assert [note for _, note in intents[2:4]] == ["c", "e"]


def test_a_study_whose_own_code_does_not_run_asks_for_no_edit() -> None:
    study = Study()
    study.run("", [None])
    assert commission(study.context, tree(study.context), []) is None


def test_the_best_third_gets_three_times_the_configurations() -> None:
    study = Study()
    study.run("", [1.0])
    for name, value in zip("cdefa", (0.9, 0.5, 0.8, 0.7, 2.0), strict=True):
        study.run(study.edit(name), [value])
    order = []
    for _ in range(7):
        node = next_to_tune(study.context, tree(study.context))
        assert node is not None
        order.append(node.revision.note)
        study.run(node.code, [node.best.value], 0.6) if node.best else None  # type: ignore[list-item]
    assert order[:4] == ["d", "d", "d", "d"]
    assert set(order) <= {"d", "f"}


def test_what_is_worse_than_the_users_own_code_is_not_tuned() -> None:
    study = Study()
    study.run("", [1.0])
    study.run(study.edit("c"), [1.5])
    assert next_to_tune(study.context, tree(study.context)) is None


def test_equal_fingerprints_on_one_seed_close_a_version_and_on_two_do_not() -> None:
    for noisy, state in ((False, "closed"), (True, "alive")):
        study = Study(noisy=noisy)
        study.run("", [1.0], fingerprint="f")
        study.run(study.edit("c"), [1.0], fingerprint="f")
        assert tree(study.context)[1].state == state


def test_a_new_parameter_keeps_a_version_open_that_does_the_same_at_its_default() -> None:
    study = Study()
    study.run("", [1.0], fingerprint="f")
    study.run(study.edit("c", "", DROPOUT), [1.0], fingerprint="f")
    assert tree(study.context)[1].state == "alive"


def test_trials_are_carried_over_with_the_default_and_moved_to_the_level_of_the_edit() -> None:
    study = Study()
    study.run("", [1.0, 1.4, 1.2])
    code = study.edit("c", "", DROPOUT)
    study.run(code, [0.4])
    inside = with_inheritance(study.context, code)
    carried = [t for t in inside.trials if t.proposal.source == CARRIED]
    assert [t.params["dropout"] for t in carried] == [0.1, 0.1]
    assert [t.value for t in carried] == pytest.approx([0.8, 0.6])
    assert inside.best is not None
    assert inside.best.value == 0.4
    assert inside.trials[-1].proposal.source == "gp"


def test_what_does_not_fit_a_space_is_not_inherited() -> None:
    other = SearchSpace([param_from_dict("x", {"type": "float", "low": 0.7, "high": 1.0})])
    assert inherited({"x": 0.5}, other) is None
    assert inherited({"x": 0.8, "gone": 3}, other) == {"x": 0.8}

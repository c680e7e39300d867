from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmhpo.agents.consult import Consultant
from llmhpo.agents.edit.author import Author
from llmhpo.agents.edit.inherit import with_inheritance
from llmhpo.agents.edit.options import EditOptions
from llmhpo.agents.edit.search import EditSearch
from llmhpo.agents.edit.tree import tree
from llmhpo.agents.edit.workshop import Workshop
from llmhpo.agents.portfolio import Portfolio
from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.errors import ConfigError, LLMRequestError
from llmhpo.llm.base import Completion, Request
from llmhpo.llm.scripted import Reply, ScriptedModel
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.store import Store
from llmhpo.trial import CARRIED, REPEAT, Context, Outcome, Task, Trial
from llmhpo.usage import Caps, Usage

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
        "k": {"type": "categorical", "choices": ["a", "b"], "default": "a"},
    }
)
CODE = "import llmhpo\n\n\ndef gain():\n    return 0.0\n"


def rewrite(gain: str, *, declared: str = "", note: str = "n") -> str:
    """An edit of the function: `gain` is the expression that it returns."""
    block = f"```hyperparameters\n{declared}\n```\n" if declared else ""
    body = f"def gain():\n    return {gain}"
    return f"FILE: model.py#gain\n<<<<<<< REWRITE\n{body}\n>>>>>>> REWRITE\n{block}NOTE: {note}\n"


def two(one: str, other: str) -> str:
    return f"EDIT 1\n{one}\nEDIT 2\n{other}"


class Writer(ScriptedModel):
    """Answers requests for edits one after the other, and those for configurations with nothing."""

    def complete(self, request: Request) -> Completion:
        self.asked = getattr(self, "asked", -1) + (request.schema is None)
        if request.schema is not None:
            return Completion("", Usage(1, 10, 0, 10), "scripted")
        return super().complete(replace(request, number=self.asked))


class World:
    """A study whose trials are a formula: the loss of a configuration, less what the function of its code returns."""

    def __init__(self, folder: Path, replies: list[Reply], *, n: int = 24, options: EditOptions | None = None) -> None:
        (folder / "code").mkdir()
        (folder / "code" / "model.py").write_text(CODE)
        self.lineage = Lineage(folder / "code.git")
        baseline = self.lineage.baseline(folder / "code")
        files = self.lineage.files(baseline)
        workshop = Workshop(self.lineage, Editable.of(["model.py#gain"], files), baseline, 400)
        self.store = Store(None, "s", SPACE, Task("t", "loss"), seed=3)
        self.store.begin_edits(Revision(baseline, digest=workshop.digest(files)))
        self.model = Writer(replies)
        consultant = Consultant(self.model, caps=Caps())
        self.options = options or EditOptions()
        self.search = EditSearch(Portfolio(consultant), self.options, Author(consultant, workshop, self.options))
        self.n = n

    def context(self) -> Context:
        return self.store.context(self.n - len(self.store.trials))

    def run(self) -> Context:
        while len(self.store.trials) < self.n:
            if self.search.wants(self.context()):
                self.store.record(self.search.consult(self.context()))
            context = self.context()
            trial = self.store.begin(self.search.suggest(context, 1)[0], context.budget_left)
            self.store.finish(trial.number, self.outcome(trial))
        return self.context()

    def outcome(self, trial: Trial) -> Outcome:
        code = self.lineage.files(trial.proposal.code or str(self.context().baseline and self.context().baseline.id))  # type: ignore[union-attr]
        expression = code["model.py"].split("return ")[1].strip()
        if expression == "broken":
            return Outcome("failed", message="NameError: name 'broken' is not defined")
        if expression == "cheat":
            return Outcome("invalid", message="the metric jumps", flags=("jump",))
        gain = eval(expression, {"params": trial.params})
        value = (float(trial.params["x"]) - 0.3) ** 2 - gain  # type: ignore[arg-type]
        return Outcome("ok", value, 1.0, {"parameters": 100.0}, fingerprint=f"{value:.12f}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(replies: list[Reply], **kw: object) -> World:
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(folder, replies, **kw))  # type: ignore[arg-type]
        return worlds[-1]

    yield make
    for each in worlds:
        each.store.close()


def plain_trials(n: int) -> list[dict[str, object]]:
    """What a study without edits and without a model runs."""
    store = Store(None, "s", SPACE, Task("t", "loss"), seed=3)
    for _ in range(n):
        trial = store.begin(Portfolio().suggest(store.context(n - len(store.trials)), 1)[0])
        value = (float(trial.params["x"]) - 0.3) ** 2  # type: ignore[arg-type]
        store.finish(trial.number, Outcome("ok", value, 1.0, {"parameters": 100.0}))
    trials: list[dict[str, object]] = [dict(t.params) for t in store.trials]
    store.close()
    return trials


def test_a_model_that_writes_garbage_leaves_the_trials_of_a_plain_study(world: Callable[..., World]) -> None:
    rng = random.Random(1)
    garbage: list[Reply] = ["".join(rng.choices("<>=#{}\"' \nabc", k=300)) for _ in range(40)]
    study = world(garbage)
    context = study.run()
    assert [t.params for t in context.trials] == plain_trials(24)
    assert context.usage.calls > 2
    assert not context.revisions


def test_a_good_edit_is_tried_on_its_parents_seed_and_configuration_and_then_tuned(world: Callable[..., World]) -> None:
    context = world([two(rewrite("1.0"), rewrite("2.0")), *[""] * 20]).run()
    firsts = [t for t in context.trials if t.proposal.source == "edit"]
    assert [t.proposal.twin for t in firsts[:2]] == [0, 0]
    assert [t.params for t in firsts[:2]] == [context.trials[0].params] * 2
    tuned = [t for t in context.trials if t.proposal.code == firsts[1].proposal.code]
    assert len(tuned) >= 5
    assert context.best is not None
    assert context.best in tuned
    assert context.best.value == pytest.approx(-2.0, abs=0.02)


def test_every_fourth_trial_is_the_users_own_code(world: Callable[..., World]) -> None:
    context = world([two(rewrite("1.0"), rewrite("2.0")), *[""] * 20]).run()
    assert all(context.trials[n].proposal.code == "" for n in range(7, 24, 4))


def test_what_predicts_the_same_is_not_paid_for_twice(world: Callable[..., World]) -> None:
    context = world([two(rewrite("0.0 * 2"), rewrite("0.0 + 0")), *[""] * 20]).run()
    nodes = tree(context)
    assert [n.state for n in nodes[1:]] == ["closed", "closed"]
    assert [len(n.trials) for n in nodes[1:]] == [1, 1]


def test_a_program_that_differs_in_comments_alone_is_never_launched(world: Callable[..., World]) -> None:
    same = rewrite("0.0  # better")
    context = world([same, same, *[""] * 20]).run()
    assert not context.revisions
    edits = next(b for b in context.batches if b.kind == "edit")
    assert any("same program" in problem for problem in edits.problems)
    assert edits.usage.calls == 2  # one repair turn


def test_an_edit_with_a_new_parameter_opens_a_space_and_inherits_its_parents_trials(
    world: Callable[..., World],
) -> None:
    table = '[boost]\ntype = "float"\nlow = 0.0\nhigh = 2.0\ndefault = 0.5'
    edit = rewrite('params["boost"]', declared=table)
    study = world([edit, *[""] * 20], n=30)
    context = study.run()
    (revision,) = context.revisions
    assert context.space_of(revision.id).names == ("x", "k", "boost")
    assert all(("boost" in t.params) == (t.proposal.code == revision.id) for t in context.trials)
    inside = with_inheritance(context, revision.id)
    carried = [t for t in inside.trials if t.proposal.source == CARRIED]
    assert carried
    assert all(t.params["boost"] == 0.5 for t in carried)
    first = next(t for t in context.trials if t.proposal.code == revision.id)
    assert first.params["boost"] == 0.5
    assert max(float(t.params.get("boost", 0.0)) for t in context.trials) > 1.5  # type: ignore[arg-type]


def test_one_name_is_one_parameter_in_all_versions(world: Callable[..., World]) -> None:
    tables = [
        '[boost]\ntype = "categorical"\nchoices = [0, 1]\ndefault = 0',
        '[boost]\ntype = "float"\nlow = 0\nhigh = 2\ndefault = 1',
    ]
    one, other = (rewrite(f'params["boost"] + {i}', declared=table) for i, table in enumerate(tables))
    context = world([two(one, other), "", other, *[""] * 20], options=EditOptions(candidates=2)).run()
    assert len(context.revisions) == 1
    problems = [p for b in context.batches for p in b.problems]
    assert sum("another version declares the hyperparameter 'boost'" in p for p in problems) >= 1


def test_a_broken_edit_is_mended_twice_in_a_row_at_most(world: Callable[..., World]) -> None:
    broken = rewrite("broken")
    replies: list[Reply] = [broken.replace("    return", f"    y = {i}\n    return") for i in range(40)]
    context = world(replies, n=40, options=EditOptions(candidates=1)).run()
    lines = [[r.source for r in context.lineage(revision.id)] for revision in context.revisions]
    assert ["draft", "debug", "debug"] in lines
    assert not any(line[-3:] == ["debug"] * 3 for line in lines)


def test_a_mended_edit_goes_on(world: Callable[..., World]) -> None:
    replies: list[Reply] = [rewrite("broken"), rewrite("0.5"), rewrite("3.0"), *[""] * 20]
    context = world(replies, n=20, options=EditOptions(candidates=1)).run()
    mended = next(r for r in context.revisions if r.source == "debug")
    assert context.lineage(mended.id)[0].note == "n"
    assert tree(context)[-1].state == "alive"


def test_what_touched_a_tripwire_is_neither_tuned_nor_mended(world: Callable[..., World]) -> None:
    replies: list[Reply] = [rewrite("cheat"), *[""] * 20]
    context = world(replies, n=20, options=EditOptions(candidates=1)).run()
    node = tree(context)[1]
    assert (node.state, len(node.trials)) == ("closed", 1)
    assert all(b.code != node.revision.id for b in context.batches)


def test_the_same_context_gives_the_same_proposals_without_a_model(world: Callable[..., World]) -> None:
    study = world([two(rewrite("1.0"), rewrite("broken")), rewrite("1.5"), *[""] * 20])
    context = study.run()
    silent = EditSearch(Portfolio(), EditOptions.from_dict(study.options.to_dict()))
    asked = [b.at for b in context.batches]
    for number in range(len(context.trials)):
        then = Context(
            context.task,
            context.space,
            context.trials[:number],
            24 - number,
            context.seed,
            tuple(b for b, at in zip(context.batches, asked, strict=True) if at <= number),
            context.baseline,
        )
        assert silent.suggest(then, 1)[0] == context.trials[number].proposal


def test_a_wrong_key_ends_the_questions_of_a_session(world: Callable[..., World]) -> None:
    study = world([LLMRequestError("401")])
    context = study.run()
    assert [b.kind for b in context.batches] == ["warmstart", "edit"]
    assert [t.params for t in context.trials] == plain_trials(24)


def test_a_repeat_of_a_noisy_study_stays_with_its_revision(world: Callable[..., World]) -> None:
    study = world([two(rewrite("1.0"), rewrite("2.0")), *[""] * 20], n=40)
    study.store.task = replace(study.store.task, noisy=True)
    context = study.run()
    for trial in context.trials:
        if trial.proposal.source == REPEAT:
            assert any(
                t.params == trial.params and t.proposal.code == trial.proposal.code
                for t in context.trials[: trial.number]
            )
    assert any(t.proposal.source == REPEAT for t in context.trials)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"share": 0}, "edits.share=0"),
        ({"candidates": 0}, "edits.candidates=0"),
        ({"max_lines": True}, "edits.max_lines=True"),
        ({"descriptors": "seconds"}, "edits.descriptors='seconds'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EditOptions(**fields)  # type: ignore[arg-type]

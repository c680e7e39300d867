"""Edits that draw hyperparameters in the code: these open the space, as declared ones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmhpo.agents.edit.workshop import Workshop
from llmhpo.code.lineage import Lineage
from llmhpo.code.regions import Editable
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.trial import Context, Task

BASE = "import llmhpo\n\nnorm = None\nlr = 0.1\n"
SPACE = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.01, "high": 0.1, "default": 0.1}})


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "model.py").write_text(BASE)
    lineage = Lineage(tmp_path / "code.git")
    baseline = lineage.baseline(tmp_path / "tree")
    files = lineage.files(baseline)
    return Workshop(lineage, Editable.of(["model.py"], files), baseline, 100)


def made(workshop: Workshop, old: str, new: str, more: str = "") -> Revision | list[str]:
    baseline = Revision(workshop.baseline, digest=workshop.digest({"model.py": BASE}))
    context = Context(Task(), SPACE, (), baseline=baseline)
    text = f"FILE: model.py\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n{more}"
    return workshop.make(context, baseline, "", text, "draft")


def test_a_draw_in_an_edit_opens_the_space(workshop: Workshop) -> None:
    revision = made(workshop, "norm = None", 'norm = llmhpo.choose("norm", ["layer", "batch"])')
    assert isinstance(revision, Revision)
    assert [(p.name, p.choices, p.default) for p in revision.hyperparameters] == [("norm", ("layer", "batch"), "layer")]


def test_a_draw_of_what_is_tuned_already_opens_nothing(workshop: Workshop) -> None:
    revision = made(workshop, "lr = 0.1", 'lr = llmhpo.loguniform("lr", 1e-3, 1.0)')
    assert isinstance(revision, Revision)
    assert revision.hyperparameters == ()


def test_a_draw_that_is_declared_too_is_one_parameter(workshop: Workshop) -> None:
    declared = '```hyperparameters\n[width]\ntype = "int"\nlow = 8\nhigh = 64\ndefault = 16\n```\n'
    revision = made(workshop, "norm = None", 'width = llmhpo.integer("width", 8, 64)', declared)
    assert isinstance(revision, Revision)
    assert [(p.name, p.default) for p in revision.hyperparameters] == [("width", 16)]


def test_a_draw_that_does_not_take_what_is_tuned_is_rejected(workshop: Workshop) -> None:
    reasons = made(workshop, "lr = 0.1", 'lr = llmhpo.uniform("lr", 0.05, 1.0)')
    assert isinstance(reasons, list)
    assert "'lr' is drawn as a float from 0.05 to 1, but it is tuned as a float from 0.01 to 0.1" in reasons[0]


def test_a_draw_that_makes_no_sense_is_rejected_with_its_line(workshop: Workshop) -> None:
    reasons = made(workshop, "norm = None", 'norm = llmhpo.choose("norm", [])')
    assert isinstance(reasons, list)
    assert reasons[0].startswith("model.py:3: llmhpo.choose")


def test_no_edit_makes_the_scorer_or_data_whatever_pattern_fits_them(workshop: Workshop) -> None:
    files = workshop.lineage.files(workshop.baseline)
    baseline = Revision(workshop.baseline, digest=workshop.digest({"model.py": BASE}))
    context = Context(Task(), SPACE, (), baseline=baseline)
    wide = replace(workshop, editable=Editable.of(["**"], files), left_out=("score.py", "data"))
    for path, reason in (("score.py", "'score.py' is protected"), ("data/x.py", "'data' is there already")):
        text = f"FILE: {path}\n<<<<<<< REWRITE\nx = 1\n>>>>>>> REWRITE\n"
        refused = wide.make(context, baseline, "", text, "draft")
        assert isinstance(refused, list)
        assert reason in refused[0]

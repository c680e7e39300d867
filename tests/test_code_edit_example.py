"""The example that edits code: good edits are confirmed, a broken and a cheating one come to nothing, nothing is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmhpo.agents.edit.workshop import split_candidates
from llmhpo.code.edit import Edit, parse_edit
from llmhpo.code.lineage import Lineage
from llmhpo.code.patch import apply_edit
from llmhpo.code.regions import Editable
from llmhpo.config import read_study_file
from llmhpo.editing import REPOSITORY
from llmhpo.store import load_study

EXAMPLE = Path(__file__).parent.parent / "examples" / "code_edit"
CODE = ("model.py", "train.py")
SHORT = {
    "edits.jsonl": "short.jsonl",
    "n_trials = 24": "n_trials = 9",
    "confirm = 5": "confirm = 3\ncandidates = 3\nshare = 1.0",
}


def edits() -> dict[str, str]:
    """The edits of the script by the first words of their notes."""
    lines = [json.loads(line) for line in (EXAMPLE / "edits.jsonl").read_text().splitlines()]
    texts = [text for line in lines if "text" in line for text in split_candidates(line["text"])]
    found = {}
    for text in texts:
        edit = parse_edit(text)
        assert isinstance(edit, Edit), edit
        found[" ".join(edit.note.split()[:3]).rstrip(",")] = text
    return found


def hashes(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and "runs" not in p.parts and "__pycache__" not in p.parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_edit_of_the_script_fits_the_code_it_is_made_for() -> None:
    base = {name: (EXAMPLE / name).read_text() for name in CODE}
    config = read_study_file(EXAMPLE / "study.toml")
    assert config.editing is not None
    editable = Editable.of(config.editing.editable, base)
    known = edits()
    after = {"the second layer": "a wider first"}
    assert len(known) == 7
    for name, text in known.items():
        files, space = dict(base), config.space
        for one in [*([known[after[name]]] if name in after else []), text]:
            edit = parse_edit(one)
            assert isinstance(edit, Edit)
            changed = apply_edit(files, editable, edit, space=space)
            assert isinstance(changed, dict), f"{name}: {changed}"
            files |= changed


def shortened(folder: Path) -> Path:
    """A copy of the example whose model has two replies: a good edit, the cheating and the broken one, then both good ones in one.

    Both at once at the start would be a jump, which is run twice.
    """
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    known = edits()
    both = known["grey values of"] + "\n" + known["convolutions with a"]
    three = (known["grey values of"], known["a closer look"], known["a wider first"])
    replies = ["\n".join(f"EDIT {i}\n{t}" for i, t in enumerate(some, 1)) for some in (three, [both])]
    first = (folder / "edits.jsonl").read_text().splitlines()[0]
    lines = [first, *(json.dumps({"text": reply}) for reply in replies)]
    (folder / "short.jsonl").write_text("\n".join(lines) + "\n")
    study = (folder / "study.toml").read_text()
    for old, new in SHORT.items():
        assert old in study
        study = study.replace(old, new)
    (folder / "study.toml").write_text(study)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_run_ends_with_the_good_edits_confirmed_and_with_nothing_of_the_broken_and_the_cheating_one(
    tmp_path: Path,
) -> None:
    """One test for all that the run shows: it takes half a minute, and workers share no fixture."""
    folder = shortened(tmp_path / "code_edit")
    files = hashes(folder)
    command = [sys.executable, "-m", "llmhpo", "run", str(folder / "study.toml"), "--plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stderr
    config = read_study_file(folder / "study.toml")
    context = load_study(str(config.storage), config.study_name)
    good, cheat, broken, both = (t for t in context.trials if t.proposal.source == "edit")
    assert "\nconfirmed: on 3 new seeds and the promotion split" in done.stdout
    assert f"take it with llmhpo apply {both.number}" in done.stdout
    assert good.value is not None
    assert both.value is not None
    plain = [t for t in context.trials if t.proposal.code == ""]
    before = [t.value for t in plain if t.value is not None and t.params.items() <= good.params.items()]
    assert both.value < good.value < before[0]
    assert [p.name for r in context.lineage(both.proposal.code) for p in r.hyperparameters] == ["peak_lr", "dropout"]
    assert broken.outcome is not None
    assert broken.outcome.status == "failed"
    assert "shapes cannot be multiplied" in broken.outcome.message
    log = config.directory / "trials" / f"{cheat.number:05d}" / "output.log"
    assert "log_loss: 0.0" in log.read_text()  # it ran, and tried
    assert cheat.value in [t.value for t in plain if t.params == cheat.params]
    edited = [t.outcome for t in context.trials if t.proposal.code and t.outcome is not None]
    assert all(o.sandbox and not o.self_reported for o in edited)
    assert context.baseline is not None
    lineage = Lineage(config.directory / REPOSITORY)
    kept = set(lineage.blobs(context.baseline.id))
    assert set(CODE) <= kept
    assert not [f for f in kept if f.startswith(("splits/", "data/", "runs/")) or f == "score.py"]
    assert hashes(folder) == files

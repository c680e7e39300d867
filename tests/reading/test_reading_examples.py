"""The ten example scripts, against what an expert wrote down for them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmhpo.executors.command import CommandTemplate
from llmhpo.reading.passing import command_of
from llmhpo.reading.ranges import suggest
from llmhpo.reading.script import read
from llmhpo.space import SearchSpace

ROOT = Path(__file__).parent.parent.parent / "examples" / "scripts"
EXPECTED = tomllib.loads((ROOT / "expected.toml").read_text())
NEEDS = {
    "hydra_mlp/train.py": ("hydra", "torch"),
    "xgboost_cancer.py": ("xgboost",),
    "transformers_tiny.py": ("transformers", "accelerate"),
    "click_wine.py": ("click", "pandas"),
}


def right(name: str) -> list[str]:
    """The parameters that are found with the right type and default."""
    found = {f.name: f for f in read(ROOT / name).tunable}
    return [
        n
        for n, (kind, default) in EXPECTED[name]["tunable"].items()
        if n in found and (found[n].kind, repr(found[n].default)) == (kind, repr(default))
    ]


def test_there_are_ten_scripts() -> None:
    assert len(EXPECTED) == 10


def test_at_least_95_percent_of_the_tunable_parameters_are_found_with_type_and_default() -> None:
    wanted = sum(len(e["tunable"]) for e in EXPECTED.values())
    assert sum(len(right(name)) for name in EXPECTED) >= 0.95 * wanted


@pytest.mark.parametrize("name", EXPECTED)
def test_all_but_lists_are_found(name: str) -> None:
    wanted = [n for n, (kind, _) in EXPECTED[name]["tunable"].items() if kind != "list"]
    assert right(name) == wanted or sorted(right(name)) == sorted(wanted)


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_is_invented(name: str) -> None:
    assert {f.name for f in read(ROOT / name).tunable} <= set(EXPECTED[name]["tunable"])


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_left_alone_is_named_with_a_reason(name: str) -> None:
    fixed = {f.name: reason for f, reason in read(ROOT / name).fixed}
    assert set(EXPECTED[name]["fixed"]) <= set(fixed)
    assert all(fixed.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_every_finding_points_at_a_line_that_holds_it(name: str) -> None:
    for found in read(ROOT / name).tunable:
        folder = (ROOT / name).parent
        file = next(p for p in [folder / found.where.file, *folder.rglob(found.where.file)] if p.is_file())
        line = file.read_text().splitlines()[found.where.line - 1]
        last = found.spelling.rpartition(".")[2].strip("-")
        words = (last, last.replace("-", "_"), found.name, found.name.upper(), repr(found.default))
        assert any(word.rpartition(".")[2] in line for word in words) or f'"{found.name}"' in line, (found, line)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_suggested_space_holds_every_default(name: str) -> None:
    for found in read(ROOT / name).tunable:
        suggestion = suggest(found)
        if suggestion.param is not None and found.default is not None:
            assert suggestion.param.default == found.default
            assert suggestion.param.check(found.default) is None


@pytest.mark.parametrize("name", EXPECTED)
def test_the_command_is_one_that_the_executor_takes(name: str) -> None:
    reading = read(ROOT / name)
    chosen = [suggest(f) for f in reading.tunable]
    space = SearchSpace([s.param for s in chosen if s.param is not None])
    CommandTemplate(command_of(reading, chosen).text, space, (ROOT / name).parent)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_the_command_runs_the_script_with_its_defaults(name: str, tmp_path: Path) -> None:
    for module in NEEDS.get(name, ("sklearn",)):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'llmhpo[examples]'")
    reading = read(ROOT / name)
    chosen = [suggest(f) for f in reading.tunable]
    space = SearchSpace([s.param for s in chosen if s.param is not None])
    folder = shutil.copytree((ROOT / name).parent, tmp_path / "here")  # Hydra writes a log where it runs
    params = {p.name: p.default for p in space.params if not p.when or p.name != "optimizer.momentum"}
    if name.startswith("hydra"):
        params = dict(space.default())
    (tmp_path / "params.json").write_text(json.dumps(params))
    result = tmp_path / "result.json"
    words = CommandTemplate(command_of(reading, chosen).text, space, folder).render(
        params, trial=0, seed=0, params_file=tmp_path / "params.json", result_file=result, report_file=tmp_path / "r"
    )
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"LLMHPO_RESULT": str(result), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    subprocess.run(words, cwd=folder, env=environment, check=True, timeout=110, capture_output=True)
    assert all(isinstance(v, int | float) for v in json.loads(result.read_text()).values())

"""The space of a script that draws its hyperparameters itself: found by running it, with the conditions, in bounded time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llmhpo.discovery import Bounds, Findings, find_space
from llmhpo.errors import ConfigError, SpaceError
from llmhpo.executors.command import CommandTemplate
from llmhpo.executors.local import LocalExecutor
from llmhpo.param import When
from llmhpo.reading.draws import read_draws
from llmhpo.reading.imports import sources_of
from llmhpo.space import SearchSpace

LONG = Bounds(all_s=110, silence_s=5.0)  # each run ends by itself; on a busy machine it may pause between two draws


def find(
    folder: Path, code: str, *, partial: SearchSpace | None = None, bounds: Bounds = LONG, args: str = ""
) -> Findings:
    (folder / "train.py").write_text("import time, llmhpo\nfrom llmhpo import choose, integer, uniform\n" + code)
    command = CommandTemplate(f"{{python}} train.py {args}", partial, folder)
    written = [d for s in sources_of(["train.py"], folder) for d in read_draws(s)]
    return find_space(LocalExecutor(command, workers=2, grace_s=0.5), partial=partial, written=written, bounds=bounds)


def conditions(found: Findings) -> dict[str, dict[str, tuple[object, ...]]]:
    return {p.name: {w.parent: w.values for w in p.when} for p in found.space.params}


def test_the_draws_become_the_space_in_their_order(tmp_path: Path) -> None:
    found = find(tmp_path, "uniform('b', 0, 1, default=0.1, doc='words')\nuniform('a', 0, 2)\n")
    assert list(found.space.to_dict().items()) == [
        ("b", {"type": "float", "low": 0.0, "high": 1.0, "default": 0.1, "doc": "words"}),
        ("a", {"type": "float", "low": 0.0, "high": 2.0, "default": 1.0}),
    ]
    assert found.notes == ()


def test_a_script_that_trains_on_is_ended_early(tmp_path: Path) -> None:
    start = time.monotonic()
    found = find(tmp_path, "uniform('b', 0, 1)\ntime.sleep(100)\n", bounds=Bounds(silence_s=0.5))
    assert found.space.names == ("b",)
    assert time.monotonic() - start < 80


def test_a_draw_that_is_written_below_is_waited_for(tmp_path: Path) -> None:
    code = "uniform('b', 0, 1)\ntime.sleep(2)\nuniform('a', 0, 1)\n"
    found = find(tmp_path, code, bounds=Bounds(more_s=60.0, silence_s=0.5))
    assert found.space.names == ("b", "a")


def test_a_draw_that_hangs_on_a_choice_has_a_condition(tmp_path: Path) -> None:
    code = """
if choose("opt", ["adam", "sgd", "lion"]) == "sgd":
    if llmhpo.boolean("nesterov"):
        uniform("momentum", 0, 1)
else:
    uniform("beta", 0, 1)
uniform("lr", 0, 1)
"""
    assert conditions(find(tmp_path, code)) == {
        "opt": {},
        "nesterov": {"opt": ("sgd",)},
        "momentum": {"nesterov": (True,)},
        "beta": {"opt": ("adam", "lion")},
        "lr": {},
    }


def test_a_draw_that_hangs_on_two_choices_is_found(tmp_path: Path) -> None:
    code = "a, b = choose('a', [0, 1]), choose('b', [0, 1])\nif a and b:\n    uniform('x', 0, 1)\n"
    assert conditions(find(tmp_path, code))["x"] == {"a": (1,), "b": (1,)}


def test_draws_in_a_loop_hang_on_its_length(tmp_path: Path) -> None:
    code = "for i in range(integer('depth', 1, 4, default=2)):\n    integer(f'width{i}', 8, 64)\n    choose('act', [1, 2])\n"
    assert conditions(find(tmp_path, code)) == {
        "depth": {},
        "width0": {},
        "act": {},
        "width1": {"depth": (2, 3, 4)},
        "width2": {"depth": (3, 4)},
        "width3": {"depth": (4,)},
    }


def test_whole_numbers_between_two_that_were_tried_are_taken_in(tmp_path: Path) -> None:
    code = "if integer('depth', 0, 20, default=10) >= 10:\n    uniform('x', 0, 1)\n"
    assert conditions(find(tmp_path, code))["x"] == {"depth": tuple(range(10, 21))}


def test_draws_in_the_workers_of_a_data_loader_are_found(tmp_path: Path) -> None:
    code = """
import torch
class Images(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return i * uniform("noise", 0, 1)
if __name__ == "__main__":
    for kind in ("fork", "spawn"):
        list(torch.utils.data.DataLoader(Images(), num_workers=2, multiprocessing_context=kind))
"""
    assert find(tmp_path, code).space.names == ("noise",)


def test_one_name_with_two_ranges_is_refused_with_both_places(tmp_path: Path) -> None:
    code = "for n in (1, 2):\n    uniform('x', 0, n)\nimport other\n"
    with pytest.raises(
        SpaceError, match=r"'x' is drawn twice and differs: at .*train.py:4 .* at .*train.py:4 .*two names"
    ):
        find(tmp_path, code)


def test_a_script_that_fails_before_any_draw_is_told_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)fails with its defaults, before any draw.*correct it.*KeyError: 'nosuch'"
    ):
        find(tmp_path, "{}['nosuch']\nuniform('x', 0, 1)\n")


def test_a_choice_that_breaks_the_script_says_nothing_about_conditions(tmp_path: Path) -> None:
    code = "if choose('a', [0, 1]):\n    raise SystemExit(3)\nuniform('x', 0, 1)\n"
    assert conditions(find(tmp_path, code)) == {"a": {}, "x": {}}


def test_a_script_without_draws_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws nothing with its defaults"):
        find(tmp_path, "print(1)\n")


def test_a_script_that_does_not_come_to_a_draw_in_time_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws nothing"):
        find(tmp_path, "time.sleep(100)\nuniform('x', 0, 1)\n", bounds=Bounds(first_s=1))


def test_what_was_not_come_to_and_not_tried_is_told(tmp_path: Path) -> None:
    code = "choose('a', list(range(9)))\nif time.time() < 0:\n    uniform('x', 0, 1)\n"
    notes = find(tmp_path, code, bounds=Bounds(silence_s=0.5, runs=5)).notes
    assert "4 changed choices were not tried, after 5 runs" in notes[0]
    assert "'x', drawn at train.py:5, was not come to" in notes[1]


def test_a_space_given_in_part_is_kept_and_narrows_a_draw(tmp_path: Path) -> None:
    partial = SearchSpace.from_dict(
        {"seed_lr": {"type": "float", "low": 0, "high": 1}, "a": {"type": "categorical", "choices": ["y", "z"]}}
    )
    code = "import sys\nassert sys.argv[1] == '0.5'\nif choose('a', ['x', 'y', 'z']) == 'z':\n    uniform('b', 0, 1)\n"
    found = find(tmp_path, code, partial=partial, args="{seed_lr}")
    assert found.space.names == ("seed_lr", "a", "b")
    assert found.space["a"].choices == ("y", "z")
    assert conditions(found)["b"] == {"a": ("z",)}


def test_a_space_given_in_part_may_not_be_wider_than_the_draw(tmp_path: Path) -> None:
    partial = SearchSpace.from_dict({"x": {"type": "float", "low": 0, "high": 9}})
    with pytest.raises(SpaceError, match=r"train.py:3: 'x' is drawn as a float from 0 to 1, but \[space\] gives"):
        find(tmp_path, "uniform('x', 0, 1)\n", partial=partial)


def test_an_even_condition_is_the_earlier_draws(tmp_path: Path) -> None:
    code = "if choose('a', [0, 1]):\n    choose('m', [1, 2]), uniform('n', 0, 1)\n"
    found = find(tmp_path, code)
    assert found.space["n"].when == (When("a", (1,)),)


def test_imports_beside_the_script_are_read_and_installed_packages_are_not(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/__init__.py").write_text("from . import blocks\n")
    (tmp_path / "net/blocks.py").write_text("import json, torch, missing\n")
    (tmp_path / "train.py").write_text("from net import *\nimport net.blocks\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    found = sources_of(["python", "train.py", "--config", "broken.py"], tmp_path)
    assert sorted(s.path.relative_to(tmp_path).as_posix() for s in found) == [
        "net/__init__.py",
        "net/blocks.py",
        "train.py",
    ]
    assert {s.path.name for s in sources_of(["python", "-m", "net.blocks"], tmp_path)} == {"blocks.py"}

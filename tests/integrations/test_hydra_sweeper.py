"""The Hydra sweeper: Hydra's own grammar becomes a space, and real multiruns become studies that go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra")

from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hydra_plugins.llmhpo_sweeper._overrides import Overrides, read_overrides
from llmhpo.errors import ConfigError
from llmhpo.param import UNSET
from llmhpo.store import load_study

CONFIG = OmegaConf.create(
    {"lr": 0.01, "net": {"layers": 3, "act": "relu"}, "flag": True, "model": {"kind": "r"},
     "hydra": {"runtime": {"choices": {"model": "small"}}}}
)  # fmt: skip
APP = """
import hydra
@hydra.main(config_path=None, version_base="1.3")
def main(cfg):
    if cfg.x > 4:
        raise RuntimeError("x is too large")
    return {"loss": (cfg.x - 1) ** 2 + (cfg.kind == "b"), "size": 1.0}
main()
"""
SWEEP = ["-m", "hydra/sweeper=llmhpo", "hydra.sweeper.llm=none", "hydra.sweeper.metric=loss", "hydra.sweeper.direction=minimize",
         "hydra.sweep.dir=out", "hydra.sweeper.seed=1"]  # fmt: skip


def read(*arguments: str) -> Overrides:
    return read_overrides(arguments, CONFIG)


@pytest.mark.parametrize(
    ("argument", "words", "default"),
    [
        ("lr=tag(log,interval(1e-5,1.0))", "a float from 1e-05 to 1 (log scale)", 0.01),
        ("lr=interval(0.1,0.5)", "a float from 0.1 to 0.5", UNSET),
        ("net.layers=int(interval(1,8))", "an integer from 1 to 8", 3),
        ("net.layers=range(1,8,2)", "an integer from 1 to 7 in steps of 2", 3),
        ("net.layers=range(8,0,-2)", "an integer from 2 to 8 in steps of 2", UNSET),
        ("lr=range(0.0,0.03,0.01)", "a float from 0 to 0.02 in steps of 0.01", 0.01),
        ("net.act=choice(relu,gelu)", "one of 'relu', 'gelu'", "relu"),
        ("net.act=relu,'a b',null", "one of 'relu', 'a b', None", "relu"),
        ("net.layers=tag(ordered,choice(1,3,9))", "in this order 1, 3, 9", 3),
        ("flag=choice(true,false)", "one of True, False", True),
        ("+new=choice(1,2)", "one of 1, 2", UNSET),
        ("model=choice(small,large)", "one of 'small', 'large'", "small"),
    ],
)
def test_an_override_becomes_a_parameter_with_what_is_configured_as_default(
    argument: str, words: str, default: object
) -> None:
    (param,) = read(argument).space.params
    assert param.describe_range() == words
    assert param.default == default


def test_a_configuration_is_written_as_hydra_reads_it() -> None:
    overrides = read("+new='a b',c", "net.sizes=[1,2],[3]", "lr=tag(log,interval(1e-5,1.0))", "flag=false", "~model")
    job = overrides.of({"new": "a b", "net.sizes": "[3]", "lr": 1e-05})
    assert job == ["flag=false", "~model", "+new='a b'", "net.sizes=[3]", "lr=1e-05"]


@settings(deadline=None)
@given(st.floats(1e-8, 1e8), st.integers(-9, 9))
def test_numbers_come_back_from_hydras_parser_as_they_were(x: float, k: int) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    job = read("lr=interval(-1e9,1e9)", "net.layers=int(interval(-9,9))").of({"lr": x, "net.layers": k})
    values = [o.value() for o in OverridesParser.create().parse_overrides(job)]
    assert values == [x, k]


def test_the_later_of_two_overrides_counts() -> None:
    overrides = read("lr=interval(0.1,0.5)", "net.layers=int(interval(1,8))", "lr=0.3")
    assert overrides.space.names == ("net.layers",)
    assert overrides.fixed == ("lr=0.3",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=0.1"], "nothing is swept over; add overrides such as"),
        (["lr=tag(loog,interval(1e-5,1.0))"], "tag 'loog' is unknown; known are: log, ordered"),
        (["lr=tag(log,interval(0.0,1.0))"], "lr=tag"),
        (["lr=range(3,3)"], "the range is empty"),
        (["lr=tag(log,range(1,9))"], "use tag"),
    ],
)
def test_what_is_no_space_is_told_with_the_override_that_says_so(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*arguments)


def multirun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "app.py", *SWEEP, *arguments], cwd=folder, capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "PYTHONPATH": root, "HYDRA_FULL_ERROR": "0"},
    )  # fmt: skip


def test_a_multirun_is_a_study_that_the_same_command_goes_on_with(tmp_path: Path) -> None:
    space = ["+x=interval(0.0,6.0)", "+kind=choice(a,b)"]
    first = multirun(tmp_path, "hydra.sweeper.n_trials=3", *space)
    assert first.returncode == 0, first.stderr
    again = multirun(tmp_path, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2", *space)
    assert again.returncode == 0, again.stderr
    study = load_study(f"sqlite:///{tmp_path / 'out' / 'study.db'}", "sweep")
    assert [t.number for t in study.trials if t.outcome is not None] == [0, 1, 2, 3, 4, 5]
    failed = [t for t in study.failed if t.outcome is not None]
    assert {t.number for t in failed} == {t.number for t in study.trials if float(t.params["x"] or 0) > 4}
    assert all(t.outcome and "x is too large" in t.outcome.message for t in failed)
    found: Any = OmegaConf.load(tmp_path / "out" / "optimization_results.yaml")
    assert study.best is not None
    assert found.best_evaluated_result == study.best.value
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["0", "1", "2", "3", "4", "5"]


def test_a_sweep_whose_jobs_all_fail_ends_with_their_error(tmp_path: Path) -> None:
    done = multirun(tmp_path, "hydra.sweeper.n_trials=50", "+x=interval(5.0,6.0)", "+kind=a")
    assert done.returncode != 0
    assert "x is too large" in done.stderr
    assert len(load_study(f"sqlite:///{tmp_path / 'out' / 'study.db'}", "sweep").trials) == 5


def test_the_direction_is_asked_for_and_never_guessed(tmp_path: Path) -> None:
    done = multirun(tmp_path, "hydra.sweeper.direction=''", "+x=interval(0.0,1.0)", "+kind=a")
    assert "direction is missing; add hydra.sweeper.direction=minimize" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_holds_the_plugin_where_hydra_looks(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", "import hatchling.build, json; print(json.dumps(hatchling.build.build_wheel(r'" + str(tmp_path) + "')))"],
        cwd=root, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    wheel = tmp_path / json.loads(made.stdout.splitlines()[-1])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hydra_plugins/llmhpo_sweeper/sweeper.py", "llmhpo/__init__.py", "llmhpo/_demo/train.py"} <= names
    assert "hydra_plugins/__init__.py" not in names

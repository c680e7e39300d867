"""Scripts in styles that the reader was not written against, against what an expert wrote down for them; and their commands at work."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from evals.reading import SETS, scores
from llmhpo.executors.command import CommandTemplate
from llmhpo.spec import draft_spec


@pytest.mark.parametrize("name", SETS)
def test_at_least_95_percent_are_found_with_type_and_default(name: str) -> None:
    found = scores(SETS[name])
    assert sum(len(s.right) for s in found) >= 0.95 * sum(len(s.wanted) for s in found)


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_invented(name: str) -> None:
    assert [n for s in scores(SETS[name]) for n in s.invented] == []


def rendered(script: Path, folder: Path, **changed: object) -> list[str]:
    """The words of the drafted command with the defaults, but for what is `changed`."""
    spec = draft_spec("", script=script)
    assert spec.space is not None
    params = {k: v for k, v in spec.space.default().items() if k in spec.space} | changed
    (folder / "params.json").write_text(json.dumps(params))
    files = {k: folder / k for k in ("result_file", "report_file")}
    template = CommandTemplate(spec.command.value, spec.space, script.parent)
    return template.render(params, trial=0, seed=0, params_file=folder / "params.json", **files)


def output(words: list[str], cwd: Path) -> str:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


SWITCHES = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--amsgrad", action="store_true")
parser.add_argument("--no-bias", dest="bias", action="store_false")
parser.add_argument("--nesterov", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument("--augment", type=bool, default=False)
parser.add_argument("--always", action="store_true", default=True)
a = parser.parse_args()
print([a.amsgrad, a.bias, a.nesterov, a.augment])
"""


@pytest.mark.parametrize("on", [True, False])
def test_every_kind_of_argparse_switch_is_set_both_ways(tmp_path: Path, on: bool) -> None:
    (tmp_path / "train.py").write_text(SWITCHES)
    names = ("amsgrad", "bias", "nesterov", "augment")
    words = rendered(tmp_path / "train.py", tmp_path, **dict.fromkeys(names, on))
    assert output(words, tmp_path).strip() == repr([on] * 4)


def test_a_switch_that_can_only_be_on_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SWITCHES)
    spec = draft_spec("", script=tmp_path / "train.py")
    assert [f.name for f, reason in spec.fixed if "one value only" in reason] == ["always"]


IN_CODE = """
from sklearn.linear_model import SGDClassifier
HIDDEN, RATE = 64, 0.1  # two on a line
ACT = "relu"
def build(dropout=0.25):
    return dropout
params = {"max_depth": 6, "use_x": False}
model = SGDClassifier(alpha=1e-4, penalty="l2")
print(__name__, __file__.rpartition("/")[2], HIDDEN, RATE, ACT, params["max_depth"], model.alpha)
"""


def test_values_in_the_code_are_filled_in_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(IN_CODE)
    words = rendered(tmp_path / "train.py", tmp_path, hidden=128, max_depth=9, alpha=0.5)
    assert words[-2:] == ["python", "train.py"]
    assert output(words, tmp_path).strip() == "__main__ train.py 128 0.1 relu 9 0.5"


@pytest.mark.parametrize("file", ["'c.json'", "Path(__file__).with_name('c.json')", "Path(__file__).parent / 'c.json'"])
def test_a_config_that_only_the_code_names_is_filled_in(tmp_path: Path, file: str) -> None:
    (tmp_path / "c.json").write_text('{"lr": 0.1, "note": "é"}')
    (tmp_path / "train.py").write_text(f"import json\nfrom pathlib import Path\nprint(json.load(open({file}))['lr'])\n")
    assert output(rendered(tmp_path / "train.py", tmp_path, lr=0.25), tmp_path).strip() == "0.25"


def test_flags_and_a_config_file_are_passed_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("optim:\n  lr: 0.1\n")
    (tmp_path / "train.py").write_text(
        "import argparse, yaml\np = argparse.ArgumentParser()\np.add_argument('--dropout', type=float, default=0.5)\n"
        "p.add_argument('--config', default='c.yaml')\na = p.parse_args()\n"
        "print(a.dropout, yaml.safe_load(open(a.config))['optim']['lr'])\n"
    )
    words = rendered(tmp_path / "train.py", tmp_path, **{"dropout": 0.25, "optim.lr": 0.75})
    assert output(words, tmp_path).strip() == "0.25 0.75"


def test_code_that_has_changed_since_the_draft_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(IN_CODE)
    words = rendered(tmp_path / "train.py", tmp_path)
    (tmp_path / "train.py").write_text(IN_CODE.replace("HIDDEN, RATE = 64, 0.1", "RATE = 0.1"))
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode != 0
    assert "'hidden'" in run.stderr
    assert "draft the study anew" in run.stderr


def test_globals_of_nanogpts_style_take_values_of_their_own_type(tmp_path: Path) -> None:
    for name in ("nanogpt_style.py", "configurator.py"):
        (tmp_path / name).write_text((SETS["blind"].parent / name).read_text())
    words = rendered(tmp_path / "nanogpt_style.py", tmp_path, bias=True, max_iters=2000)
    assert "--bias=True" in words
    assert "val loss" in output(words, tmp_path)


@pytest.mark.parametrize("name", ["absl_gan.py", "sacred_cnn.py", "fire_trainer.py", "docopt_mf.py", "tap_gnn.py"])
def test_the_command_of_a_style_is_as_its_library_takes_it(name: str, tmp_path: Path) -> None:
    folder = SETS["blind"].parent if (SETS["blind"].parent / name).exists() else SETS["second"].parent
    expected = {
        "absl_gan.py": "--workdir <workdir> --n_critic={n_critic}",
        "sacred_cnn.py": "python sacred_cnn.py with lr={lr} momentum={momentum} {nesterov?nesterov=True:nesterov=False}",
        "fire_trainer.py": "{sublinear_tf?--sublinear_tf:--nosublinear_tf}",
        "docopt_mf.py": "python docopt_mf.py <ratings> --factors={factors}",
        "tap_gnn.py": "--aggregation={aggregation} {undirected?--undirected}",
    }
    assert expected[name] in draft_spec("", script=folder / name).command.value


def test_a_notebook_runs_with_values_filled_into_its_cells(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": "# t"}, {"cell_type": "code", "source": ["%matplotlib inline\n", "LR = 0.1"]},
             {"cell_type": "code", "source": "!ls\nprint('lr', LR)"}]  # fmt: skip
    (tmp_path / "t.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))
    assert output(rendered(tmp_path / "t.ipynb", tmp_path, lr=0.5), tmp_path).strip() == "lr 0.5"

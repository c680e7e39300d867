"""Snippets that try to mislead the reader: what it must see, must not see, and must say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.errors import ConfigError
from llmhpo.param import UNSET
from llmhpo.reading.base import Found
from llmhpo.reading.fill import filled
from llmhpo.reading.passing import command_of
from llmhpo.reading.ranges import suggest
from llmhpo.reading.script import Reading, read

Read = Callable[..., Reading]


def by_name(reading: Reading) -> dict[str, Found]:
    return {f.name: f for f, _ in reading.items}


ARGPARSE = "import argparse\nparser = argparse.ArgumentParser()\n"


@pytest.mark.parametrize(
    "call, name, kind, default",
    [
        ('"--lr", type=float, default=1 / 100', "lr", "float", 0.01),
        ('"--lr", type=lambda s: float(s), default=0.1', "lr", "float", 0.1),
        ('"--lr", type=float, default=compute()', "lr", "float", UNSET),
        ('"--lr", type=float, required=True', "lr", "float", UNSET),
        ('"--lr", type=float, default="1e-3"', "lr", "float", 1e-3),
        ('"--lr", type=float, default=1', "lr", "float", 1.0),
        ('"-b", "--batch-size", type=int, default=2 ** 5', "batch_size", "int", 32),
        ('"--nesterov", action="store_true"', "nesterov", "bool", False),
        ('"--no-bias", dest="bias", action="store_false"', "bias", "bool", True),
        ('"--residual", type=str2bool, default=True', "residual", "bool", True),
        ('"--act", choices=CHOICES, default="relu"', "act", "str", "relu"),
        ('"--kernel", choices=[k.value for k in Kernel], default=Kernel.RBF.value', "kernel", "str", "rbf"),
        ('"dropout", type=float, nargs="?", default=0.1', "dropout", "float", 0.1),
        ('"--momentum", default=0.9', "momentum", "float", 0.9),
    ],
)
def test_an_argument_is_read_with_its_type_and_default(
    read_text: Read, call: str, name: str, kind: str, default: object
) -> None:
    head = 'import enum\nCHOICES = ("relu", "tanh")\nclass Kernel(enum.Enum):\n    RBF = "rbf"\n    LINEAR = "linear"\n'
    found = by_name(read_text(f"{head}{ARGPARSE}parser.add_argument({call})\n"))[name]
    assert (found.kind, found.default) == (kind, default)
    assert found in read_text(f"{head}{ARGPARSE}parser.add_argument({call})\n").tunable


@pytest.mark.parametrize(
    "call",
    [
        '"--seed", type=int, default=0', '"--epochs", type=int, default=10', '"--data-path", default="x.csv"',
        '"--device", choices=["cpu", "cuda"], default="cpu"', '"--log-interval", type=int, default=10',
        '"--num-workers", type=int, default=4', '"--eval-batch-size", type=int, default=64', '"--name", default="a"',
        '"--widths", type=int, nargs="+", default=[64, 64]', '"-v", action="count", default=0', '"--version", action="version"',
        '"--num-classes", type=int, default=10', '"--save-every", type=int, default=1', '"--patience", type=int, default=3',
        '"--output", type=argparse.FileType("w")', '"--no-cuda", action="store_true"', 'f"--{name}", type=float',
    ],
)  # fmt: skip
def test_what_is_no_hyperparameter_is_left_alone(read_text: Read, call: str) -> None:
    assert read_text(f"{ARGPARSE}parser.add_argument({call})\n").tunable == ()


def test_a_bound_that_the_script_states_holds_to_the_last_digit(read_text: Read) -> None:
    text = 'import click\n@click.option("--lr", type=click.FloatRange(0.0123456, 0.1234567), default=0.05)\ndef f(lr): ...\n'
    param = suggest(read_text(text).tunable[0]).param
    assert param is not None
    assert (param.check(0.0123456), param.check(0.1234567)) == (None, None)
    assert param.check(0.12346) is not None


def test_a_decay_rate_never_reaches_one(read_text: Read) -> None:
    param = suggest(read_text(ARGPARSE + 'parser.add_argument("--beta2", type=float, default=0.99)\n').tunable[0]).param
    assert param is not None
    assert param.check(1.0) is not None


def test_a_choice_of_where_to_start_from_is_left_alone(read_text: Read) -> None:
    text = ARGPARSE + 'parser.add_argument("--init_from", choices=["scratch", "resume"], default="scratch")\n'
    assert read_text(text).tunable == ()


def test_comments_and_strings_are_no_arguments(read_text: Read) -> None:
    text = '"""parser.add_argument("--lr", type=float)"""\n# parser.add_argument("--wd", default=0.1)\nx = "--dropout 0.3"\n'
    assert read_text(ARGPARSE + text).items == ()


def test_arguments_of_groups_functions_and_an_alias_are_found(read_text: Read) -> None:
    text = (
        ARGPARSE
        + 'def add(p):\n    g = p.add_argument_group("g")\n    g.add_argument("--lr", type=float, default=0.1)\n'
        'put = parser.add_argument\nput("--wd", type=float, default=0.01)\nargs, _ = parser.parse_known_args()\n'
    )
    assert [f.name for f in read_text(text).tunable] == ["lr", "wd"]


def test_set_defaults_wins(read_text: Read) -> None:
    text = ARGPARSE + 'parser.add_argument("--lr", type=float, default=0.1)\nparser.set_defaults(lr=0.5)\n'
    assert by_name(read_text(text))["lr"].default == 0.5


def test_of_subcommands_the_one_that_trains_is_read(read_text: Read) -> None:
    text = (
        ARGPARSE + "sub = parser.add_subparsers()\n"
        'e = sub.add_parser("export")\ne.add_argument("--depth", type=int, default=3)\n'
        't = sub.add_parser("train")\nt.add_argument("--lr", type=float, default=0.1)\n'
    )
    reading = read_text(text)
    assert (reading.subcommand, [f.name for f in reading.tunable]) == ("train", ["lr"])


def test_a_click_option_given_several_times_is_a_list(read_text: Read) -> None:
    text = 'import click\n@click.command()\n@click.option("--lr", multiple=True, default=[0.1])\ndef f(lr): ...\n'
    reading = read_text(text)
    assert by_name(reading)["lr"].kind == "list"
    assert reading.tunable == ()


def test_typer_reads_annotated_parameters_with_bounds(read_text: Read) -> None:
    text = (
        "import typer\nfrom typing import Annotated, Optional\napp = typer.Typer()\n@app.command()\n"
        'def main(lr: Annotated[float, typer.Option(help="rate", min=0.001, max=1)] = 0.1, depth: int = 2,\n'
        "         width: Optional[int] = None, nesterov: bool = False): ...\n"
    )
    found = by_name(read_text(text))
    assert (found["lr"].low, found["lr"].high, found["lr"].doc) == (0.001, 1.0, "rate")
    assert (found["width"].kind, found["width"].default) == ("int", None)
    assert found["nesterov"].off == "--no-nesterov"


def test_pydantic_settings_come_from_the_environment_with_their_bounds(read_text: Read) -> None:
    text = (
        "from pydantic import Field\nfrom pydantic_settings import BaseSettings, SettingsConfigDict\n"
        'class S(BaseSettings):\n    model_config = SettingsConfigDict(env_prefix="APP_")\n'
        '    lr: float = Field(0.1, ge=0.01, le=0.5, description="rate")\n    tags: list[str] = Field(default_factory=list)\n'
    )
    reading = read_text(text)
    (found,) = reading.tunable
    assert (found.passing, found.spelling, found.low, found.high, found.doc) == ("env", "APP_LR", 0.01, 0.5, "rate")
    param = suggest(found).param
    assert param is not None
    assert "from 0.01 to 0.5" in param.describe_range()


def test_structured_configs_of_hydra_are_nested_overrides(read_text: Read) -> None:
    text = (
        "from dataclasses import dataclass, field\nimport hydra\nfrom hydra.core.config_store import ConfigStore\n"
        "@dataclass\nclass Optim:\n    lr: float = 0.1\n@dataclass\nclass Config:\n    optim: Optim = field(default_factory=Optim)\n"
        '    seed: int = 0\nConfigStore.instance().store(name="config", node=Config)\n'
        '@hydra.main(config_path=None, config_name="config")\ndef main(cfg): ...\n'
    )
    (found,) = read_text(text).tunable
    assert (found.name, found.passing) == ("optim.lr", "override")


def test_constants_that_change_are_not_settings(read_text: Read) -> None:
    text = "lr = 0.1\nbatch_size = 32\nfor epoch in range(3):\n    lr *= 0.5\n    print(lr, batch_size)\n"
    assert [f.name for f in read_text(text).tunable] == ["batch_size"]


def test_constants_beside_a_command_line_are_left_alone(read_text: Read) -> None:
    text = "DROPOUT = 0.5\nprint(DROPOUT)\n" + ARGPARSE + 'parser.add_argument("--lr", type=float, default=0.1)\n'
    assert [f.name for f in read_text(text).tunable] == ["lr"]


def test_training_arguments_are_read_from_their_keywords(read_text: Read) -> None:
    text = (
        "from transformers import TrainingArguments\n"
        'a = TrainingArguments(output_dir="o", learning_rate=5e-5, per_device_train_batch_size=8, num_train_epochs=3,\n'
        '    lr_scheduler_type="cosine", per_device_eval_batch_size=8, logging_steps=10, warmup_ratio=0.1, seed=1, fp16=True)\n'
    )
    names = {f.name for f in read_text(text).tunable}
    assert names == {"learning_rate", "per_device_train_batch_size", "lr_scheduler_type", "warmup_ratio"}


def test_braces_in_a_shell_scripts_command_are_no_placeholders(read_text: Read) -> None:
    reading = read_text("python train.py --format '{epoch}.pt' --lr 0.1\n", "go.sh")
    text = command_of(reading, [suggest(f) for f in reading.tunable if f.name == "lr"]).text
    assert text == "python train.py --format {{epoch}}.pt --lr={lr}"


def test_a_config_file_takes_the_place_of_the_argument_that_names_it(read_text: Read, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("lr: 0.1\n")
    read_text("import sys, yaml\nc = yaml.safe_load(open(sys.argv[1]))\n")
    reading = read(tmp_path / "train.py", config=tmp_path / "c.yaml")
    text = command_of(reading, [suggest(f) for f in reading.tunable]).text
    assert text == "python -m llmhpo.reading.fill c.yaml {params_file} lr -- python train.py CONFIG"


def test_the_config_of_a_lightning_script_goes_to_its_fit_and_holds_its_defaults(
    read_text: Read, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("model:\n  lr: 0.01\ntrainer:\n  gradient_clip_val: 1.0\n")
    read_text(
        "from lightning.pytorch.cli import LightningCLI\nclass M:\n  def __init__(self, lr: float = 0.5): ...\nLightningCLI(M)\n"
    )
    reading = read(tmp_path / "train.py", config=tmp_path / "c.yaml")
    assert {f.name: f.default for f in reading.tunable} == {"model.lr": 0.01, "trainer.gradient_clip_val": 1.0}
    command = command_of(reading, [suggest(f) for f in reading.tunable]).text
    assert command.endswith("model.lr trainer.gradient_clip_val -- python train.py fit --config CONFIG")


SHELL = """
    set -eu
    : "${LR:=0.05}"
    export WEIGHT_DECAY=${WEIGHT_DECAY:-1e-4} DROPOUT=0.3
    export LR=$LR
    here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    exec python3 "$here/train.py"
"""


def test_a_shell_script_passes_on_what_the_environment_sets_and_says_what_it_sets_itself(
    read_text: Read, tmp_path: Path
) -> None:
    names = ("LR", "WEIGHT_DECAY", "DROPOUT", "MOMENTUM")
    (tmp_path / "train.py").write_text("import os\n" + "".join(f"{n} = float(os.getenv('{n}', 0.5))\n" for n in names))
    reading = read_text(SHELL, "go.sh")
    assert {f.name: f.default for f in reading.tunable} == {"lr": 0.05, "weight_decay": 1e-4, "momentum": 0.5}
    assert [(f.name, reason) for f, reason in reading.fixed] == [
        ("dropout", "the shell script sets it itself: write DROPOUT=${DROPOUT:-0.3} there to tune it")
    ]


@pytest.mark.parametrize(
    "root, folder",
    [
        ('"$(dirname "$0")"', "scripts"),
        ('"$(dirname "$0")/.."', "."),
        ('"$(cd "$(dirname "$0")" && pwd)"', "scripts"),
        ('"$(cd "$(dirname "$0")/.." && pwd)"', "."),
        ('"$(cd "$(dirname "$0")"/.. ; pwd -P)"', "."),
        ('$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../src/" >/dev/null 2>&1 && pwd)', "src"),
        ('"$(cd "$(dirname "$0")/.." && git rev-parse --show-toplevel)"', None),
        ('"$(cd "$(dirname "$0")/$PART" && pwd)"', None),
    ],
)
def test_a_folder_named_from_the_shell_scripts_own_is_that_folder_or_not_known(
    tmp_path: Path, root: str, folder: str | None
) -> None:
    for name in ("scripts", ".", "src"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "train.py").write_text(f'{ARGPARSE}parser.add_argument("--where", default={name!r})\n')
    (tmp_path / "scripts" / "go.sh").write_text(f"ROOT={root}\npython $ROOT/train.py --lr 0.1\n")
    found = {f.name: f.default for f, _ in read(tmp_path / "scripts" / "go.sh").items}
    assert found == {"lr": 0.1} | ({} if folder is None else {"where": folder})


def test_a_help_text_is_read(read_text: Read) -> None:
    text = """\
    usage: train.py [-h] [--lr LR] [--opt {sgd,adam}]

    options:
      -h, --help            show this help message and exit
      --lr LR               peak learning rate
                            (default: 0.01)
      --opt {sgd,adam}      update rule (default: sgd)
      --nesterov, --no-nesterov
      --amsgrad             a switch
    """
    found = by_name(read_text(text, "help.txt"))
    assert (found["lr"].kind, found["lr"].default, found["lr"].doc) == ("float", 0.01, "peak learning rate")
    assert found["opt"].choices == ("sgd", "adam")
    assert (found["nesterov"].passing, found["amsgrad"].passing) == ("pair", "switch")
    assert set(found) == {"lr", "opt", "nesterov", "amsgrad"}


def test_a_notebook_names_cell_and_line(read_text: Read) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["lr = 9"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "learning_rate = 0.1\n", "print(learning_rate)"]},
    ]
    (found,) = read_text(json.dumps({"cells": cells}), "n.ipynb").tunable
    assert str(found.where) == "n.ipynb, cell 2, line 2"


@pytest.mark.parametrize("name", ["c.toml", "c.json", "c.yaml"])
def test_a_config_file_is_read_and_filled(read_text: Read, tmp_path: Path, name: str) -> None:
    texts = {
        "c.toml": 'seed = 1\n[optim]\nlr = 1e-3\nkind = "sgd"\n',
        "c.json": '{"seed": 1,\n "optim": {\n  "lr": 1e-3, "kind": "sgd"}}',
        "c.yaml": "seed: 1\noptim:\n  lr: 1e-3\n  kind: sgd\n",
    }
    (found,) = read_text(texts[name], name).tunable
    assert (found.name, found.kind, found.default, found.where.line) == ("optim.lr", "float", 1e-3, 3)
    (tmp_path / f"new-{name}").write_text(filled(tmp_path / name, {"optim.lr": 0.25}))
    (again,) = read(tmp_path / f"new-{name}").tunable
    assert again.default == 0.25


# --- broken input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.py", "def f(:\n", ["a.py:1", "not valid Python"]),
        ("a.py", 'print "hello"\n', ["a.py:1", "Python 2", "2to3"]),
        ("a.py", "x = " + "(" * 5000 + ")" * 5000, ["a.py"]),
        ("a.py", "x = 1\n" + "-" * 100_000 + "1\n", ["a.py"]),
        ("a.yaml", "a: [1\nb: 2\n", ["a.yaml:", "not valid YAML"]),
        ("a.yaml", "- 1\n- 2\n", ["holds no table"]),
        ("a.yaml", "a: " + "[" * 3000, ["a.yaml"]),
        ("a.toml", "a = = 1", ["not valid TOML"]),
        ("a.json", "[1]", ["holds no table"]),
        ("a.json", "[" * 100_000, ["not valid JSON"]),
        ("a.ipynb", "{}", ["has no 'cells'"]),
        ("a.sh", "echo hello\n", ["starts no Python program"]),
        ("a.txt", "lr is 0.1", ["neither a script"]),
        (
            "a.py",
            "import hydra\n@hydra.main(config_path='conf', config_name='c')\ndef f(c): ...\n",
            ["a.py:2", "'c'", "conf"],
        ),
    ],
)
def test_broken_input_is_told_with_its_place(read_text: Read, name: str, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_text(text, name)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"x = '\xe9'\n", b"# coding: nonsense\n", b"a\0b"])
def test_what_is_no_text_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.py"):
        read(path)


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nowhere.py")


def test_a_file_of_one_megabyte_is_read(read_text: Read) -> None:
    text = ARGPARSE + "".join(f'x{i} = "a line of data"\n' for i in range(35_000))
    assert [f.name for f in read_text(text + 'parser.add_argument("--lr", type=float, default=0.1)\n').tunable] == [
        "lr"
    ]


def test_a_file_of_five_megabytes_is_refused(read_text: Read) -> None:
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        read_text("#" * (5 << 20))


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.py", "a.yaml", "a.toml", "a.json", "a.sh", "a.txt", "a.ipynb"):
        (folder / name).write_bytes(text.encode())
        try:
            read(folder / name)
        except ConfigError as error:
            assert name in str(error)  # noqa: PT017


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(
        ["lr", "weight_decay", "dropout", "batch_size", "depth", "hidden", "gamma", "foo", "max_depth", "warmup"]
    ),
    st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**6), 10**6)),
)
def test_a_suggested_range_always_holds_the_default(
    tmp_path_factory: pytest.TempPathFactory, name: str, default: float
) -> None:
    path = tmp_path_factory.mktemp("d") / "t.py"
    kind = "int" if isinstance(default, int) else "float"
    path.write_text(f'{ARGPARSE}parser.add_argument("--{name}", type={kind}, default={default!r})\n')
    for found in read(path).tunable:
        suggestion = suggest(found)
        assert suggestion.reason
        if suggestion.param is not None:
            assert suggestion.param.default == default

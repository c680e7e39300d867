"""Settings that stand in one place and are used in another: tables of the code, records behind a parser's dotted flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmhpo.reading.script import read

RECORDS = """
@dataclass
class Optim:
    lr: float = 1e-3
    weight_decay: float = 0.01
    nesterov: bool = False

@dataclass
class Model:
    width: int = 64
    lr: float = 0.1
"""


def tunable(folder: Path, text: str) -> dict[str, tuple[str, object]]:
    script = folder / "train.py"
    script.write_text(text, encoding="utf-8")
    return {f.name: (f.spelling, f.default) for f in read(script).tunable}


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ('CONFIG = {"learning_rate": 0.1, "max_depth": 3}', 'learning_rate=CONFIG["learning_rate"], max_depth=2 * CONFIG["max_depth"]'),
        ("LEARNING_RATE = 0.1\nMAX_DEPTH = 3", "learning_rate=LEARNING_RATE * 0.5, max_depth=int(MAX_DEPTH)"),
        ("N_GPUS = 4\nN_CLASSES = 3", "learning_rate=0.1 * N_GPUS, max_depth=N_CLASSES + 1"),
    ],
)  # fmt: skip
def test_a_value_that_is_used_in_a_constructor_is_one_parameter_and_not_two(
    tmp_path: Path, where: str, how: str
) -> None:
    assert list(tunable(tmp_path, f"{where}\nmodel = GradientBoostingClassifier({how})\n")) == [
        "learning_rate",
        "max_depth",
    ]


def test_a_table_of_a_name_that_says_nothing_is_read_where_its_values_are_used(tmp_path: Path) -> None:
    found = tunable(tmp_path, 'C = {"lr": 0.1}\nopt = torch.optim.SGD(net.parameters(), lr=C["lr"])\n')
    assert found == {"lr": ("SGD(lr=)", 0.1)}


@pytest.mark.parametrize(
    ("imported", "call", "flags"),
    [
        ("import jsonargparse", "jsonargparse.CLI(train, as_positional=False)", ["--optim.lr", "--optim.weight_decay", "--optim.nesterov", "--batch_size"]),
        ("import tyro", "tyro.cli(train)", ["--optim.lr", "--optim.weight-decay", "--optim.nesterov", "--batch-size"]),
    ],
)  # fmt: skip
def test_a_parameter_that_is_a_record_has_a_flag_for_each_of_its_fields(
    tmp_path: Path, imported: str, call: str, flags: list[str]
) -> None:
    text = f"{imported}\n{RECORDS}\ndef train(optim: Optim = Optim(), batch_size: int = 32, seed: int = 0):\n    ...\n{call}\n"
    assert [spelling for spelling, _ in tunable(tmp_path, text).values()] == flags


def test_simple_parsing_names_a_flag_by_as_little_of_its_path_as_tells_it_apart(tmp_path: Path) -> None:
    text = f'from simple_parsing import ArgumentParser\n{RECORDS}\np = ArgumentParser()\np.add_arguments(Optim, dest="optim")\np.add_arguments(Model, "model")\n'
    flags = [spelling for spelling, _ in tunable(tmp_path, text).values()]
    assert flags == ["--optim.lr", "--weight_decay", "--nesterov", "--width", "--model.lr"]


def test_simple_parsing_gives_fields_of_inner_records_flags_of_their_own(tmp_path: Path) -> None:
    whole = "@dataclass\nclass Whole:\n    lr: float = 0.5\n    optim: Optim = None\n"
    text = f"import simple_parsing\n{RECORDS}\n{whole}\nsimple_parsing.parse(Whole)\n"
    flags = [spelling for spelling, _ in tunable(tmp_path, text).values()]
    assert flags == ["--lr", "--optim.lr", "--weight_decay", "--nesterov"]


@pytest.mark.parametrize(
    ("parser", "flag"),
    [
        ('from simple_parsing import ArgumentParser\np = ArgumentParser()\np.add_arguments(Child, dest="opt")', "--lr"),
        ("import tyro\ntyro.cli(Child)", "--lr"),
        ("HfArgumentParser(Child)", "--lr"),
    ],
)
def test_a_field_that_a_child_writes_again_is_one_flag_with_the_default_of_the_child(
    tmp_path: Path, parser: str, flag: str
) -> None:
    classes = "@dataclass\nclass Base:\n    lr: float = 0.1\n    width: int = 64\n\n@dataclass\nclass Child(Base):\n    lr: float = 0.5\n"
    assert tunable(tmp_path, f"{classes}\n{parser}\n") == {"lr": (flag, 0.5), "width": ("--width", 64)}


def test_simple_parsing_gives_a_class_that_is_added_twice_flags_for_each(tmp_path: Path) -> None:
    text = f'from simple_parsing import ArgumentParser\n{RECORDS}\np = ArgumentParser()\np.add_arguments(Model, "gen")\np.add_arguments(Model, "disc")\n'
    flags = [spelling for spelling, _ in tunable(tmp_path, text).values()]
    assert flags == ["--gen.width", "--gen.lr", "--disc.width", "--disc.lr"]

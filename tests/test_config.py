from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmhpo.config import read_study_file, steered_config
from llmhpo.errors import ConfigError, LLMHPOError
from llmhpo.executors.limits import Limits
from llmhpo.steering import Steering
from llmhpo.usage import Price

GOOD = """
task = "  a task "
command = "python train.py --lr {lr}"
metric = "val_loss"
direction = "minimize"
n_trials = 7
llm = "none"
price = { input = 1, output = 2.5 }

[space.lr]
type = "float"
low = 1e-4
high = 1.0
log = true
"""


def write(folder: Path, text: str, name: str = "study.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_study_file_becomes_a_run(tmp_path: Path) -> None:
    config = read_study_file(write(tmp_path, GOOD))
    assert config.task.text == "a task"
    assert config.space.names == ("lr",)
    assert config.n_trials == 7
    assert config.cwd == tmp_path
    assert config.study_name == tmp_path.name
    assert config.directory == tmp_path / "runs" / tmp_path.name
    assert config.storage == f"sqlite:///{tmp_path}/runs/{tmp_path.name}/study.db"


def test_another_file_name_is_another_study(tmp_path: Path) -> None:
    assert read_study_file(write(tmp_path, GOOD, "wide.toml")).study_name == "wide"


def test_overrides_replace_keys_and_none_leaves_them(tmp_path: Path) -> None:
    config = read_study_file(write(tmp_path, GOOD), {"n_trials": 9, "llm": None, "study_name": "b"})
    assert (config.n_trials, config.llm, config.study_name) == (9, "none", "b")


def test_a_price_is_read(tmp_path: Path) -> None:
    text = GOOD.replace("input = 1,", "input = 1.0,")
    assert read_study_file(write(tmp_path, text)).price == Price(1.0, 2.5)


def test_the_space_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"x": {"type": "int", "low": 1, "high": 3}}')
    text = GOOD.split("[space", maxsplit=1)[0].replace("{lr}", "{x}") + 'space_file = "s.json"\n'
    assert read_study_file(write(tmp_path, text)).space.names == ("x",)


def test_the_example_is_valid() -> None:
    config = read_study_file(Path(__file__).parent.parent / "examples" / "digits" / "study.toml")
    assert len(config.space) >= 8
    assert any(p.when for p in config.space.params)
    assert config.n_trials == 16
    assert config.n_workers == 2


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('metric = "val_loss"', "", ["'metric' is missing", "val_loss"]),
        ('direction = "minimize"', "", ["'direction' is missing"]),
        ('direction = "minimize"', 'direction = "down"', ["direction = 'down'", "minimize"]),
        ("n_trials = 7", "n_trial = 7", ["'n_trial'", "did you mean 'n_trials'"]),
        ("n_trials = 7", 'n_trials = "7"', ["n_trials = '7'"]),
        ("n_trials = 7", "n_trials = 0", ["n_trials=0", "from 1 on"]),
        ("n_trials = 7", "n_trials = 7\ngpus = 2", ["gpus = 2", 'gpus = ["0", "1"]']),
        ("n_trials = 7", "n_trials = 7\ngpus = [0]", ["gpus.0 = 0", 'gpus = ["0", "1"]']),
        ("n_trials = 7", "n_trials = 7\nseed = -1", ["seed=-1"]),
        ("n_trials = 7", "n_trials = 7\nmax_tokens = -5", ["max_tokens=-5"]),
        ("n_trials = 7", "n_trials = 7\ntimeout_s = 0", ["timeout_s=0"]),
        ("n_trials = 7", "n_trials = = 7", ["not valid TOML"]),
        ("low = 1e-4", "low = 0.0", ["'lr'", "low = 0.0", "low > 0"]),
        ("low = 1e-4", 'low = 1e-4\nwhen = { opt = "sgd" }', ["'lr'", "'opt'"]),
        ("[space.lr]", "space_file = 's.toml'\n[space.lr]", ["space_file", "not both"]),
    ],
)
def test_bad_input_names_file_key_and_remedy(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(LLMHPOError) as error:
        read_study_file(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('metric = "val_loss"', "x = 1"))
    with pytest.raises(ConfigError) as error:
        read_study_file(path)
    assert len(str(error.value).splitlines()) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml.*give the path.*llmhpo init"):
        read_study_file(tmp_path / "nowhere.toml")


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    head = 'storage = "sqlite:///sub/a.db"\n'
    config = read_study_file(write(tmp_path, head + GOOD.replace('"none"', '"local:model"')))
    assert config.storage == f"sqlite:///{tmp_path}/sub/a.db"
    assert config.llm == f"local:{tmp_path}/model"
    config = read_study_file(write(tmp_path, GOOD.replace('"none"', '"local:org/model"')))
    assert config.llm == "local:org/model"


def test_a_study_file_says_that_the_objective_is_noisy(tmp_path: Path) -> None:
    assert read_study_file(write(tmp_path, GOOD)).task.noisy is False
    assert read_study_file(write(tmp_path, GOOD), {"noisy": True}).task.noisy is True
    assert read_study_file(write(tmp_path, "noisy = true\n" + GOOD)).task.noisy is True


def test_limits_and_shares_of_gpus_are_read(tmp_path: Path) -> None:
    more = 'gpus = ["0"]\ngpus_per_trial = 0.5\nlimits = { memory_gb = 8, disk_mb = 500 }\n'
    config = read_study_file(write(tmp_path, more + GOOD))
    assert config.limits == Limits(memory_gb=8, disk_mb=500)
    assert (config.gpus, config.gpus_per_trial) == (("0",), 0.5)


@pytest.mark.parametrize(
    "line, words",
    [
        ("limits = { memory_gb = -1 }", "limits.memory_gb=-1"),
        ("limits = { memory = 8 }", "did you mean 'memory_gb'"),
        ('limits = { cpu_s = "9" }', "cpu_s"),
        ("limits = 8", "limits"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused_by_name(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_study_file(write(tmp_path, f"{line}\n{GOOD}"))


def test_a_wrong_option_is_blamed_on_the_option_and_a_wrong_key_on_the_file(tmp_path: Path) -> None:
    study = write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"^--n-trials: n_trials=0"):
        read_study_file(study, {"n_trials": 0, "seed": None})
    study.write_text(GOOD.replace("n_trials = 7", "n_trials = 0"))
    with pytest.raises(ConfigError, match=r"study\.toml: n_trials=0"):
        read_study_file(study, {"seed": 3})


@pytest.mark.parametrize(
    "option", ["n_workers", "seed", "retries", "max_tokens", "max_usd", "max_requests", "stop_stale", "stop_gain", "max_wall_s"]
)  # fmt: skip
def test_every_number_of_the_command_line_is_blamed_by_its_option(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')}: {option}=-1"):
        read_study_file(write(tmp_path, GOOD), {option: -1 if option != "max_usd" else -1.0})


@pytest.mark.parametrize(
    ("command", "arguments", "joined"),
    [("t {lr}", "--opt x {x}", "t {lr} --opt x {x}"), ("t {lr}", "{x}", "t {lr} {x}"), ("t {x}", "{x}  {lr}", "t {x} {lr}"),
     ("t {lr}", "--x  {x}.0 --fast", "t {lr} --x  {x}.0 --fast"), ("t {lr} {x}", "--opt x {x} --fast", "t {lr} {x} --fast"),
     ("t {lr}", "--set {{a}} {x}", "t {lr} --set {{a}} {x}")],
)  # fmt: skip
def test_what_was_added_to_the_command_comes_whole_and_once(
    tmp_path: Path, command: str, arguments: str, joined: str
) -> None:
    config = replace(read_study_file(write(tmp_path, GOOD)), command=command)
    added = {"x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5}}
    assert steered_config(config, Steering(params=added, added=("x",), arguments=arguments)).command == joined

"""What of the comparison in CARP-S needs no CARP-S. The rest is in tests/carps."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from evals.carps_bench import CarpsError, Plan, command, main


def test_without_carps_the_error_says_which_command_builds_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PackageNotFoundError):
        version("carps")
    assert main(["--out", str(tmp_path)]) == 1
    assert "`make carps`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--functions", "25"], "function 25 is not in CARP-S"),
        (["--dimensions", "2,5"], "dimension 5 is not in CARP-S: functions are 1 to 24, dimensions 2, 4, 8, 16, 32"),
        (["--seeds", "0"], "seeds = 0, trials = 50"),
    ],
)
def test_what_carps_has_not_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], message: str
) -> None:
    assert main(["--out", str(tmp_path), *option]) == 1
    assert message in capsys.readouterr().err


def test_the_classical_arms_run_as_carps_ships_them() -> None:
    words = command(Plan(), "tpe_default", Path("/tmp/x"))
    assert not [word for word in words if "llmhpo" in word or "sampler" in word]


def test_a_model_is_named_in_the_grammar_of_hydra() -> None:
    words = command(Plan(), "scripted:/it's/here", Path("/tmp/x"))
    assert "+optimizer.optuna_cfg.study.sampler.llm='scripted:/it\\'s/here'" in words
    assert "optimizer_id=scripted__it_s_here" in words


def test_a_plan_refuses_what_is_not_there() -> None:
    with pytest.raises(CarpsError, match="dimension 3"):
        Plan(dimensions=(3,))

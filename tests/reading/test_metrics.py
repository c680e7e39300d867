"""Metrics in code and output: what a person would call the result of the run, under the name that stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.reading import SETS
from llmhpo.reading.metrics import find_metric, pattern_of, read_metrics, same_name, shown_in
from llmhpo.reading.source import parse, read_source


@pytest.mark.parametrize(
    "line, name, value",
    [
        ("epoch 3: val loss 0.25", "val loss", 0.25), ("val_acc=0.9", "val_acc", 0.9), ("{'val_accuracy': 0.91}", "val_accuracy", 0.91),
        ("Test accuracy: 0.98", "Test accuracy", 0.98), ("step 10 | loss -1.5e-3 | lr 0.1", "loss", -0.0015), ("RMSE is 3", "RMSE", 3.0),
        ('{"eval/f1": 0.5}', "eval/f1", 0.5), ("CV RMSE: .5", "CV RMSE", 0.5), ("AUC = 93.1%", "AUC", 93.1),
    ],
)  # fmt: skip
def test_a_metric_in_the_output_is_seen_and_read_by_its_pattern(line: str, name: str, value: float) -> None:
    assert [(s.name, s.value) for s in shown_in(line)] == [(name, value)]
    match = re.search(pattern_of(name), line)
    assert match is not None
    assert float(match[1]) == value


@pytest.mark.parametrize(
    "line", ["epoch 3", "lr 0.1", "loss function 3", "accuracy of the 3rd model", "batch 12/40", "score", "seed: 3"]
)
def test_what_is_no_metric_is_not_seen(line: str) -> None:
    assert shown_in(line) == ()


def test_the_last_value_counts_also_where_it_is_none() -> None:
    matches = re.findall(pattern_of("loss"), "loss 0.5\nloss nan\n")
    assert matches == ["0.5", "nan"]


@pytest.mark.parametrize(
    "output, name, found",
    [
        ("final accuracy 0.9\nacc 0.8", "accuracy", "final accuracy"), ("validation MAE: 3.1", "mae", "validation MAE"),
        ("val_loss=1 loss=2", "loss", "loss"), ("train loss 1 val loss 2", "loss", "val loss"),
        ("val loss 1 test loss 2", "loss", None), ("train loss 1", "loss", None), ("silhouette = 0.5", "silhouette", "silhouette"),
        ("accuracy: 1", "acc", None),
    ],
)  # fmt: skip
def test_a_metric_goes_by_a_shorter_name_where_only_one_ends_so(output: str, name: str, found: str | None) -> None:
    shown = find_metric(shown_in(output, name), name)
    assert (shown and shown.name) == found


@given(st.text(max_size=200))
def test_any_output_can_be_looked_at(text: str) -> None:
    for shown in shown_in(text):
        assert re.search(pattern_of(shown.name), text)


@pytest.mark.parametrize(
    "code",
    ["print(f'val_loss: {x:.3f}')", "print('val_loss:', x)", "print('val_loss %.3f' % x)", "print('val_loss {}'.format(x))",
     "log.info('val_loss %f', x)", "print({'val_loss': x})", "typer.echo(f'epoch {e} val_loss={x}')"],
)  # fmt: skip
def test_a_metric_that_the_code_prints_is_seen_with_its_line(code: str) -> None:
    shown = read_metrics(parse(Path("t.py"), f"import t\n{code}\n"))
    assert [(s.name, str(s.where)) for s in shown] == [("val_loss", "t.py:2")]


def test_a_metric_that_is_handed_in_needs_no_pattern() -> None:
    shown = read_metrics(parse(Path("t.py"), "from llmhpo import job\njob.result({'rate': 1})\n"))
    assert [(s.name, s.pattern) for s in shown] == [("rate", "")]


WANTED = {
    "blind": {"fire_trainer.py": "accuracy", "absl_gan.py": "wasserstein", "typer_lm.py": "val_bpc", "nanogpt_style.py": "val loss",
              "ml_config/main.py": "val_accuracy", "simple_parsing_rl.py": "episodic_return", "config_dict.py": "CV RMSE",
              "keras_functions.py": "Test accuracy"},
    "second": {"hf_finetune.py": "eval_accuracy", "sacred_cnn.py": "final test acc", "tap_gnn.py": "test rmse", "pix_train.py": "FID",
               "docopt_mf.py": "RMSE on held out"},
}  # fmt: skip


def test_the_metrics_of_the_blind_scripts_are_seen() -> None:
    found = [
        any(same_name(wanted, shown.name) for shown in read_metrics(read_source(SETS[which].parent / name)))
        for which, names in WANTED.items()
        for name, wanted in names.items()
    ]
    assert sum(found) >= 12  # of 13: "RMSE on held out: %f" names its metric in the middle


def test_spellings_of_one_name_are_the_same() -> None:
    assert same_name("val loss", "val_loss")
    assert not same_name("val_loss", "train_loss")

"""What a person's words say outright, and what they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.draft import with_metric
from llmhpo.reading.wording import read_words
from llmhpo.spec import Item, Origin, draft_spec


@pytest.mark.parametrize(
    "words, metric, direction",
    [
        ("Minimize val_loss of a CNN", "val_loss", "minimize"), ("please maximise the test accuracy", "test accuracy", "maximize"),
        ("a net; maximize `eval/f1`, fast", "eval/f1", "maximize"), ("minimizing is fun", None, None), ("tune it", None, None),
        ("minimize overfitting", None, None), ("do not minimize loss", None, None), ("minimize or maximize loss", None, None),
        ("minimize loss and maximize accuracy", None, None), ("accuracy should be high", None, None),
    ],
)  # fmt: skip
def test_metric_and_direction_count_where_they_are_said_outright(
    words: str, metric: str | None, direction: str | None
) -> None:
    said = read_words(words)
    assert (said.metric and said.metric[0], said.direction and said.direction[0]) == (metric, direction)


@pytest.mark.parametrize(
    "words, trials, seconds, usd",
    [
        ("50 trials, 10 minutes per trial, at most $5", 50, 600.0, 5.0), ("90 s each run", None, 90.0, None), ("1.5 hours for each training", None, 5400.0, None),
        ("2 usd", None, None, 2.0), ("10 minutes in all", None, None, None), ("20 runs or 30 runs", None, None, None), ("a 7b model", None, None, None),
    ],
)  # fmt: skip
def test_the_budget_counts_where_it_is_said(
    words: str, trials: int | None, seconds: float | None, usd: float | None
) -> None:
    said = read_words(words)
    assert [None if x is None else x[0] for x in (said.n_trials, said.timeout_s, said.max_usd)] == [
        trials,
        seconds,
        usd,
    ]


@given(st.text())
def test_any_words_can_be_read(words: str) -> None:
    read_words(words)


def test_a_direction_said_of_one_metric_says_nothing_of_another(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("lr = 0.1\nprint('acc', lr)\n")
    spec = draft_spec("minimize val_loss", script=tmp_path / "t.py")
    assert spec.open == ()
    assert with_metric(spec, "acc").open == ("direction",)
    person = replace(spec, direction=Item("maximize", Origin("person")))
    assert with_metric(person, "acc").open == ()

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.llm.base import TokenLogprob
from llmhpo.surrogates.digits import HIGH, LOW, Scale, Spread, mixed, of_samples, of_scores, of_tokens

MARKS = list(range(LOW, HIGH + 1))
weights = st.lists(st.floats(0.001, 1.0), min_size=90, max_size=90).map(lambda w: np.array(w) / sum(w))


def tokens_of(p: np.ndarray, said: int, *, whole: bool = False) -> list[TokenLogprob]:
    """What a model with distribution `p` (90,) over marks tells when it says one of them: digit by digit, or as one token."""
    if whole:
        top = tuple((str(m), math.log(p[m - LOW])) for m in MARKS)
        return [
            TokenLogprob('{"score": ', 0.0),
            TokenLogprob(str(said), math.log(p[said - LOW]), top),
            TokenLogprob("}", 0.0),
        ]
    first, second = str(said)
    firsts = {str(d): float(p[(d - 1) * 10 : d * 10].sum()) for d in range(1, 10)}
    row = p[(int(first) - 1) * 10 : int(first) * 10] / firsts[first]
    tops = [tuple((d, math.log(v)) for d, v in firsts.items()), tuple((str(d), math.log(v)) for d, v in enumerate(row))]
    return [
        TokenLogprob('{"score": ', 0.0),
        TokenLogprob(first, math.log(firsts[first]), tops[0]),
        TokenLogprob(second, math.log(row[int(second)]), tops[1]),
        TokenLogprob("}", 0.0),
    ]


@settings(deadline=None, max_examples=30)
@given(p=weights, said=st.sampled_from(MARKS), whole=st.booleans())
def test_the_digits_probabilities_sum_to_one(p: np.ndarray, said: int, whole: bool) -> None:
    spread = of_tokens(tokens_of(p, said, whole=whole))
    assert spread is not None
    assert spread.p.sum() == pytest.approx(1.0)
    assert (spread.p >= 0).all()


@settings(deadline=None, max_examples=30)
@given(p=weights, said=st.sampled_from(MARKS))
def test_marks_that_are_one_token_give_the_whole_distribution(p: np.ndarray, said: int) -> None:
    spread = of_tokens(tokens_of(p, said, whole=True))
    assert spread is not None
    assert spread.mean == pytest.approx(float(p @ MARKS))
    assert spread.std == pytest.approx(math.sqrt(float(p @ (np.array(MARKS) - p @ MARKS) ** 2)), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(p=weights, said=st.sampled_from(MARKS))
def test_marks_of_two_tokens_give_the_mean_within_what_the_unseen_digit_leaves_open(p: np.ndarray, said: int) -> None:
    spread = of_tokens(tokens_of(p, said))
    assert spread is not None
    assert abs(spread.mean - float(p @ MARKS)) <= 4.5
    assert spread.std >= 0


def test_a_model_that_is_sure_is_told_without_doubt() -> None:
    p = np.full(90, 1e-12)
    p[47 - LOW] = 1.0
    spread = of_tokens(tokens_of(p / p.sum(), 47))
    assert spread is not None
    assert (spread.mean, spread.std) == (pytest.approx(47.0), pytest.approx(0.0, abs=1e-3))


@pytest.mark.parametrize("texts", [["no", " score"], ["7", "}"], ["100", "}"], ['{"score": "', "x"], []])
def test_an_answer_without_a_mark_gives_nothing(texts: list[str]) -> None:
    assert of_tokens([TokenLogprob(t, -0.1) for t in texts]) is None


@settings(deadline=None, max_examples=30)
@given(p=weights)
def test_scores_of_all_marks_give_the_whole_distribution(p: np.ndarray) -> None:
    def score(texts: Sequence[str]) -> list[float]:
        return [math.log(p[int(t) - LOW]) - 3.0 for t in texts]  # a constant cancels

    spread = of_scores(score, digit_by_digit=False)
    assert spread.p.sum() == pytest.approx(1.0)
    assert spread.mean == pytest.approx(float(p @ MARKS))


@settings(deadline=None, max_examples=30)
@given(p=weights)
def test_scores_digit_by_digit_need_few_texts_and_keep_the_mean_close(p: np.ndarray) -> None:
    asked: list[str] = []

    def score(texts: Sequence[str]) -> list[float]:
        asked.extend(texts)
        return [math.log(p[(int(t) - 1) * 10 : int(t) * 10].sum() if len(t) == 1 else p[int(t) - LOW]) for t in texts]

    spread = of_scores(score, digit_by_digit=True)
    assert len(asked) <= 9 + 30
    assert spread.p.sum() == pytest.approx(1.0)
    assert abs(spread.mean - float(p @ MARKS)) <= 4.5


def test_samples_give_their_mean_and_deviation() -> None:
    spread = of_samples([40, 50, 60])
    assert spread is not None
    assert (spread.mean, spread.std) == (pytest.approx(50.0), pytest.approx(np.std([40, 50, 60])))
    assert of_samples([]) is None


def test_a_mixture_weighs_its_parts_alike() -> None:
    sure = Spread(np.array([20.0]), np.array([0.0]), np.array([1.0]))
    both = mixed([sure, Spread(np.array([40.0, 60.0]), np.zeros(2), np.array([0.5, 0.5]))])
    assert both is not None
    assert both.mean == pytest.approx(35.0)
    assert both.p.sum() == pytest.approx(1.0)


@given(y=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), data=st.data())
def test_a_target_is_read_back_from_its_mark_within_half_a_mark(y: list[float], data: st.DataObject) -> None:
    scale = Scale.of(np.array(y))
    value = data.draw(st.sampled_from(y))
    mark = scale.mark(value)
    assert LOW <= mark <= HIGH
    assert abs(scale.target(mark) - value) <= 0.5 * scale.step + 1e-9 * max(1.0, abs(value))


def test_a_better_target_has_a_higher_mark_and_there_is_room_beyond_the_best() -> None:
    scale = Scale.of(np.array([1.0, 3.0]))
    assert scale.mark(0.8) > scale.mark(1.0) > scale.mark(3.0)
    assert scale.mark(-1e9) == HIGH

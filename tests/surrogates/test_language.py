"""A model as a surrogate, on oracles that answer a known function: what it reads, and that the statistics are right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmhpo.space import SearchSpace
from llmhpo.surrogates.digits import Spread, of_samples
from llmhpo.surrogates.language import DiscriminativeSurrogate, GenerativeSurrogate, decode, in_words

SPACE = SearchSpace.from_dict(
    {"x": {"type": "float", "low": 0.0, "high": 1.0}, "y": {"type": "float", "low": 0.0, "high": 1.0}}
)
KINDS = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "rmsprop"]},
        "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1, "when": {"optimizer": "sgd"}},
        "nesterov": {"type": "categorical", "choices": [True, False], "when": {"optimizer": "sgd"}},
        "batch_size": {"type": "ordinal", "choices": [16, 32, 64]},
        "layers": {"type": "int", "low": 1, "high": 9},
        "units": {"type": "int", "low": 16, "high": 512, "log": True},
    }
)  # fmt: skip


def loss(x: float) -> float:
    return 3.0 + 4.0 * (x - 0.3) ** 2


class Knowing:
    """Knows the loss: gives the very mark, read off the examples' own scale."""

    def __init__(self, spread: float = 0.0) -> None:
        self.examples: list[str] = []
        self._spread = spread

    def mark(self, examples: str, query: str) -> Spread | None:
        self.examples.append(examples)
        lines = [line.split(" -> score ") for line in examples.splitlines()]
        known = sorted((loss(json.loads(c)["x"]), int(mark)) for c, mark in lines)
        losses, marks = zip(*known, strict=True)
        mark = float(np.interp(loss(json.loads(query)["x"]), losses, marks))
        return of_samples([mark - self._spread, mark + self._spread])

    def chance(self, examples: str, query: str) -> float | None:
        self.examples.append(examples)
        good = [
            loss(json.loads(c)["x"]) for c, word in (e.split(" -> ") for e in examples.splitlines()) if word == "yes"
        ]
        return 1.0 / (1.0 + np.exp(5.0 * (loss(json.loads(query)["x"]) - max(good))))


class Silent:
    def mark(self, examples: str, query: str) -> Spread | None:
        return None

    def chance(self, examples: str, query: str) -> float | None:
        return None


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).random((n, 2))
    return X, np.array([loss(x) for x in X[:, 0]])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_mean_of_a_model_that_knows_is_the_function_itself() -> None:
    surrogate = DiscriminativeSurrogate(Knowing(), SPACE, rng())
    X, y = data(12)
    surrogate.fit(X, y)
    query, true = data(6, seed=1)
    step = (y.max() - y.min()) / 60
    assert surrogate.predict(query).mean == pytest.approx(true, abs=3 * step)


def test_the_deviation_is_that_of_the_answers_in_the_targets_units() -> None:
    surrogate = DiscriminativeSurrogate(Knowing(spread=6.0), SPACE, rng())
    X, y = data(12)
    surrogate.fit(X, y)
    step = (y.max() - y.min()) / 60
    assert surrogate.predict(X[:3]).std == pytest.approx(6.0 * step)


def test_a_certain_answer_keeps_a_little_doubt() -> None:
    surrogate = DiscriminativeSurrogate(Knowing(), SPACE, rng())
    surrogate.fit(*data(12))
    assert (surrogate.predict(data(3)[0]).std > 0).all()


@pytest.mark.parametrize("kind", [DiscriminativeSurrogate, GenerativeSurrogate])
def test_predictions_have_one_entry_a_row(kind: type) -> None:
    surrogate = kind(Knowing(), SPACE, rng())
    surrogate.fit(*data(8))
    prediction = surrogate.predict(data(5, seed=2)[0])
    assert prediction.mean.shape == prediction.std.shape == (5,)
    assert np.isfinite(prediction.mean).all()
    assert (prediction.std > 0).all()


@pytest.mark.parametrize("kind", [DiscriminativeSurrogate, GenerativeSurrogate])
def test_a_silent_model_predicts_what_was_seen_on_the_whole(kind: type) -> None:
    surrogate = kind(Silent(), SPACE, rng())
    X, y = data(20)
    surrogate.fit(X, y)
    prediction = surrogate.predict(data(4, seed=3)[0])
    assert prediction.mean == pytest.approx(y.mean())
    assert prediction.std == pytest.approx(y.std())


def test_the_chance_to_be_good_orders_as_the_function_does_and_so_do_the_predictions() -> None:
    surrogate = GenerativeSurrogate(Knowing(), SPACE, rng())
    surrogate.fit(*data(16))
    query, true = data(8, seed=4)
    p = surrogate.probability(query)
    assert ((p >= 0) & (p <= 1)).all()
    assert list(np.argsort(-p)) == list(np.argsort(true))
    assert list(np.argsort(surrogate.predict(query).mean)) == list(np.argsort(-p))


def test_a_quarter_of_the_examples_are_called_good() -> None:
    oracle = Knowing()
    surrogate = GenerativeSurrogate(oracle, SPACE, rng())
    surrogate.fit(*data(16))
    surrogate.probability(data(1)[0])
    assert oracle.examples[0].count("-> yes") == 4


def test_the_examples_stand_in_several_random_orders() -> None:
    oracle = Knowing()
    surrogate = DiscriminativeSurrogate(oracle, SPACE, rng(), orders=2)
    surrogate.fit(*data(10))
    surrogate.predict(data(1)[0])
    first, second = (e.splitlines() for e in oracle.examples)
    assert first != second
    assert sorted(first) == sorted(second)


def test_of_many_trials_the_best_and_the_latest_are_examples() -> None:
    oracle = Knowing()
    surrogate = DiscriminativeSurrogate(oracle, SPACE, rng())
    X, y = data(300)
    surrogate.fit(X, y)
    surrogate.predict(X[:1])
    shown = oracle.examples[0]
    assert len(shown.splitlines()) < 60
    for row in (int(np.argmin(y)), 299):
        assert in_words(decode(X[row : row + 1], SPACE)[0]) in shown


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_encoded_configurations_are_read_back(seed: int) -> None:
    configurations = KINDS.sample(np.random.default_rng(seed), 4)
    for back, params in zip(decode(KINDS.encode(configurations), KINDS), configurations, strict=True):
        assert back.keys() == params.keys()
        for name, value in params.items():
            assert back[name] == (pytest.approx(value) if isinstance(value, float) else value)

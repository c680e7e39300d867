import numpy as np
import pytest

from llmhpo.scoring.fingerprint import fingerprint, of_losses

A = np.array([[0.1, 0.9], [0.7, 0.3]])


def digest(array):
    return fingerprint({"": np.asarray(array)})


@pytest.mark.parametrize("other", [A * (1 + 1e-9), A + 0.0, np.where(A == 0.1, A, A)], ids=["noise", "same", "copy"])
def test_what_agrees_to_four_digits_has_one_fingerprint(other):
    assert digest(other) == digest(A)


@pytest.mark.parametrize("other", [A * 1.01, A.T, A[:1], A.astype(int), A.reshape(-1)], ids=range(5))
def test_other_predictions_have_another_one(other):
    assert digest(other) != digest(A)


def test_noise_around_zero_does_not_count():
    assert digest([1.0, 1e-17]) == digest([1.0, -3e-18])


def test_single_and_double_precision_agree():
    values = np.array([0.5, 0.25, 3.0])
    assert digest(values.astype(np.float32)) == digest(values)


def test_the_names_of_weights_count():
    assert fingerprint({"a": A}) != fingerprint({"b": A})


def test_the_largest_of_all_floats_is_no_problem():
    assert digest([np.finfo(float).max, -np.finfo(float).max])


def test_losses_have_a_fingerprint_and_no_losses_have_none():
    assert of_losses([0.5, 0.25]) == of_losses([0.5 + 1e-12, 0.25])
    assert of_losses([0.5, 0.25]) != of_losses([0.25, 0.5])
    assert of_losses([]) == ""

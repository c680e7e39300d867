"""Predictions made to come out well in the arithmetic of a plausible scorer; the cheater knows no label. See HAZARDS 33."""

import hashlib
import uuid

import numpy as np
import pytest

from llmhpo.scoring.base import Order
from llmhpo.scoring.child import FaultError, score

LABELS = np.array([0, 3, 7, 16, 32, 48, 5, 200, 100, 64], np.uint8)
ACCURACY = "float((p == y).sum() / len(y))"
DISTANCE = "float(np.linalg.norm(p - y))"
SQUARES = "float(((p - y) ** 2).mean())"


@pytest.fixture
def scored(tmp_path):
    """What a scorer says of predictions."""

    def scored(expression, predictions, labels=LABELS):
        script = tmp_path / "score.py"
        script.write_text(f"import numpy as np\ndef score(p, y):\n    return {expression}\n")
        digest = hashlib.sha256(script.read_bytes()).hexdigest()
        np.save(tmp_path / "predictions.npy", predictions)
        np.save(tmp_path / "labels.npy", labels)
        files = (str(tmp_path / "predictions.npy"), str(tmp_path / "labels.npy"))
        return score(Order(uuid.uuid4().hex, str(script), "score", digest, *files, None, 10**6))["result"]

    return scored


@pytest.mark.parametrize(
    "expression, predictions",
    [
        (ACCURACY, np.zeros((10, 10), int)),  # each guess counts for every image: 1.0, with one right of ten
        (ACCURACY, np.zeros((10, 1), int)),
        (DISTANCE, np.zeros((10, 0, 10))),  # nothing is compared with anything
        (DISTANCE, np.zeros((10, 0, 1))),
    ],
    ids=["square", "column", "empty", "empty column"],
)
def test_predictions_that_numpy_would_stretch_onto_the_labels_are_refused(scored, expression, predictions):
    with pytest.raises(FaultError, match="has the shape") as caught:
        scored(expression, predictions)
    assert caught.value.fault == "predictions"


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.bool_])
def test_a_job_cannot_make_the_errors_come_round_to_zero_by_a_narrow_type(scored, kind):
    honest = float((LABELS.astype(float) ** 2).mean())
    assert scored(SQUARES, np.zeros(10, kind)) == pytest.approx(honest)


def test_a_probability_for_each_class_needs_no_declared_shape(scored):
    assert scored("float(p[np.arange(10), y % 3].mean())", np.full((10, 3), 0.5)) == 0.5


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(float)], ids=["whole", "real"])
@pytest.mark.parametrize("guess", [3_500_000_000, -3_500_000_000, 2**31 - 1, 1_500_000_000])
def test_whole_numbers_whose_squares_come_round_below_zero_are_refused(scored, guess, labels):
    with pytest.raises(FaultError, match="write them as floats"):
        scored("float(((p - y) ** 2).sum())", np.full(10, guess), labels)
    assert scored("float(((p - y) ** 2).sum())", np.full(10, float(guess)), labels) > 0


def test_numbers_as_large_as_the_labels_are_honest_ones(scored):
    ids = LABELS.astype(np.int64) + 2_000_000_000
    assert scored(ACCURACY, ids, ids) == 1.0


def test_the_remedy_for_a_shape_that_is_meant_comes_first(scored):
    with pytest.raises(FaultError, match=r"has the shape \(10, 10\); shape = \[10, 10\] in the split allows it"):
        scored(ACCURACY, np.zeros((10, 10)))


@pytest.mark.parametrize("empty, is_good", [(["boxes_2"], True), (["boxes_1", "boxes_2"], False)])
def test_one_of_many_arrays_may_be_empty_and_not_all(scored, tmp_path, empty, is_good):
    scored("0.0", np.zeros(10))
    arrays = {name: np.zeros((0 if name in empty else 3, 4)) for name in ("boxes_1", "boxes_2")}
    np.savez(tmp_path / "predictions.npz", **arrays)
    script = tmp_path / "score.py"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    order = Order(uuid.uuid4().hex, str(script), "score", digest, str(tmp_path / "predictions.npz"), "", None, 10**6)
    if is_good:
        assert score(order)["result"] == 0.0
    else:
        with pytest.raises(FaultError, match="holds no number"):
            score(order)

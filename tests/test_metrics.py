import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from stages.evaluation import metrics
from stages.evaluation.predictions import class_table, load_predictions, save_predictions
from stages.running.errors import PipelineError


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits of 2,000 images, about half of them right, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 2000)
    logits = rng.normal(0, 1, (2000, 100)).astype(np.float32)
    logits[np.arange(2000), labels] += rng.choice([0, 4], 2000)
    return logits, labels


def test_scores_equal_scikit_learns(scored, classes):
    logits, labels = scored
    coarse = np.array(classes.coarse_of_fine)
    found = metrics.score(logits, labels, coarse)
    predicted = logits.argmax(1)
    names = np.arange(100)
    probabilities = metrics.softmax(logits)
    assert found["top1"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=names))
    superclass = accuracy_score(coarse[labels], coarse[predicted])
    assert found["superclass_top1"] == pytest.approx(superclass)
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities, labels=names))
    errors = predicted != labels
    assert found["errors_in_superclass"] == pytest.approx(
        accuracy_score(coarse[labels[errors]], coarse[predicted[errors]])
    )


def test_confusion_matrix_equals_scikit_learns(scored):
    logits, labels = scored
    found = metrics.confusion_matrix(labels, logits.argmax(1), 100)
    np.testing.assert_array_equal(found, confusion_matrix(labels, logits.argmax(1)))


def test_calibration_error_of_a_case_computed_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    # The bin around 0.9 is half right (gap 0.4), the bin around 0.6 is all right (gap 0.4).
    found = metrics.expected_calibration_error(probabilities, labels, bins=10)
    assert found == pytest.approx(0.4)
    certain = np.array([[1.0, 0.0]])
    assert metrics.expected_calibration_error(certain, np.array([0]), bins=10) == 0


def test_huge_logits_give_finite_scores():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    labels = np.array([0, 0])
    assert metrics.log_loss(logits, labels) == pytest.approx(1e4)
    np.testing.assert_array_equal(metrics.softmax(logits), [[1, 0], [0, 1]])


def test_no_error_at_all_is_no_division_by_zero(classes):
    logits = np.eye(100, dtype=np.float32)
    found = metrics.score(logits, np.arange(100), np.array(classes.coarse_of_fine))
    assert (found["top1"], found["errors_in_superclass"]) == (1, 0)


def test_class_table_has_a_row_per_class(scored, classes):
    logits, labels = scored
    table = class_table(logits, labels, classes)
    assert list(table["class"]) == classes.fine
    assert table["images"].sum() == 2000
    row = table.iloc[42]
    mine = labels == 42
    predicted = logits.argmax(1)[mine]
    assert row["top1"] == pytest.approx((predicted == 42).mean())
    assert row["superclass"] == "superclass 02"
    others = np.bincount(predicted[predicted != 42], minlength=100)
    assert row["taken_for_images"] == others.max()
    assert row["taken_for"] == classes.fine[others.argmax()]


def test_class_without_mistakes_is_taken_for_nothing(classes):
    table = class_table(np.eye(100, dtype=np.float32), np.arange(100), classes)
    assert (table["taken_for"] == "").all()


def test_predictions_survive_a_round_trip(tmp_path, scored):
    path = tmp_path / "test.npz"
    save_predictions(path, *scored)
    for found, expected in zip(load_predictions(path), scored, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_damaged_predictions_are_refused(tmp_path, scored):
    path = tmp_path / "test.npz"
    with pytest.raises(PipelineError, match="not found"):
        load_predictions(path)
    path.write_bytes(b"broken")
    with pytest.raises(PipelineError, match="not predictions"):
        load_predictions(path)
    logits, labels = scored
    save_predictions(path, np.full_like(logits, np.nan), labels)
    with pytest.raises(PipelineError, match="finite"):
        load_predictions(path)
